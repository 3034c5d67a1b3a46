"""The breakers of one process in one region: every call of a provider passes here, or is told when to come again.

    refuse   what is known to be shut is refused from memory, before anything is waited for
    place    bounded concurrency (places.py)
    budget   so many calls a second (budget.py)
    turn     of a way that is shut, the one canary: claimed in the database, so it is one over all processes (known.py)
    learn    how the call ended says what comes next (breaker.py); whoever trips first writes the row for all (learning.py)

A row is there while its way is shut (store.py). Every process looks at the rows when somebody tells it (NOTIFY), every second
while it calls providers, and every ten seconds else. While the database is away nothing is learnt, and nobody can call
anyhow: what a call brings must be written.

The mass-failure guard shuts a provider's token calls too: it calls everybody's grants dead. Its own canaries are checks
(`told`); an ordinary call may take a turn half a pause early, so that it is released though all that waits be dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from gateway import metrics
from gateway.breakers.budget import Budget
from gateway.breakers.known import Known
from gateway.breakers.learning import Learning
from gateway.breakers.places import WAIT_S, Places
from gateway.breakers.store import CHANNEL
from gateway.breakers.ways import Kind, Shut, Way, way_of
from gateway.catalog import Catalog, Integration
from gateway.clock import Clock, chance
from gateway.database import Database, Listener
from gateway.settings import Settings

BUSY_S = 1.0  # how old what a process knows may be while it calls providers …
IDLE_S = 10.0  # … and else: the pause of the loop around `run_once`


class Breakers:
    """Of one process in one region."""

    def __init__(
        self, database: Database, catalog: Catalog, clock: Clock, settings: Settings, new_id: Callable[[], UUID], *,
        region: str = "default", chance: Callable[[], float] = chance,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._clock, self._sleep, self._region = clock, sleep, region
        self._rate, self._rates = settings.calls_per_s, settings.provider_calls_per_s
        self._known = Known(database, catalog, clock, region)
        self._learning = Learning(database, catalog, clock, self._known, new_id, chance)
        self._places = Places(settings.calls_at_once)
        self._budgets: dict[str, Budget] = {}
        self._listener = Listener(database, CHANNEL, BUSY_S)
        self.wake = self._listener.subscribe()  # for the loop around `run_once`

    async def start(self) -> None:
        """Hear what other processes find out."""
        await self._listener.start()

    async def stop(self) -> None:
        await self._listener.stop()

    @asynccontextmanager
    async def call(
        self, way: Way, *, ahead: bool = False, told: bool = False, again: bool = False
    ) -> AsyncIterator[bool]:
        """One call is made that way in the block, and its end says what is learnt: a `ProviderError`, or none.

        The block is told whether it goes in the place of a canary of the guard's: if so, its success counts like one that
        passed, and whoever made it says that (`conditions.well`). `ahead`: ahead of time, so it waits for nothing and
        leaves calls to users. `told`: a check that is the guard's canary. `again`: the last try of the same failed.

        Raises: Shut, nothing was sent; Unavailable; and whatever the block does.
        """
        try:
            if self._clock.monotonic() - self._known.looked_at >= BUSY_S:
                self.wake.set()
            self._known.due(way, told=told)
            async with self._places.one(way.failing, waits=not ahead):
                await self._pay(way, ahead, again)
                turn = await self._known.turn(way, told=told)
                try:
                    yield turn.guard
                except BaseException as error:
                    await self._learning.ended(way, turn, error)
                    raise
                await self._learning.ended(way, turn, None)
        except Shut as shut:
            metrics.CALLS_SHUT.labels(way.provider, way.kind, shut.why).inc()
            raise

    def refuse(self, way: Way) -> None:
        """Raises: Shut, where `call` would say so at once: spares whoever asks to look what it would be for."""
        try:
            self._known.due(way, told=False)
        except Shut as shut:
            metrics.CALLS_SHUT.labels(way.provider, way.kind, shut.why).inc()
            raise

    def room(self, integration: Integration, kind: Kind) -> int:
        """How many calls of it may begin now, ahead of time: 0, it is shut; 1, a canary is due."""
        way = way_of(integration, kind)
        try:
            bars = self._known.due(way, told=False)
        except Shut:
            return 0
        free = min(self._places.free(way.failing), self._budget(way.provider).ahead(self._clock.monotonic()))
        return min(free, 1) if bars else free

    def rate(self, provider: str) -> float:
        """Calls a second of it that are this process's share."""
        return self._budget(provider).rate

    async def run_once(self) -> None:
        """Look at what other processes know.    Raises: Unavailable."""
        await self._learning.look_after(await self._known.look())
        now = self._clock.monotonic()
        for provider, budget in self._budgets.items():
            metrics.BUDGET_LEFT.labels(self._region, provider).set(budget.left(now))

    async def _pay(self, way: Way, ahead: bool, again: bool) -> None:
        """Take a call out of the budget, and wait for it.    Raises: Shut."""
        budget, now = self._budget(way.provider), self._clock.monotonic()
        wait_s = budget.take(now, ahead=ahead, again=again, most_wait_s=WAIT_S)
        if wait_s is None:
            raise Shut("budget", budget.back_in_s(now, ahead=ahead, again=again))
        if wait_s > 0:
            await self._sleep(wait_s)

    def _budget(self, provider: str) -> Budget:
        now = self._clock.monotonic()
        budget = self._budgets.get(provider)
        if budget is None:
            budget = self._budgets[provider] = Budget(self._rates.get(provider, self._rate), now)
        budget.share(self._known.live, now)
        return budget
