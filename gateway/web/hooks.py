"""The public door: `/hooks/{integration}` and `/hooks/{integration}/{endpoint}`, on bare connections, because it is hot.

Routing and request objects of a framework cost 40 % of this route's rate; it needs none of them (`direct.py` says what
there is instead). The door reads the bytes within its limits, finds the integration, and hands over to `inbound.take`. What comes back is an answer, a
refusal (counted and noted, never with the body), or trouble of ours (503 with Retry-After, so that the provider
sends it again).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable
from datetime import datetime

import structlog

from gateway import ids, metrics
from gateway.catalog import Integration
from gateway.door import ClientGone, Door, Exchange
from gateway.endpoints.store import HookEndpoint
from gateway.errors import Overloaded, Problem, TooLarge, Unavailable
from gateway.inbound import Arrival, count_refused, run, take
from gateway.service import Gateway
from gateway.web.connect_pages import Pages
from providers.contract import Answer, Delivery
from providers.errors import DuplicateHeader, Refused

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
METHODS = frozenset({"POST", "GET", "HEAD", "OPTIONS"})

log = structlog.get_logger(__name__)


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
        if self._held + size > self._limit:
            self.expect(size)
        self._held += size

    def give(self, size: int) -> None:
        self._held -= size


class Unfit(Refused):
    """Refused before anything could be verified: the request itself is not one that is taken here."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Unknown(Exception):
    """No integration or hook endpoint of that name. The text is the answer."""


class Hooks:
    """The door to `/hooks`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._budget = Budget(gateway.settings.max_inflight_bytes)

    async def __call__(self, exchange: Exchange) -> Answer | None:
        """The answer to one request; None where nobody waits for it any more."""
        if not exchange.raw_path.startswith(b"/hooks/"):
            return Answer(404, b"not_found")
        gateway = self._gateway
        started = gateway.clock.monotonic()
        held = [0]
        try:
            answer = await self._answer(exchange, held)
        except ClientGone:
            return None
        except Unknown as unknown:
            metrics.UNKNOWN_INTEGRATION.inc()
            return Answer(404, str(unknown).encode())  # never 410: several providers would delete the subscription
        except Problem as problem:
            retry = () if problem.retry_after_s is None else (("retry-after", str(problem.retry_after_s)),)
            return Answer(problem.status, problem.code.encode(), headers=retry)
        except Exception as error:  # ours, and the provider may send it again; the type is logged, never the text
            log.error("hooks.failed", error=type(error).__name__, exc_info=True)
            return Answer(503, b"unavailable", headers=(("retry-after", "2"),))
        finally:
            self._budget.give(held[0])
        if answer.status < 300:
            metrics.ACK_SECONDS.observe(gateway.clock.monotonic() - started)
        return answer

    async def _answer(self, exchange: Exchange, held: list[int]) -> Answer:
        integration, endpoint_id = self._find(exchange.raw_path)
        endpoint = None if endpoint_id is None else await self._endpoint(integration, endpoint_id)
        method = exchange.method
        try:
            if method not in METHODS:
                raise Unfit(405, "method_not_allowed")
            headers = _headers(exchange.headers, integration.provider.guarded_headers)
            body = await self._read(headers, exchange, held)
        except Refused as refused:
            return await self._refuse(integration, endpoint, refused, exchange.headers, b"")
        except TooLarge as problem:
            count_refused(integration, problem.code)
            raise
        path, query = exchange.raw_path.decode("latin-1"), exchange.query.decode("latin-1")
        url = self._gateway.settings.public_url + path + ("?" + query if query else "")
        delivery = Delivery(method, url, path, query, headers, body)
        region = self._gateway.regions.get(integration.region)
        now = self._gateway.clock.now()
        try:
            return await take(self._gateway, Arrival(integration, endpoint, region, delivery), now)
        except Refused as refused:
            return await self._refuse(integration, endpoint, refused, exchange.headers, body, now, delivery)

    def _find(self, raw_path: bytes) -> tuple[Integration, str | None]:
        """The integration that `/hooks/…` names, and the endpoint's name. Raises: Unknown, Unavailable."""
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
        return integration, None if len(parts) == 3 else parts[3].decode("ascii")

    async def _endpoint(self, integration: Integration, name: str) -> HookEndpoint:
        """The hook endpoint of that name.    Raises: Unknown, Unavailable."""
        endpoint_id = ids.parse(ids.ENDPOINT, name)
        endpoint = None
        if endpoint_id is not None:
            endpoint = await self._gateway.endpoints.get(self._gateway.regions.get(integration.region), endpoint_id)
        if endpoint is None or endpoint.integration_id != integration.id or endpoint.state == "retired":
            raise Unknown("unknown_endpoint")
        return endpoint

    async def _read(self, headers: dict[str, str], exchange: Exchange, held: list[int]) -> bytes:
        """The body, within the limits of one delivery and of this process's memory."""
        limit = self._gateway.settings.max_body_bytes
        if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise Unfit(415, "content_encoding")
        announced = headers.get("content-length")
        if announced is not None:
            if not announced.isascii() or not announced.isdigit():
                raise Unfit(400, "content_length")
            if int(announced) > limit:
                raise TooLarge()
            self._budget.expect(int(announced))
        if (whole := exchange.whole()) is not None and len(whole) <= limit:
            self._budget.take(len(whole))
            held[0] = len(whole)
            return whole
        pieces: list[bytes] = []
        while piece := await exchange.piece():
            if held[0] + len(piece) > limit:
                raise TooLarge()
            self._budget.take(len(piece))
            held[0] += len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _refuse(
        self,
        integration: Integration,
        endpoint: HookEndpoint | None,
        refused: Refused,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        now: datetime | None = None,
        delivery: Delivery | None = None,
    ) -> Answer:
        provider = integration.provider
        status = refused.status or provider.facts.refused_status
        told = None if delivery is None or provider.decline is None else provider.decline(delivery, refused)
        if told is not None:
            status = told.status
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
        if told is not None:
            return told
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
    if len(raw) > MAX_HEADERS or len("".join(headers)) + len("".join(headers.values())) > MAX_HEADER_BYTES:
        raise Unfit(431, "too_many_headers")
    return headers


def public_door(gateway: Gateway) -> Door:
    """Everything on the public listener: `/hooks`, and the pages of connecting accounts."""
    hooks, pages = Hooks(gateway), Pages(gateway)

    async def door(exchange: Exchange) -> Answer | None:
        if exchange.raw_path.startswith(b"/hooks/"):
            return await hooks(exchange)
        # A task of its own: the pages ask the database and providers, with time limits, which need one.
        asked = pages.answer(exchange.method, exchange.raw_path, exchange.query, exchange.headers)
        return await asyncio.ensure_future(asked)

    return door
