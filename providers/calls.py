"""What a provider module says over HTTP, as values. The gateway sends them through its one way out (PROTOCOLS 8).

A module's calls (`identify`, `revoke`, `probe`, `mint`) are coroutines that are handed an `Http`; they know no socket,
no retry and no address, so a test hands them a script, and the gateway hands them its pinned, bounded client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

import orjson

from providers.errors import GrantEnded, OddAnswer, ProviderError, RateLimited, ScopeLacking, Unreachable

FORM = "application/x-www-form-urlencoded"
_ERROR = re.compile(r"bearer\b.*?\berror\s*=\s*\"?([a-z_]{1,40})", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to a provider. Its repr shows neither headers nor body: they hold credentials."""

    method: str  # upper case
    url: str  # absolute, https
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    carries_client_secret: bool = False  # then only a host that the operator fixed may get it


@dataclass(frozen=True, slots=True)
class Response:
    """The whole answer. Its repr shows no body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # lower-case names
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.    Raises: OddAnswer, it is none (an HTML page of a proxy, say)."""
        try:
            whole = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise OddAnswer("not_json") from None
        if not isinstance(whole, dict):
            raise OddAnswer("not_an_object")
        return whole


class Http(Protocol):
    """The gateway's one way out, as a provider module sees it."""

    async def send(self, request: Request) -> Response:
        """Raises: Unreachable (no answer within the deadline), NotAllowed (the host is not this provider's)."""


def form(url: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None, **more: Any) -> Request:
    """A POST of form fields that asks for JSON."""
    sent = {"content-type": FORM, "accept": "application/json", **(headers or {})}
    return Request("POST", url, sent, urlencode(fields).encode(), **more)


def bearer(method: str, url: str, token: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Request:
    """A call of the provider's API with an access token (RFC 6750)."""
    return Request(
        method, url, {"authorization": f"Bearer {token}", "accept": "application/json", **(headers or {})}, body
    )


def api_refusal(response: Response) -> ProviderError | None:
    """What an answer of a provider's API (not of its token endpoint) says about the token; None: it works.

    401 is `GrantEnded`, code `token_rejected`: the strongest thing that a call can show. Whoever gets it knows how
    fresh the token was, and decides (PROTOCOLS 4). `ScopeLacking` says that the token is good, so a 403 that is just
    a page (of a firewall, a proxy) is none. Source: RFC 6750 section 3.1.
    """
    status, later = response.status, retry_after_s(response)
    if 200 <= status < 300:
        return None
    # GitHub's limits are 403, too: the secondary ones with Retry-After, the primary one with nothing remaining.
    # https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit
    if status == 429 or (status == 403 and (later is not None or response.headers.get("x-ratelimit-remaining") == "0")):
        return RateLimited(status=status, retry_after_s=later)
    told = _challenged(response) if status in (400, 401, 403) else None  # some send another status than section 3.1 has
    if told == "invalid_token" or (status == 401 and told != "insufficient_scope"):
        return GrantEnded("token_rejected", status=status)
    if told == "insufficient_scope" or (status == 403 and _is_object(response)):
        return ScopeLacking(status=status)
    if status >= 500 or status == 408:
        return Unreachable(status=status, retry_after_s=later)
    return OddAnswer(status=status)


async def called(http: Http, request: Request) -> dict[str, Any]:
    """The JSON object that an API call brings.    Raises: ProviderError, as `api_refusal` tells."""
    response = await http.send(request)
    refused = api_refusal(response)
    if refused is not None:
        raise refused
    return response.json()


def _challenged(response: Response) -> str | None:
    """`error` of a `WWW-Authenticate: Bearer` (RFC 6750 section 3); None where there is none."""
    found = _ERROR.search(response.headers.get("www-authenticate", "")[:1000])
    return found[1].lower() if found else None


def _is_object(response: Response) -> bool:
    try:
        response.json()
    except OddAnswer:
        return False
    return True


def retry_after_s(response: Response) -> float | None:
    """`Retry-After` in seconds, where it is a number of them."""
    told = response.headers.get("retry-after", "").strip()
    return float(told) if told.isascii() and told.isdigit() and len(told) < 9 else None
