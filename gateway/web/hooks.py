"""The public door: `/hooks/{integration}` and `/hooks/{integration}/{endpoint}`. Plain ASGI, because it is hot.

Routing and request objects of a framework cost 40 % of this route's rate; it needs none of them. The door reads the
bytes within its limits, finds the integration, and hands over to `inbound.take`. What comes back is an answer, a
refusal (counted and noted, never with the body), or trouble of ours (503 with Retry-After, so that the provider
sends it again).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from datetime import datetime
from typing import Any

import structlog

from gateway import ids, metrics
from gateway.catalog import Integration
from gateway.endpoints.store import HookEndpoint
from gateway.errors import Overloaded, Problem, TooLarge, Unavailable
from gateway.inbound import Arrival, count_refused, run, take
from gateway.service import Gateway
from gateway.web.connect_pages import Pages
from providers.contract import Answer, Delivery
from providers.errors import DuplicateHeader, Refused

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
METHODS = frozenset({"POST", "GET", "HEAD", "OPTIONS"})

log = structlog.get_logger(__name__)


class ClientGone(Exception):
    """The provider hung up before its body was whole. There is nobody to answer."""


class Budget:
    """Bytes of deliveries in this process's memory, unverified ones included."""

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0
        metrics.INFLIGHT_BYTES.set_function(lambda: self._held)

    def expect(self, size: int) -> None:
        """Refuse now what would not fit. Nothing is set aside: an announcement costs a stranger nothing.

        Raises: Overloaded.
        """
        if self._held + size > self._limit:
            raise Overloaded("too many bytes in flight", retry_after_s=1)

    def take(self, size: int) -> None:
        """Raises: Overloaded."""
        self.expect(size)
        self._held += size

    def give(self, size: int) -> None:
        self._held -= size


