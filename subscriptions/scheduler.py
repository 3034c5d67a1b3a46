"""Whose renewal is due is claimed, run and settled, by any number of processes over one database.

    look      when does the first turn of each integration come? One query; nothing is due: asleep until it comes, or 5 s
    claim     as much as there is room for: of this process, of each integration (breakers, budget), shared between
              integrations and between tenants (`shares.py`)
    plan      all that was claimed at once, data keys unwrapped in one call; most of it is only looked at, and settled
    renew     each in a task of its own; no database connection is held while a provider is asked
    settle    what is next, many in one statement

A process that is killed leaves leases that end. One that drains claims no more, ends what is under way, and gives back what
it has not begun.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import structlog

from gateway import metrics
from gateway.breakers.ways import Kind
from gateway.catalog import Catalog, Integration
from gateway.errors import Unavailable
from gateway.loop import AGAIN_S, ended
from gateway.regions import Region
from subscriptions import store
from subscriptions.renewal import Outcome, Renewal, Unit
from subscriptions.settling import Settling
from subscriptions.store import ASKED, Claimed, Settled

IDLE_S = 5.0  # asleep for so long at the most: what becomes due meanwhile (a new connection) waits no longer
SHUT_S = 1.0  # … while something is due and its provider takes no calls
PACE_S = 0.05  # between claims: units that end one by one are made up for together
SHARE = 4  # an integration has a quarter of a process's places at the most: one that hangs leaves the others theirs
LEAST = 8  # … but so many

log = structlog.get_logger(__name__)


class Rooms(Protocol):
    """What knows how many calls may begin: `gateway.breakers`."""

    def room(self, integration: Integration, kind: Kind) -> int:
        """Of that kind, now; 0: none."""


class Scheduler:
    """The renewals of one process in one region."""

    def __init__(
        self, region: Region, catalog: Catalog, renewal: Renewal, rooms: Rooms, at_once: int, draining: asyncio.Event
    ) -> None:
        self._region, self._catalog, self._renewal, self._rooms = region, catalog, renewal, rooms
        self._at_once, self._draining = at_once, draining
        self._settling = Settling(region.database)
        self.wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: Counter[str] = Counter()  # units under way, by integration

    async def start(self) -> None:
        await self._settling.start()

    async def run_once(self) -> int:
        """Everything that is due, to the end; how many were claimed.    Raises: Unavailable."""
        claimed = 0
        while some := await self.begin():
            claimed += some
            await self.ended()
        return claimed

    async def begin(self) -> int:
        """Claim what there is room for and begin it; how many.    Raises: Unavailable."""
        return await self._begin(await self._turns())

    async def follow(self) -> None:
        """Until the process drains."""
        while not self._draining.is_set():
            self.wake.clear()
            try:
                turns = await self._turns()
                idle_s = PACE_S if await self._begin(turns) else self._idle_s(turns)
            except Exception as error:  # outlives any one failure; the type is logged, never the text
                log.warning("renewals.failed", error=type(error).__name__)
                idle_s = AGAIN_S
            await self._sleep(idle_s)
            await asyncio.sleep(PACE_S)

    async def ended(self) -> None:
        """Once what is under way has ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def close(self) -> None:
        """What is still under way is left: its leases end."""
        await ended(self._tasks)
        await self._settling.stop()

    async def _turns(self) -> list[tuple[Integration, float]]:
        """In how many seconds each integration's first turn comes, the longest waiting first."""
        usable = {one.id: one for one in self._catalog.integrations() if _renews(one)}
        found = await store.next_turns(self._region.database, usable) if usable else {}
        late_s = max([0.0, *(-in_s for in_s in found.values())])
        metrics.RENEWAL_LAG.labels(self._region.name).set(late_s)
        return sorted(((usable[id], in_s) for id, in_s in found.items()), key=lambda pair: pair[1])

    def _room(self, integration: Integration) -> int:
        own = max(self._at_once // SHARE, LEAST) - self._busy[integration.name]
        return max(min(self._rooms.room(integration, "token"), own), 0)

    def _idle_s(self, turns: Sequence[tuple[Integration, float]]) -> float:
        """A turn that has come and was not taken has no room: another process's, or a provider's that is away."""
        return min([IDLE_S, *(max(in_s, PACE_S) if in_s > 0 else SHUT_S for _, in_s in turns)])

    async def _begin(self, turns: Sequence[tuple[Integration, float]]) -> int:
        free = self._at_once - self._busy.total()
        by_id = {one.id: one for one, in_s in turns if in_s <= 0}
        rooms = {one.id: room for one in by_id.values() if (room := self._room(one)) > 0}
        if free <= 0 or not rooms or self._draining.is_set():
            return 0
        claimed = await store.take(self._region.database, rooms, free)
        if claimed:
            await self._run([(one, by_id[one.integration]) for one in claimed])
        return len(claimed)

    async def _run(self, claimed: Sequence[tuple[Claimed, Integration]]) -> None:
        units = await self._renewal.planned(claimed)
        names = {name for unit in units for name in unit.data_keys}
        try:
            await self._region.tokens.keys.openable(
                names
            )  # in one call, and into memory: each opens its own from there
        except Unavailable:
            pass  # of the key backend: each unit finds out, and comes again
        for unit in units:
            if unit.due:
                self._start(unit)
        await asyncio.gather(*(self._unit(unit) for unit in units if not unit.due))

    def _start(self, unit: Unit) -> None:
        name = unit.integration.name
        task = asyncio.create_task(self._unit(unit), name="renewal")
        self._tasks.add(task)
        self._busy[name] += 1
        metrics.RENEWALS_UNDER_WAY.labels(self._region.name).inc()

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._busy[name] -= 1
            metrics.RENEWALS_UNDER_WAY.labels(self._region.name).dec()
            self.wake.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("renewal.failed", error=type(error).__name__)  # its lease ends, and it comes again

        task.add_done_callback(over)

    async def _unit(self, unit: Unit) -> None:
        outcome, settled = await self._renewal.run(unit)
        self._tell(unit, outcome, settled)
        await self._settling.ask(settled)

    def _tell(self, unit: Unit, outcome: Outcome, settled: Settled) -> None:
        name = unit.integration.name
        if unit.claimed.reason == ASKED:
            reason: str = ASKED
        else:
            reason = settled.reason if outcome == "planned" else unit.due[0][1].reason
        metrics.RENEWALS.labels(name, outcome, reason).inc()
        if outcome not in ("planned", "given_back"):
            log.info("renewal.done", integration=name, outcome=outcome, reason=reason, code=settled.last_error)

    async def _sleep(self, idle_s: float) -> None:
        """Until something ended here, the process drains, or so long."""
        waiting = [asyncio.create_task(event.wait()) for event in (self.wake, self._draining)]
        try:
            await asyncio.wait(waiting, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(waiting)


def _renews(integration: Integration) -> bool:
    """Can it be used, and does it connect accounts?"""
    return integration.trouble is None and integration.provider.oauth_for(integration.settings) is not None
