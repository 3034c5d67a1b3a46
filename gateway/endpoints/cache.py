"""What the hot path remembers of hook endpoints."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from gateway import ids
from gateway.clock import Clock
from gateway.endpoints.store import OPENABLE, HookEndpoint, Vault
from gateway.errors import Unavailable
from gateway.vault.cipher import SealBroken

if TYPE_CHECKING:
    from gateway.regions import Region

log = structlog.get_logger(__name__)

TTL_S = 1.0
MOST_REMEMBERED = 4096
LIMIT_S = 0.6  # then the database is away: with the deadline of the commit behind it, the provider is told within 2 s


class _Broken:
    """Stands for an endpoint that has a secret which does not open."""


def _usable(found: HookEndpoint | _Broken | None) -> HookEndpoint | None:
    if isinstance(found, _Broken):
        raise Unavailable("a secret of this hook endpoint does not open", retry_after_s=60)
    return found


class EndpointCache:
    """What the hot path remembers of endpoints: an LRU for a second at most.

    A rotated secret or a retired endpoint counts at once for people's purposes, and a busy endpoint costs one query a
    second instead of thousands. "There is no such endpoint" is never remembered (it may be made the next moment, and
    its provider call back inside the very call that makes it), nor is one that waits for its handshake. Concurrent
    misses of one id share a query.

    One whose secrets do not all open is `Unavailable`: the provider keeps the delivery meanwhile. Never is it taken
    for one without secrets, which would trust the integration's.
    """

    def __init__(self, clock: Clock, ttl_s: float = TTL_S, most: int = MOST_REMEMBERED) -> None:
        self._clock, self._ttl_s, self._most = clock, ttl_s, most
        self._known: OrderedDict[tuple[str, UUID], tuple[float, HookEndpoint | _Broken]] = OrderedDict()
        self._asking: dict[tuple[str, UUID], asyncio.Task[HookEndpoint | _Broken | None]] = {}

    async def get(self, region: Region, endpoint_id: UUID) -> HookEndpoint | None:
        """The endpoint, at most a second old, or None.    Raises: Unavailable."""
        name = (region.name, endpoint_id)
        known = self._known.get(name)
        if known is not None and self._clock.monotonic() - known[0] < self._ttl_s:
            self._known.move_to_end(name)
            return _usable(known[1])
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.create_task(self._ask(region, name))
            asking.add_done_callback(lambda task: self._answered(name, task))
        return _usable(await asyncio.shield(asking))  # one who gives up must not take the others' answer away

    def forget(self, region: str, endpoint_id: UUID) -> None:
        """This process changed the endpoint: the next delivery reads it anew."""
        self._known.pop((region, endpoint_id), None)
        self._asking.pop((region, endpoint_id), None)

    async def _ask(self, region: Region, name: tuple[str, UUID]) -> HookEndpoint | _Broken | None:
        asked_at = self._clock.monotonic()  # before the query: what it says may be that old
        async with region.database.acquire(LIMIT_S) as db:
            row = await db.fetchrow(OPENABLE, name[1])
        found: HookEndpoint | _Broken | None
        try:
            found = None if row is None else Vault(region.name, region.keyring).opened(row)
        except SealBroken as error:
            found = _Broken()
            if not isinstance(self._known.get(name, (0, None))[1], _Broken):  # else it is known, and said
                log.error("endpoint.unusable", endpoint=ids.show(ids.ENDPOINT, name[1]), error=type(error).__name__)
        if self._asking.get(name) is not asyncio.current_task():
            return found  # changed meanwhile by this process
        if found is None or (isinstance(found, HookEndpoint) and found.state == "confirming"):
            self._known.pop(name, None)
        else:
            self._known[name] = (asked_at, found)
            self._known.move_to_end(name)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return found

    def _answered(self, name: tuple[str, UUID], task: asyncio.Task[HookEndpoint | _Broken | None]) -> None:
        if self._asking.get(name) is task:
            del self._asking[name]
        if not task.cancelled():
            task.exception()  # seen: whoever waited got it
