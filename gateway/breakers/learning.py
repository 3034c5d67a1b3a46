"""What the ends of calls say of their ways: who trips a breaker writes it down for all, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from uuid import UUID

import structlog

from gateway.breakers import breaker, store, telling
from gateway.breakers.breaker import Heard, Trouble, Window
from gateway.breakers.known import Known, Turn
from gateway.breakers.store import Open, Setup
from gateway.breakers.ways import Way
from gateway.catalog import Catalog
from gateway.clock import Clock
from gateway.database import Database
from gateway.errors import Unavailable
from providers.errors import ProviderError

FORGOTTEN_S = 3600.0  # a way that nobody has tried for so long is not shut for anybody

log = structlog.get_logger(__name__)


class Learning:
    """Of one process in one region."""

    def __init__(
        self, database: Database, catalog: Catalog, clock: Clock, known: Known, new_id: Callable[[], UUID],
        chance: Callable[[], float],
    ) -> None:  # fmt: skip
        self._database, self._catalog, self._clock, self._known = database, catalog, clock, known
        self._new_id, self._chance = new_id, chance
        self._windows: dict[str, Window] = {}

    async def ended(self, way: Way, turn: Turn, error: BaseException | None) -> None:
        """A call has. Raises nothing: what it brought is worth more than what it says of its way."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            return  # nobody knows; a canary's turn ends by itself
        said, code, told_s = breaker.heard(error, chosen=way.chosen), None, None
        if isinstance(error, ProviderError) and said != "well":
            code, told_s = error.code, error.retry_after_s
        try:
            for row in turn.canary_of:
                await self._answered(row, said, code, told_s)
            if said is not None:
                await self._learn(way, {row.why for row in turn.canary_of}, said, code, told_s)
        except Exception as trouble:  # whatever it is: a token that came would be lost with it
            log.warning("breakers.unwritten", provider=way.provider, kind=way.kind, error=type(trouble).__name__)

    async def look_after(self, rows: Collection[Open]) -> None:
        """An incident whose integration was changed is tried at once; what nobody will ever try is shut for nobody.

        Raises: Unavailable.
        """
        for row in rows:
            if row.left_s < -FORGOTTEN_S:
                await self._close(row)
            elif row.integration_id is not None:
                await self._compare(row, row.integration_id)
        now = self._clock.monotonic()
        self._windows = {scope: window for scope, window in self._windows.items() if not window.idle(now)}

    async def _compare(self, row: Open, integration: UUID) -> None:
        setup = self._setup(integration)
        if setup.revision <= row.setup_revision or setup.fingerprint == row.setup:
            return
        if setup.fingerprint is None:  # it was removed
            await self._close(row)
            return
        async with self._database.transaction() as tx:
            if (afresh := await store.afresh(tx, row, setup)) is not None:
                await store.notice(tx)
        if afresh is not None:
            self._known.keep(afresh)

    async def _learn(
        self, way: Way, tried: set[Trouble], said: Heard, code: str | None, told_s: float | None
    ) -> None:  # fmt: skip
        """What a call says beside that of which it was the canary (`tried`)."""
        now = self._clock.monotonic()
        if "failing" not in tried and not self._known.is_open(way.failing):
            window = self._windows.setdefault(way.failing, Window())
            window.add(said == "failing", now)
            if said == "failing" and window.trips(now):
                await self._trip(way.failing, way, said, code, told_s)
                self._windows.pop(way.failing, None)
        if said == "limited" and said not in tried:
            await self._trip(way.limited, way, said, code, told_s)
        if said == "misconfigured" and said not in tried and not self._known.is_open(way.misconfigured):
            await self._trip(way.misconfigured, way, said, code, told_s)

    async def _trip(self, scope: str, way: Way, why: Trouble, code: str | None, told_s: float | None) -> None:
        turn = breaker.begun(why, told_s, self._chance())
        async with self._database.transaction() as tx:
            row, fresh = await store.shut(tx, scope, way, why, code, turn, self._setup(way.integration))
            if fresh:
                await store.notice(tx)
                await telling.opened(tx, row, self._new_id(), self._name(row))
        self._known.keep(row)
        if fresh:
            log.warning("breaker.opened", provider=way.provider, kind=way.kind, host=way.host, why=why, code=code)

    async def _answered(self, was: Open, said: Heard | None, code: str | None, told_s: float | None) -> None:
        """A canary has ended."""
        turn = breaker.answered(was.why, was.pause_s, was.passed, said, told_s, self._chance())
        if turn.over:
            await self._close(was)
        elif (row := await store.go_on(self._database, was, turn, failed=said == was.why, code=code)) is not None:
            self._known.keep(row)
        else:  # somebody else's has opened it
            self._known.drop(was.scope)

    async def _close(self, was: Open) -> None:
        async with self._database.transaction() as tx:
            closed = await store.close(tx, was)
            if closed is not None:
                await store.notice(tx)
                await telling.closed(tx, *closed, self._new_id(), self._name(was))
        self._known.drop(was.scope)
        if closed is not None:
            log.info("breaker.closed", provider=was.provider, kind=was.kind, host=was.host, why=was.why)

    def _setup(self, integration: UUID) -> Setup:
        try:
            found = self._catalog.integration_by_id(integration)
        except Unavailable:
            return Setup()
        return Setup(None if found is None else found.setup, self._catalog.revision)

    def _name(self, row: Open) -> str | None:
        try:
            found = None if row.integration_id is None else self._catalog.integration_by_id(row.integration_id)
        except Unavailable:
            return None
        return None if found is None else found.name
