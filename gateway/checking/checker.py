"""Checks, run: whatever is in doubt is asked about at its provider, and the machine is told what was found.

    claim     one check, by lease and fence: single-flight over all processes
    look      is it still there, and still in doubt? Somebody else may have refreshed, or a consent replaced it
    ask       probe or refresh (`asking.py`); no database connection is held
    decide    under the connection's lock and the check's fence: whoever asked anew meanwhile gets an answer of his own

At one provider a bounded number is under way. While one is unwell (the guard), what concerns it waits; canaries ask for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Literal
from uuid import UUID

import structlog

from gateway import metrics
from gateway.catalog import Catalog
from gateway.checking import store
from gateway.checking.asking import Asking, Found
from gateway.checking.store import Check
from gateway.clock import Clock
from gateway.connections import conditions, grants, scopes, transitions
from gateway.connections.fences import Fence
from gateway.connections.moves import CHECKED, CONFIRM_AFTER_S, Move
from gateway.connections.states import State
from gateway.connections.telling import Because
from gateway.database import Db
from gateway.loop import ended
from gateway.regions import Region
from gateway.tokens import rotation
from gateway.tokens.rotation import REFUSED, REJECTED, Due

AT_ONCE = 8  # checks of one provider under way in one process
BATCH = 64  # claimed at a time
# After nothing was found out: the first pause, and the longest. It is a part of the time in which all is well after an outage.
AGAIN_S, MOST_AGAIN_S = 2.0, 120.0
SOON_S = 1.0  # … after it was another one by then
MOST_DOUBLED = 3  # times that the pause of a canary grows
RESUMED_TRIES = 6  # a minute: so long a provider may go on saying that what it has lifted is suspended
MOST_CONTESTED_AGAIN_S = 30.0  # while no token is handed out for it

Verdict = Literal["alive", "refreshed", "dead", "overtaken", "too_new", "undecided", "busy"]

log = structlog.get_logger(__name__)


class Checker:
    """The checks of one process in one region."""

    def __init__(
        self, region: Region, catalog: Catalog, asking: Asking, clock: Clock, new_id: Callable[[], UUID]
    ) -> None:
        self._region, self._catalog, self._asking = region, catalog, asking
        self._clock, self._new_id = clock, new_id
        self.wake = asyncio.Event()  # set by whoever in this process has asked for a check
        self._turns: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE))
        self._tasks: dict[grants.Name, asyncio.Task[Verdict]] = {}
        self._busy: Counter[str] = Counter()

    async def run_once(self) -> int:
        """Run what is due, and canaries, to the end; how many checks there were.    Raises: Unavailable."""
        begun = await self.begin()
        await asyncio.gather(*begun, return_exceptions=True)
        return len(begun)

    async def begin(self) -> list[asyncio.Task[Verdict]]:
        """Begin what is due, and canaries: a provider that is slow holds up no other's checks.    Raises: Unavailable."""
        busy = [provider for provider, number in self._busy.items() if number >= AT_ONCE]
        database = self._region.database
        return [
            self._begun(check) for check in [*await store.canaries(database), *await store.due(database, BATCH, busy)]
        ]

    async def close(self) -> None:
        """What is under way is left: its leases end."""
        await ended(self._tasks.values())

    def _begun(self, check: Check) -> asyncio.Task[Verdict]:
        task = asyncio.create_task(self._run(check), name="check")
        self._tasks[check.name] = task
        self._busy[check.provider] += 1
        task.add_done_callback(lambda ended: self._ended(check, ended))
        return task

    def _ended(self, check: Check, task: asyncio.Task[Verdict]) -> None:
        if self._tasks.get(check.name) is task:  # its lease may have ended before it did, and it was begun anew
            del self._tasks[check.name]
        self._busy[check.provider] -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("check.failed", error=type(error).__name__)  # its lease ends, and it comes again

    async def run(self, connection: UUID, access_profile: str) -> Verdict:
        """Run the check of one grant now, if there is one; or wait for it where this process is at it.    Raises: Unavailable."""
        check = await store.one(self._region.database, connection, access_profile)
        if check is not None:
            return await self._run(check)
        running = self._tasks.get((connection, access_profile))
        return "busy" if running is None else await asyncio.shield(running)

    async def _run(self, check: Check) -> Verdict:
        turn = self._turns[check.provider]
        waits = turn.locked()
        async with turn:
            if waits and not await store.renewed(self._region.database, check):
                return "overtaken"
            due = await self._look(check)
            if due is None:
                return "overtaken"
            began = self._clock.monotonic()
            found = await self._asking.ask(check, due)
            verdict = await self._decided(check, due, found, self._clock.monotonic() - began)
        metrics.CHECKS.labels(due.integration.name, check.why, verdict).inc()
        log.info("check.done", integration=due.integration.name, why=check.why, verdict=verdict)
        return verdict

    async def _look(self, check: Check) -> Due | None:
        stored = await grants.stored(self._region.database, *check.name)
        integration = None if stored is None else self._catalog.integration_by_id(stored.integration_id)
        if stored is None or stored.grant.state not in CHECKED:
            await store.done(self._region.database, check)
            return None
        if integration is None or integration.trouble is not None:
            await store.later(self._region.database, check, MOST_AGAIN_S, "integration_unusable")
            return None
        return Due(self._region, integration, stored)

    async def _decided(self, check: Check, due: Due, found: Found, asked_s: float) -> Verdict:
        match found.answer:
            case "undecided":
                await store.later(self._region.database, check, _pause_s(check, found), found.code or "undecided")
                return "undecided"
            case "suspended" if check.signal != "suspended":  # which only somebody's word makes a state of ours
                if check.signal == "resumed" and check.tries >= RESUMED_TRIES:
                    await self._drop(check)
                else:
                    await store.later(self._region.database, check, _pause_s(check, found), "suspended")
                return "undecided"
            case "overtaken":  # it is another one by now: is that one in doubt?
                await store.later(self._region.database, check, SOON_S, "overtaken")
                return "overtaken"
            case "too_new":
                await self._drop(check)
                return "too_new"
            case "alive" | "refreshed":
                await self._alive(check, due, found, asked_s)
                return found.answer
            case _:
                return await self._dead(check, due, found)

    async def _alive(self, check: Check, due: Due, found: Found, asked_s: float) -> None:
        """It works: whatever is said of it is not true of it now."""
        async with self._region.database.transaction() as tx:
            if await self._is_ours(tx, check, due, found):  # else asked anew, or the refresh itself has told
                moves = [move for move in (self._lost(tx, due, found), self._acquitted(check, due, found)) if move]
                await store.done(tx, check)
                await grants.lived(tx, *check.name, asked_s)
                await transitions.apply(tx, moves, self._new_id)
        renewed = found.answer == "refreshed"
        await conditions.well(self._region.database, check.provider, self._new_id, renewed=renewed)

    def _acquitted(self, check: Check, due: Due, found: Found) -> Move:
        because = Because(
            cause="probe_passed" if found.answer == "alive" else "refreshed", source="probe",
            evidence=check.evidence if check.why == "contested" else None,
        )  # fmt: skip
        fence = Fence(generation=due.stored.grant.generation) if found.answer == "refreshed" else due.fence
        if check.signal == "resumed":
            said = Because(cause=check.reason or "resumed", source="delivery", evidence=check.evidence)
            return due.move("resumed", said, fence=fence, confirms=True)
        return due.move("acquitted", because, fence=fence, confirms=True)  # also where the same event is heard anew

    def _lost(self, tx: Db, due: Due, found: Found) -> Move | None:
        """A probe told the scopes: what of them is required and gone?"""
        if found.scopes is None:
            return None
        grant = due.stored.grant
        ledger = scopes.compared(due.profile, found.scopes, grant.ledger)
        if (ledger.granted, ledger.lost) == (grant.ledger.granted, grant.ledger.lost):
            return None

        async def save(state: State, reason: str | None) -> None:
            await grants.put_ledger(tx, grant.connection_id, grant.access_profile, ledger)

        return due.move(
            "acquitted" if ledger.reason is None else "scopes_lost",
            Because(cause=ledger.reason or "scopes_changed", source="probe"), reason=ledger.reason, save=save,
            also="scopes_changed",
        )  # fmt: skip

    async def _dead(self, check: Check, due: Due, found: Found) -> Verdict:
        """The provider's second word, or the only one that there can be."""
        if check.why == "contested":
            if await conditions.unwell(self._region.database, check.provider):  # which calls everybody's dead
                await store.later(self._region.database, check, MOST_CONTESTED_AGAIN_S, "provider_degraded")
                return "undecided"
            return await self._true(check, due, found)
        if found.answer == "no_means":
            await self._drop(check)
            return "too_new"
        if found.answer == "dead":  # an access token that nothing can refresh; a refresh has told the machine itself
            stored = due.stored
            again = (
                stored.grant.state == "suspect" and stored.grant.reason in (REFUSED, REJECTED)
                and stored.in_state_s >= CONFIRM_AFTER_S
            )  # fmt: skip
            verdict: rotation.Verdict = "again" if again else "first"
            await rotation.refused(due, "rejected", found.code or REJECTED, self._new_id, verdict=verdict)
        # Unless the machine has decided, or has asked anew: not before a second answer proves something.
        # A canary that stays dead is asked seldomer each time: its turns are others', who may be alive.
        times = 2 ** min(check.tries - 1, MOST_DOUBLED) if check.waits else 1
        await store.later(self._region.database, check, CONFIRM_AFTER_S * times, found.code or "dead")
        return "dead"

    async def _true(self, check: Check, due: Due, found: Found) -> Verdict:
        """A verified message, and the provider's own answer: it moves now."""
        assert check.signal is not None
        async with self._region.database.transaction() as tx:
            if not await self._is_ours(tx, check, due, found):
                return "overtaken"
            await store.done(tx, check)
            signal, reason = check.signal, check.reason
            if signal == "resumed":  # that is not so: what is said of it beside that is
                (held,) = [
                    one
                    for one in await grants.of(tx, [check.connection_id])
                    if one.access_profile == check.access_profile
                ]
                if not held.contested:
                    return "dead"
                signal, reason = "suspended", held.reason
            because = Because(
                cause=check.reason or check.signal, source="delivery", evidence=check.evidence, code=found.code,
                occurred_at=check.occurred_at,
            )  # fmt: skip
            await transitions.apply(tx, [due.move(signal, because, reason=reason, confirms=True)], self._new_id)
        return "dead"

    async def _is_ours(self, tx: Db, check: Check, due: Due, found: Found) -> bool:
        """Is it ours to decide, and was it asked about the token set that there is? Else that one is asked about.

        What is contested has its check until something decides: one that ended with a stale answer would leave it so.
        """
        await grants.lock(tx, check.connection_id)
        if not await store.holds(tx, check):
            return False
        now, grant = await grants.version(tx, *check.name), due.stored.grant
        asked = (grant.generation, grant.token_version)
        if now == asked or (found.answer == "refreshed" and now is not None and now[0] == asked[0]):
            return True
        await store.later(tx, check, SOON_S, "overtaken")
        return False

    async def _drop(self, check: Check) -> None:
        await store.done(self._region.database, check)


def _pause_s(check: Check, found: Found) -> float:
    most = MOST_CONTESTED_AGAIN_S if check.why == "contested" else MOST_AGAIN_S
    pause_s: float = AGAIN_S * 2 ** min(check.tries - 1, 10)
    return min(max(found.retry_after_s or 0.0, pause_s), most)