class Door(Refused):
    """Refused before anything could be verified: the request itself is not one that is taken here."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Unknown(Exception):
    """No integration or hook endpoint of that name. The text is the answer."""


class Hooks:
    """The ASGI application of `/hooks`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._budget = Budget(gateway.settings.max_inflight_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        gateway = self._gateway
        started = gateway.clock.monotonic()
        held = [0]
        try:
            answer = await self._answer(scope, receive, held)
        except ClientGone:
            return
        except Unknown as unknown:
            metrics.UNKNOWN_INTEGRATION.inc()
            answer = Answer(404, str(unknown).encode())  # never 410: several providers would delete the subscription
        except Problem as problem:
            retry = () if problem.retry_after_s is None else (("retry-after", str(problem.retry_after_s)),)
            answer = Answer(problem.status, problem.code.encode(), headers=retry)
        except Exception as error:  # ours, and the provider may send it again; the type is logged, never the text
            log.error("hooks.failed", error=type(error).__name__, exc_info=True)
            answer = Answer(503, b"unavailable", headers=(("retry-after", "2"),))
        finally:
            self._budget.give(held[0])
        await _send(send, answer, head=scope["method"] == "HEAD")
        if answer.status < 300:
            metrics.ACK_SECONDS.observe(gateway.clock.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive, held: list[int]) -> Answer:
        raw_path: bytes = scope["raw_path"]
        integration, endpoint = await self._find(raw_path)
        method = scope["method"]
        try:
            if method not in METHODS:
                raise Door(405, "method_not_allowed")
            headers = _headers(scope["headers"], integration.provider.guarded_headers)
            body = await self._read(headers, receive, held)
        except Refused as refused:
            return await self._refuse(integration, endpoint, refused, scope["headers"], b"")
        except TooLarge as problem:
            count_refused(integration, problem.code)
            raise
        path, query = raw_path.decode("latin-1"), scope["query_string"].decode("latin-1")
        url = self._gateway.settings.public_url + path + ("?" + query if query else "")
        delivery = Delivery(method, url, path, query, headers, body)
        region = self._gateway.regions.get(integration.region)
        now = self._gateway.clock.now()
        try:
            return await take(self._gateway, Arrival(integration, endpoint, region, delivery), now)
        except Refused as refused:
            return await self._refuse(integration, endpoint, refused, scope["headers"], body, now)

    async def _find(self, raw_path: bytes) -> tuple[Integration, HookEndpoint | None]:
        """The integration and endpoint that `/hooks/…` names. Raises: Unknown, Unavailable."""
        parts = raw_path.split(b"/")
        if not 3 <= len(parts) <= 4 or not raw_path.isascii():
            raise Unknown("unknown_integration")
        integration = self._gateway.catalog.integration(parts[2].decode("ascii"))
        if integration is None:
            raise Unknown("unknown_integration")
        if not self._gateway.regions.holds(integration.region):
            raise Unavailable("another process serves this integration's region")  # known: never a 404
        if integration.trouble is not None:
            raise Unavailable("this integration's set-up is broken", retry_after_s=60)  # kept by the provider meanwhile
        if len(parts) == 3:
            return integration, None
        endpoint_id = ids.parse(ids.ENDPOINT, parts[3].decode("ascii"))
        endpoint = None
        if endpoint_id is not None:
            endpoint = await self._gateway.endpoints.get(self._gateway.regions.get(integration.region), endpoint_id)
        if endpoint is None or endpoint.integration_id != integration.id or endpoint.state == "retired":
            raise Unknown("unknown_endpoint")
        return integration, endpoint

    async def _read(self, headers: dict[str, str], receive: Receive, held: list[int]) -> bytes:
        """The body, within the limits of one delivery and of this process's memory."""
        limit = self._gateway.settings.max_body_bytes
        if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise Door(415, "content_encoding")
        announced = headers.get("content-length")
        if announced is not None:
            if not announced.isascii() or not announced.isdigit():
                raise Door(400, "content_length")
            if int(announced) > limit:
                raise TooLarge()
            self._budget.expect(int(announced))
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise TooLarge()
            self._budget.take(len(chunk))
            held[0] = size
            if not message.get("more_body", False):
                return chunk if not chunks else b"".join((*chunks, chunk))
            chunks.append(chunk)

    async def _refuse(
        self,
        integration: Integration,
        endpoint: HookEndpoint | None,
        refused: Refused,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        now: datetime | None = None,
    ) -> Answer:
        status = refused.status or integration.provider.facts.refused_status
        count_refused(integration, refused.reason)
        self._gateway.refusals.record(
            integration=integration.id,
            endpoint=None if endpoint is None else endpoint.id,
            reason=refused.reason,
            status=status,
            header_names=sorted({name.decode("latin-1") for name, _ in headers})[:MAX_HEADERS],
            skew_s=refused.skew_s,
            size=len(body),
            digest=(await run(len(body), hashlib.sha256, body)).digest(),
            at=now or self._gateway.clock.now(),
        )
        allow = (("allow", ", ".join(sorted(METHODS))),) if status == 405 else ()
        return Answer(status, refused.reason.encode(), headers=allow)


def _headers(raw: Collection[tuple[bytes, bytes]], guarded: frozenset[str]) -> dict[str, str]:
    """Names to values; of a doubled header the first counts, and a doubled guarded one is refused."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(headers) != len(raw):
        seen: set[str] = set()
        for name_bytes, value in raw:
            name = name_bytes.decode("latin-1")
            if name not in seen:
                headers[name] = value.decode("latin-1")
            elif name in guarded:
                raise DuplicateHeader
            seen.add(name)
    if len(raw) > MAX_HEADERS or sum(map(len, headers)) + sum(map(len, headers.values())) > MAX_HEADER_BYTES:
        raise Door(431, "too_many_headers")
    return headers


async def _send(send: Send, answer: Answer, *, head: bool) -> None:
    headers = [(b"content-length", str(len(answer.body)).encode())]
    if answer.body:
        headers.append((b"content-type", answer.content_type.encode("latin-1")))
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


def public_app(gateway: Gateway) -> App:
    """Everything on the public listener. `/hooks` is answered bare; the pages of connecting accounts are the rest."""
    hooks, pages = Hooks(gateway), Pages(gateway)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["raw_path"].startswith(b"/hooks/"):
                await hooks(scope, receive, send)
            else:
                answer = await pages.answer(scope["method"], scope["raw_path"], scope["query_string"], scope["headers"])
                await _send(send, answer, head=scope["method"] == "HEAD")

    return app
