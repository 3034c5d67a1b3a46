"""What one process knows of the ways that are shut, by its own clock: it refuses from memory, and asks only to take a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from gateway.breakers import gauges, store
from gateway.breakers.breaker import APART_S
from gateway.breakers.store import Open
from gateway.breakers.ways import Shut, Way
from gateway.catalog import Catalog
from gateway.clock import Clock
from gateway.connections import conditions
from gateway.connections.guard import LIMITS
from gateway.database import Database

LOOKS = 3
GUARD = ""  # its scope, here


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that shuts a way, and when one call may be tried (monotonic)."""

    scope: str
    due_at: float
    row: Open | None = None  # None: the guard


@dataclass(slots=True)
class Turn:
    """What a call goes as: an ordinary one, or the canary of whatever barred it."""

    canary_of: list[Open] = field(default_factory=list)
    guard: bool = False


class _Lost(Exception):
    """Somebody else has the turn."""


class Known:
    """Rows of `gateway.breakers` and the guards that hold, as they were a moment ago."""

    def __init__(self, database: Database, catalog: Catalog, clock: Clock, region: str) -> None:
        self._database, self._catalog, self._clock, self._region = database, catalog, clock, region
        self._bars: dict[str, Bar] = {}
        self._guards: dict[str, Bar] = {}  # by condition
        self._looking, self._moves = asyncio.Lock(), 0
        self.live = 1  # processes that share the budgets
        self.looked_at = float("-inf")

    async def look(self) -> Collection[Open]:
        """Read them; all that are shut now.    Raises: Unavailable."""
        async with self._looking:
            for _ in range(LOOKS):
                moves, asked_at = self._moves, self._clock.monotonic()
                seen = await store.look(self._database)
                if moves == self._moves:  # else we found something out ourselves meanwhile, which is newer
                    break
            self.looked_at, self.live = asked_at, max(1, seen.live)
            self._bars = {row.scope: Bar(row.scope, asked_at + row.left_s, row) for row in seen.open}
            early_s = LIMITS.canary_s / 2
            self._guards = {
                name: Bar(GUARD, asked_at + left_s - early_s) for name, left_s in seen.guarded.items()
            }  # fmt: skip
            gauges.show(self._region, seen.open, self._catalog)
        return seen.open

    def is_open(self, scope: str) -> bool:
        return scope in self._bars

    def bars(self, way: Way, *, told: bool) -> list[Bar]:
        """Whatever shuts it. `told`: the guard does not."""
        scopes = (way.failing, way.limited, way.misconfigured)
        found = [bar for scope in scopes if (bar := self._bars.get(scope)) is not None]
        if way.kind == "token" and not told and (guard := self._guards.get(way.condition)) is not None:
            found.append(guard)
        return found

    def due(self, way: Way, *, told: bool) -> list[Bar]:
        """What shuts it, each of which may be tried now.    Raises: Shut, one of them may not."""
        bars, now = self.bars(way, told=told), self._clock.monotonic()
        for bar in bars:
            if bar.row is not None and bar.row.setup_revision > self._catalog.revision:  # we would try the older set-up
                raise Shut(bar.row.why, APART_S, bar.row.code)
        last = max(bars, key=lambda bar: bar.due_at, default=None)
        if last is None or last.due_at <= now:
            return bars
        if last.row is None:
            raise Shut("guarded", last.due_at - now)
        raise Shut(last.row.why, last.due_at - now, last.row.code)

    async def turn(self, way: Way, *, told: bool) -> Turn:
        """Go through, as a canary where something shuts the way and it is its turn.    Raises: Shut; Unavailable."""
        for _ in range(LOOKS):
            bars = self.due(way, told=told)
            if not bars:
                return Turn()
            for bar in bars:  # nobody else in this process asks meanwhile
                self._put_off(way, bar, APART_S)
            try:
                return await self._claimed(way, bars)
            except _Lost:
                await self.look()
        raise Shut("crowded", APART_S)

    def keep(self, row: Open) -> None:
        """It is shut, like that."""
        self._bars[row.scope] = Bar(row.scope, self._clock.monotonic() + row.left_s, row)
        self._changed()

    def drop(self, scope: str) -> None:
        """It is not shut any more."""
        self._bars.pop(scope, None)
        self._changed()

    async def _claimed(self, way: Way, bars: list[Bar]) -> Turn:
        turn = Turn()
        async with self._database.transaction() as tx:
            for bar in sorted(bars, key=lambda bar: bar.scope):  # one order of locks, the guard's first
                if bar.row is None:
                    turn.guard = await conditions.turn(tx, way.condition)
                    if not turn.guard:
                        raise _Lost
                elif (row := await store.claim(tx, bar.scope, self._catalog.revision)) is not None:
                    turn.canary_of.append(row)
                else:
                    raise _Lost
        for row in turn.canary_of:
            self.keep(row)
        if turn.guard:
            self._put_off(way, Bar(GUARD, 0.0), LIMITS.canary_s / 2)
        return turn

    def _put_off(self, way: Way, bar: Bar, by_s: float) -> None:
        later = Bar(bar.scope, self._clock.monotonic() + by_s, bar.row)
        if bar.row is None:
            self._guards[way.condition] = later
        else:
            self._bars[bar.scope] = later

    def _changed(self) -> None:
        self._moves += 1
        gauges.show(self._region, [bar.row for bar in self._bars.values() if bar.row is not None], self._catalog)
