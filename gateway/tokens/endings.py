"""How a refresh ends: what came is kept, what did not is written down, so that everybody knows what may be done next.

Others wait for the end for as long as this process is heard of. So it is written until it is written: while the database is
away in the background, and a token set that came goes to the spool meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Literal
from uuid import UUID

import structlog

from gateway import ids, metrics
from gateway.clock import Clock
from gateway.connections import reuse
from gateway.connections.moves import CONFIRM_AFTER_S
from gateway.errors import Unavailable
from gateway.processes import Process
from gateway.tokens import intent, leases, rotation, suspicion, trouble
from gateway.tokens.leases import Lease, NotNow, Open
from gateway.tokens.rotation import ANSWER_LOST, REFUSED, Due, Fresh, Verdict
from gateway.tokens.spool import Spool
from gateway.tokens.spooled import Entry, entry_of
from gateway.tokens.spooling import SILENT_S, Spooling
from gateway.vault.keyring import Keyring
from providers.errors import GrantEnded, Misconfigured, NotAllowed, OddAnswer, ProviderError, Suspended

MOST_TOLD_S = 3600.0  # a provider's Retry-After counts for so long at the most, as for its way (`breakers/breaker.py`)
SUSPENDED_S = 60.0  # how long a grant is left alone that the provider has paused
KEEP_PAUSES_S = (0.1, 0.5, 2.0, 5.0)  # between attempts to write

# overtaken: somebody else was quicker, or it is not to be refreshed any more; refused: the provider calls it dead.
Outcome = Literal["refreshed", "overtaken", "refused"]

log = structlog.get_logger(__name__)


class Endings:
    """Of the refreshes of one process."""

    def __init__(
        self, clock: Clock, keyring: Keyring, processes: Mapping[str, Process], spool: Spool, chance: Callable[[], float]
    ) -> None:  # fmt: skip
        """`processes`: this one, by region. `chance`: 0 to 1."""
        self._clock, self._keyring, self._processes, self._spool, self._chance = (
            clock,
            keyring,
            processes,
            spool,
            chance,
        )
        self.keep_pauses_s, self.silent_s = KEEP_PAUSES_S, SILENT_S
        self.unwritten: set[asyncio.Task[None]] = set()

    async def refused(self, due: Due, lease: Lease, was: Open | None, error: GrantEnded, doubts: bool) -> Outcome:
        """Evidence the first time, proof when it is said again much later, or after an answer was lost."""
        try:
            if not doubts:
                async with due.region.database.transaction() as tx:
                    await leases.ended(tx, due.name, due.seen, lease.fence)
                return "refused"
            stored = due.stored
            verdict: Verdict = "first"
            if lease.is_again and was is not None and intent.is_dangerous(was, due.facts, stored.grant.kind):
                verdict = "lost"
            elif (
                stored.grant.state == "suspect" and stored.grant.reason in (REFUSED, ANSWER_LOST)
                and stored.in_state_s >= CONFIRM_AFTER_S
            ):  # fmt: skip
                verdict = "again"
            applied = await rotation.refused(
                due, "refused", error.code, self._new_id, verdict=verdict, fence=lease.fence, is_again=lease.is_again,
                reuse=suspicion.of(due, error, verdict),
            )  # fmt: skip
        except NotNow:
            return "overtaken"
        except Exception:
            # It was answered: nobody is to take the answer for lost, and the next refusal for the last word.
            async def write() -> None:
                async with due.region.database.transaction() as tx:
                    await leases.failed(tx, lease, "failed", error.code, self.pause_s(was, error))

            await self._written(write)
            raise
        return "overtaken" if applied.outcome in ("stale", "absent") else "refused"

    async def failed(self, due: Due, lease: Lease, was: Open | None, error: ProviderError, asked_s: float) -> None:
        """Write down that no tokens came, and whether an answer is missing."""
        is_lost = trouble.is_lost(error) and intent.rotates(due.facts, due.stored.grant.kind)
        pause_s = intent.LOST_PAUSE_S if is_lost else self.pause_s(was, error)

        async def write() -> None:
            if is_lost:
                await rotation.lost(due, lease, pause_s, self._new_id, asked_s)
            else:
                async with due.region.database.transaction() as tx:
                    await leases.failed(tx, lease, "failed", error.code, pause_s)
                    if trouble.may_have_acted(error):
                        await reuse.unanswered(tx, *due.name, due.seen[1])
            if isinstance(error, OddAnswer):
                await rotation.odd(due, self._new_id)

        await self._written(write)

    async def cut(self, due: Due, lease: Lease) -> None:
        """The process ends while an answer is awaited: say so while there is a moment."""
        try:
            async with asyncio.timeout(1):
                await rotation.lost(due, lease, intent.LOST_PAUSE_S, self._new_id)
        except (Unavailable, TimeoutError):
            pass  # as after a crash: whoever comes next finds out by our silence

    async def released(self, due: Due, lease: Lease) -> None:
        """Nothing was sent under it."""
        await self._written(lambda: leases.released(due.region.database, lease))

    async def _written(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write how it ended, if not now then when the database is back: others wait for it while we are heard of."""
        try:
            await write()
        except Exception as error:
            log.warning("refresh.end_unwritten", error=type(error).__name__)
            task = asyncio.create_task(self._write_later(write), name="refresh_end")
            self.unwritten.add(task)
            task.add_done_callback(self.unwritten.discard)

    async def _write_later(self, write: Callable[[], Awaitable[None]]) -> None:
        for pause_s in itertools.chain(self.keep_pauses_s, itertools.repeat(self.keep_pauses_s[-1])):
            await asyncio.sleep(pause_s)
            try:
                await write()
                break
            except Exception as error:
                log.warning("refresh.end_unwritten", error=type(error).__name__)

    async def keep(self, due: Due, lease: Lease, fresh: Fresh) -> Outcome:
        """Write what came, until it is written."""
        known = rotation.known(self._keyring, due, fresh, "refresh", self._processes[due.region.name].id)
        spooling, attempt = Spooling(self._spool, lambda: self._entry(due, lease, fresh), self.silent_s), 0
        while True:
            waited_s = self._clock.monotonic() - fresh.at
            try:
                with spooling.unless_soon():
                    written = await rotation.keep(due, fresh, waited_s, self._new_id, known, fence=lease.fence)
            except asyncio.CancelledError:  # the process ends, and this is in its memory alone
                await spooling.put()
                raise
            except Exception as error:
                attempt += 1
                metrics.REFRESHES.labels(due.integration.name, "unwritten").inc()
                log.error("refresh.unwritten", error=type(error).__name__, attempt=attempt)
                await spooling.put()
                await asyncio.sleep(self.keep_pauses_s[min(attempt, len(self.keep_pauses_s)) - 1])
            else:
                await spooling.end()
                outcome: Outcome = "refreshed" if written else "overtaken"
                self.tell(due, outcome)
                return outcome

    def _entry(self, due: Due, lease: Lease, fresh: Fresh) -> Entry:
        waited = timedelta(seconds=self._clock.monotonic() - fresh.at)
        return entry_of(
            due, fresh, holder=self._processes[due.region.name].id, fence=lease.fence, came_at=self._clock.now() - waited,
            came_by_database=lease.at + timedelta(seconds=fresh.asked_s),
        )  # fmt: skip

    def pause_s(self, was: Open | None, error: ProviderError) -> float:
        """How long this grant is left alone after that."""
        if isinstance(error, Suspended):  # it may be lifted any time: no state of ours, until somebody tells us so
            return SUSPENDED_S
        if isinstance(error, Misconfigured | NotAllowed):
            return 0.0  # the integration's, not the grant's: its incident holds everybody
        return max(
            min(error.retry_after_s or 0.0, MOST_TOLD_S),
            intent.pause_s(0 if was is None else was.tries, self._chance()),
        )

    def tell(self, due: Due, outcome: str) -> None:
        """`outcome` is one of ours or a provider's code, of which there are few."""
        log.info("refresh.done", integration=due.integration.name, outcome=outcome)
        known = outcome if outcome in ("refreshed", "overtaken") else "failed"
        metrics.REFRESHES.labels(due.integration.name, known).inc()

    def _new_id(self) -> UUID:
        return ids.uuid7(self._clock.now())
