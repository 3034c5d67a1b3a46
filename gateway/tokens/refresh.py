"""Making expired tokens new: one refresh of a grant at a time, however many readers wait for it.

This is the plain path, single flight within one process. Leases between processes, intents, breakers and the spool come
with Renewal, behind the same `refresh`.

What a provider's trouble costs: a broken set-up (`Misconfigured`) is remembered for the whole integration, a rate limit
likewise, an outage for the one grant; until then nobody asks the provider again. None of them moves a connection.
A token set that came is written until it is written, for as long as the process lives: the refresh token in it may be
the only one that still works.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Literal
from uuid import UUID

import structlog

from gateway import exchange, ids, metrics
from gateway.catalog import Catalog
from gateway.clock import Clock
from gateway.connections import conditions, grants
from gateway.connections.grants import Name, Stored
from gateway.connections.moves import CONFIRM_AFTER_S
from gateway.connections.states import ISSUED
from gateway.errors import Problem
from gateway.outbound import Outbound
from gateway.regions import Region
from gateway.tokens import problems, rotation
from gateway.tokens.rotation import Due, Fresh
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from providers.errors import GrantEnded, Misconfigured, NotAllowed, OddAnswer, ProviderError, RateLimited, Suspended

WAIT_S = 20.0  # how long a reader waits for a refresh that goes on
BROKEN_S = 60.0  # how long an integration is left alone whose set-up the provider refuses
OUTAGE_S = 5.0  # how long a grant is, after no usable answer …
MOST_PAUSE_S = 300.0  # … and the longest that a provider's Retry-After is heeded here
KEEP_PAUSES_S = (0.1, 0.5, 2.0, 5.0)  # between attempts to write what came
RENEWED = ISSUED | {"suspended"}  # a check may renew what the provider paused: it says whether that is lifted
CLOSE_S = 2.0  # how long the end of the process waits for what is under way

Seen = tuple[int, int]  # generation and token version
# overtaken: somebody else was quicker, or it is not to be refreshed any more; refused: the provider calls it dead.
Outcome = Literal["refreshed", "overtaken", "refused"]

log = structlog.get_logger(__name__)


class Refresher:
    """The refreshes of one process."""

    def __init__(
        self, catalog: Catalog, outbound: Outbound, clock: Clock, keyring: Keyring, public_url: str,
        keep_pauses_s: tuple[float, ...] = KEEP_PAUSES_S,
    ) -> None:  # fmt: skip
        self._catalog, self._outbound, self._clock, self._public_url = catalog, outbound, clock, public_url
        self._keyring, self._keep_pauses_s = keyring, keep_pauses_s
        self._under_way: dict[Name, asyncio.Task[Outcome]] = {}
        self._pauses: dict[Name | UUID, tuple[float, Problem]] = {}  # by grant or integration: until when, and why

    async def refresh(self, region: Region, connection: UUID, access_profile: str, seen: Seen) -> None:
        """Make the token set that was `seen` (generation and token version) new, or find that it is already.

        Raises: Problem, why there is no new token; whether the old one still serves is for a check to say.
        """
        name = (connection, access_profile)
        task = self._under_way.get(name) or self._start(region, name, seen, checking=False, doubts=True)
        await asyncio.wait({task}, timeout=WAIT_S)
        if not task.done():
            raise problems.ProviderUnavailable("A refresh is under way.", retry_after_s=2)
        if task.result() == "refused":
            raise _in_doubt(CONFIRM_AFTER_S)

    async def attempt(self, region: Region, name: Name, seen: Seen, *, doubts: bool) -> Outcome:
        """A refresh for a check: asked now, whatever else is pending. One that is under way was asked before: it ends first.

        `doubts`: whether a refusal is told to the machine (else whoever asks does).    Raises: Problem, nothing is known.
        """
        if (task := self._under_way.get(name)) is not None:
            await asyncio.wait({task}, timeout=WAIT_S)
            return "overtaken"
        task = self._start(region, name, seen, checking=True, doubts=doubts)
        await asyncio.wait({task})
        return task.result()

    async def close(self) -> None:
        """Let what is under way end, for a moment."""
        if self._under_way:
            await asyncio.wait(set(self._under_way.values()), timeout=CLOSE_S)
        for task in (left := list(self._under_way.values())):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _start(
        self, region: Region, name: Name, seen: Seen, *, checking: bool, doubts: bool
    ) -> asyncio.Task[Outcome]:  # fmt: skip
        task = asyncio.create_task(self._refresh(region, name, seen, checking, doubts), name="refresh")
        self._under_way[name] = task
        task.add_done_callback(lambda ended: self._ended(name, ended))
        return task

    async def _refresh(self, region: Region, name: Name, seen: Seen, checking: bool, doubts: bool) -> Outcome:
        due = await self._look(region, name, seen, checking)
        if due is None:
            return "overtaken"
        asked_at = self._clock.monotonic()
        try:
            tokens, refresh_token = await rotation.ask(self._outbound, due, self._public_url, self._clock.now())
        except GrantEnded as error:
            self._tell(due, error.code)
            return await self._refused(due, error.code, doubts)
        except ProviderError as error:
            self._tell(due, error.code)
            if isinstance(error, OddAnswer):
                await rotation.odd(due, self.new_id)
            raise self._paused(due, name, error) from None
        except SealBroken:
            log.error("refresh.seal_broken", region=region.name, access_profile=name[1], connection=str(name[0]))
            raise problems.SealBroken() from None
        came_at = self._clock.monotonic()
        outcome = await self._keep(due, Fresh(tokens, refresh_token, came_at, came_at - asked_at))
        if outcome == "refreshed" and not checking:  # a check says so itself
            await self._well(due)
        return outcome

    async def _well(self, due: Due) -> None:
        """It counts like a canary that passes: what waits may be dead, all of it, and would never release the provider."""
        try:
            await conditions.well(
                due.region.database, due.integration.condition, self.new_id, renewed=True, unasked=True
            )
        except Exception as error:  # the token set is written, and that is what was asked for
            log.warning("refresh.condition_unwritten", error=type(error).__name__)

    async def _refused(self, due: Due, code: str, doubts: bool) -> Outcome:
        """Evidence the first time, proof when it is said again much later."""
        if not doubts:
            return "refused"
        stored = due.stored
        again = (
            stored.grant.state == "suspect" and stored.grant.reason == rotation.REFUSED
            and stored.in_state_s >= CONFIRM_AFTER_S
        )  # fmt: skip
        applied = await rotation.refused(due, "refused", code, self.new_id, again=again)
        return "overtaken" if applied.outcome in ("stale", "absent") else "refused"

    async def _look(self, region: Region, name: Name, seen: Seen, checking: bool) -> Due | None:
        """What is to be refreshed; None: nothing is any more.    Raises: Problem, it must not be, or not yet."""
        stored = await grants.stored(region.database, *name)
        if stored is None or stored.grant.state not in (RENEWED if checking else ISSUED):
            return None
        grant = stored.grant
        if (grant.generation, grant.token_version) != seen:
            return None  # somebody else was quicker
        if not grants.may_refresh(grant):
            if grant.held:
                raise problems.Held("The grant is held before its cut-over: activate it first.", do="activate")
            raise problems.Held(
                "The grant came out of a backup: `posthouse restored --release` lets it go on.", do="release"
            )
        integration = self._catalog.integration_by_id(stored.integration_id)
        if integration is None or integration.trouble is not None:
            raise problems.IntegrationBroken("The integration is gone or cannot be used.", retry_after_s=int(BROKEN_S))
        due = Due(region, integration, stored)
        if not due.can_be_asked:
            if stored.expired:
                await rotation.run_out(due, self.new_id)
            return None
        if not checking:
            _refuse_in_doubt(stored)
        self._refuse_while_paused(integration.id)
        self._refuse_while_paused(name)
        return due

    async def _keep(self, due: Due, fresh: Fresh) -> Outcome:
        """Write what came, until it is written."""
        known = replace(fresh.tokens, refresh_token=fresh.refresh_token)
        marks, attempt = exchange.marks(self._keyring, due.integration, known), 0
        while True:
            waited_s = self._clock.monotonic() - fresh.at
            try:
                written = await rotation.keep(due, fresh, waited_s, self.new_id, marks)
            except Exception as error:
                attempt += 1
                metrics.REFRESHES.labels(due.integration.name, "unwritten").inc()
                log.error("refresh.unwritten", error=type(error).__name__, attempt=attempt)
                await asyncio.sleep(self._keep_pauses_s[min(attempt, len(self._keep_pauses_s)) - 1])
            else:
                outcome: Outcome = "refreshed" if written else "overtaken"
                self._tell(due, outcome)
                return outcome

    def _paused(self, due: Due, name: Name, error: ProviderError) -> Problem:
        """Remember the trouble for a while, and say so."""
        asked_s = min(max(error.retry_after_s or OUTAGE_S, 1.0), MOST_PAUSE_S)
        problem: Problem
        of: Name | UUID
        if isinstance(error, Misconfigured | NotAllowed):
            problem = problems.IntegrationBroken(retry_after_s=int(BROKEN_S), provider_code=error.code)
            of, asked_s = due.integration.id, BROKEN_S
        elif isinstance(error, Suspended):  # it may be lifted any time: no state of ours, until somebody tells us so
            problem, of, asked_s = problems.ConnectionSuspended(do="wait"), name, BROKEN_S
        else:
            problem = problems.ProviderUnavailable(retry_after_s=math.ceil(asked_s), provider_code=error.code)
            of = due.integration.id if isinstance(error, RateLimited) else name
        now = self._clock.monotonic()
        self._pauses = {key: pause for key, pause in self._pauses.items() if pause[0] > now}
        self._pauses[of] = (now + asked_s, problem)
        return problem

    def _refuse_while_paused(self, of: Name | UUID) -> None:
        pause = self._pauses.get(of)
        left_s = 0.0 if pause is None else pause[0] - self._clock.monotonic()
        if pause is not None and left_s > 0:
            raise type(pause[1])(retry_after_s=math.ceil(left_s), **pause[1].extra)

    def new_id(self) -> UUID:
        return ids.uuid7(self._clock.now())

    def _ended(self, name: Name, task: asyncio.Task[Outcome]) -> None:
        del self._under_way[name]
        if not task.cancelled():
            task.exception()  # whoever waited has it; where nobody did any more, it is not news

    def _tell(self, due: Due, outcome: str) -> None:
        """`outcome` is one of ours or a provider's code, of which there are few."""
        log.info("refresh.done", integration=due.integration.name, outcome=outcome)
        known = outcome if outcome in ("refreshed", "overtaken") else "failed"
        metrics.REFRESHES.labels(due.integration.name, known).inc()


def _refuse_in_doubt(stored: Stored) -> None:
    """Raises: Checking: what is in doubt, or waits for its provider to be well, is asked about by its check alone."""
    if stored.grant.contested:
        raise problems.Checking("The provider says that it is over.", retry_after_s=2, do="wait")
    if stored.check in ("refused", "rejected") and stored.check_in_s is not None and stored.check_in_s > 0:
        raise _in_doubt(stored.check_in_s)


def _in_doubt(left_s: float) -> problems.Checking:
    detail = "The provider refused to refresh it; a second answer decides."
    return problems.Checking(detail, retry_after_s=max(1, math.ceil(left_s)), do="wait")
