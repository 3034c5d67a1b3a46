"""The public pages of connecting accounts: `/connect/{link}` and `/oauth/callback/{integration}`.

A handful of requests for each connected account, so nothing here is hot; yet they are open to the world. A request is a
method, a path, a query and headers; an answer is whole. Bodies are not read: the forms have no fields. Logs and metrics
hold route templates and outcomes, never a path or a query.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import structlog

from gateway.connect import pages, secrets
from gateway.connect.callback import Callback
from gateway.connect.flow import Flow
from gateway.connect.outcomes import Offer, Outcome, Redirect, Told
from gateway.errors import Problem, Unavailable
from gateway.service import Gateway
from providers.contract import Answer

COOKIE_S = 24 * 3600  # longer than any link lives

LINK, CALLBACK = "/connect/{link}", "/oauth/callback/{integration}"

log = structlog.get_logger(__name__)

Headers = Iterable[tuple[bytes, bytes]]

SAFE = (
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-robots-tag", "noindex"),
)


class Pages:
    """Everything on the public listener but `/hooks`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._flow = Flow(gateway)
        self._callback = Callback(self._flow)
        public = urlsplit(gateway.settings.public_url)
        self._origin = f"{public.scheme}://{public.netloc}"
        # The prefix is a browser's promise: set by this very host, over https, for every path (RFC 6265bis, 4.1.3.2).
        secure = public.scheme == "https"
        self._cookie = "__Host-posthouse-connect" if secure else "posthouse-connect"
        self._flags = f"Max-Age={COOKIE_S}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    async def answer(self, method: str, raw_path: bytes, query: bytes, headers: Headers) -> Answer:
        """One request. No exception leaves this."""
        started = self._gateway.clock.monotonic()
        route, name = _routed(raw_path)
        if route is None:
            return Answer(404, b"not_found")
        try:
            answer = await self._answer(route, name, method, query, list(headers))
        except Unavailable as problem:
            answer = self._page(pages.told(Told(kind="unavailable")), retry_after_s=problem.retry_after_s)
        except Exception as error:  # ours; the type is logged, never the text
            log.error(
                "connect.failed", route=route, error=type(error).__name__, exc_info=not isinstance(error, Problem)
            )
            answer = self._page(pages.told(Told(kind="unavailable")), status=500)
        taken_s = self._gateway.clock.monotonic() - started
        log.info("connect.request", method=method[:10], route=route, status=answer.status, ms=round(taken_s * 1000, 1))
        return answer

    async def _answer(
        self, route: str, name: str, method: str, query: bytes, headers: list[tuple[bytes, bytes]]
    ) -> Answer:
        allowed = ("GET", "HEAD") if route == CALLBACK else ("GET", "HEAD", "POST")
        if method not in allowed:
            return Answer(405, b"method_not_allowed", headers=(*SAFE, ("allow", ", ".join(allowed))))
        if route == CALLBACK:
            if method == "HEAD":  # nobody comes back from a consent with HEAD: and it must not use the code up
                return Answer(200, headers=SAFE)
            return self._told(await self._callback.take(name, query, self._browser(headers)))
        if method != "POST":
            return self._told(await self._flow.look(name))
        if not self._from_here(headers):
            return self._told(Told(kind="refused"))
        return self._told(await self._flow.press(name, self._browser(headers)))

    def _told(self, outcome: Outcome) -> Answer:
        if isinstance(outcome, Redirect):
            cookie = (
                () if outcome.cookie is None else (("set-cookie", f"{self._cookie}={outcome.cookie}; {self._flags}"),)
            )
            return Answer(303, headers=(*SAFE, ("location", outcome.url), *cookie))
        return self._page(pages.offered(outcome) if isinstance(outcome, Offer) else pages.told(outcome))

    def _page(self, page: pages.Page, *, status: int | None = None, retry_after_s: int | None = None) -> Answer:
        nonce = secrets.fresh()
        # A form's target counts through all redirects, and where a provider sends its own users on, nobody can list.
        target = "'self' https:" if self._origin.startswith("https:") else "'self' https: http:"
        policy = f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {target}; frame-ancestors 'none'; base-uri 'none'"
        retry = () if retry_after_s is None else (("retry-after", str(retry_after_s)),)
        return Answer(
            status or page.status, pages.rendered(page, nonce), "text/html; charset=utf-8",
            (*SAFE, ("content-security-policy", policy), *retry),
        )  # fmt: skip

    def _browser(self, headers: list[tuple[bytes, bytes]]) -> str | None:
        """The browser's token, if it brought one of ours; of several none, since one was put there by somebody else."""
        sent = "; ".join(value.decode("latin-1") for key, value in headers if key == b"cookie")
        found = [
            value for key, _, value in (part.strip().partition("=") for part in sent.split(";")) if key == self._cookie
        ]
        return found[0] if len(found) == 1 and secrets.is_one(found[0]) else None

    def _from_here(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """May this POST be a press of our own button? Old browsers send neither header.

        `Origin: null` is what ours sends: the page's referrer policy hides where it comes from.
        """
        sent = {key: value.decode("latin-1") for key, value in headers if key in (b"origin", b"sec-fetch-site")}
        if sent.get(b"origin", "null") not in ("null", self._origin):
            return False
        return sent.get(b"sec-fetch-site", "none") in ("same-origin", "none")


def _routed(raw_path: bytes) -> tuple[str | None, str]:
    """The template, and what stands in its place."""
    try:
        parts = raw_path.decode("ascii").split("/")
    except UnicodeDecodeError:
        return None, ""
    if len(parts) == 3 and parts[1] == "connect":
        return LINK, parts[2]
    if len(parts) == 4 and parts[1:3] == ["oauth", "callback"]:
        return CALLBACK, parts[3]
    return None, ""
