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
from uuid import UUID

import structlog

from gateway import metrics
from gateway.catalog import Catalog
from gateway.clock import Clock
from gateway.connections import grants
from gateway.connections.states import ISSUED
from gateway.errors import Problem, Unavailable
from gateway.outbound import Outbound
from gateway.regions import Region
from gateway.tokens import problems, rotation
from gateway.tokens.rotation import Due, Fresh
from gateway.vault.cipher import SealBroken
from providers.errors import GrantEnded, Misconfigured, NotAllowed, ProviderError, RateLimited, Suspended

WAIT_S = 20.0  # how long a reader waits for a refresh that goes on
BROKEN_S = 60.0  # how long an integration is left alone whose set-up the provider refuses
OUTAGE_S = 5.0  # how long a grant is, after no usable answer …
MOST_PAUSE_S = 300.0  # … and the longest that a provider's Retry-After is heeded here
KEEP_PAUSES_S = (0.1, 0.5, 2.0, 5.0)  # between attempts to write what came
CLOSE_S = 2.0  # how long the end of the process waits for what is under way

Name = tuple[UUID, str]  # connection and access profile
Seen = tuple[int, int]  # generation and token version

log = structlog.get_logger(__name__)


class Refresher:
    """The refreshes of one process."""

    def __init__(
        self, catalog: Catalog, outbound: Outbound, clock: Clock, public_url: str,
        keep_pauses_s: tuple[float, ...] = KEEP_PAUSES_S,
    ) -> None:  # fmt: skip
        self._catalog, self._outbound, self._clock, self._public_url = catalog, outbound, clock, public_url
        self._keep_pauses_s = keep_pauses_s
        self._under_way: dict[Name, asyncio.Task[None]] = {}
        self._pauses: dict[Name | UUID, tuple[float, Problem]] = {}  # by grant or integration: until when, and why

    async def refresh(self, region: Region, connection: UUID, access_profile: str, seen: Seen) -> None:
        """Make the token set that was `seen` (generation and token version) new, or find that it is already.

        Raises: Problem, why there is no new token; whether the old one still serves is for a check to say.
        """
        name = (connection, access_profile)
        task = self._under_way.get(name)
        if task is None:
            task = asyncio.create_task(self._refresh(region, name, seen), name="refresh")
            self._under_way[name] = task
            task.add_done_callback(lambda ended: self._ended(name, ended))
        await asyncio.wait({task}, timeout=WAIT_S)
        if not task.done():
            raise problems.ProviderUnavailable("A refresh is under way.", retry_after_s=2)
        task.result()

    async def close(self) -> None:
        """Let what is under way end, for a moment."""
        if self._under_way:
            await asyncio.wait(set(self._under_way.values()), timeout=CLOSE_S)
        for task in (left := list(self._under_way.values())):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _refresh(self, region: Region, name: Name, seen: Seen) -> None:
        due = await self._look(region, name, seen)
        if due is None:
            return
        try:
            tokens, refresh_token = await rotation.ask(self._outbound, due, self._public_url, self._clock.now())
        except GrantEnded as error:
            self._tell(due, error.code)
            if await rotation.refused(due, self._clock.now()):
                raise _contested(0.0) from None
        except ProviderError as error:
            self._tell(due, error.code)
            raise self._paused(due, name, error) from None
        except SealBroken:
            log.error("refresh.seal_broken", region=region.name, access_profile=name[1], connection=str(name[0]))
            raise problems.SealBroken() from None
        else:
            await self._keep(due, Fresh(tokens, refresh_token, self._clock.monotonic()))

    async def _look(self, region: Region, name: Name, seen: Seen) -> Due | None:
        """What is to be refreshed; None: nothing is any more.    Raises: Problem, it must not be, or not yet."""
        stored = await grants.stored(region.database, *name)
        if stored is None or stored.grant.state not in ISSUED:
            return None
        grant = stored.grant
        if (grant.generation, grant.token_version) != seen:
            return None  # somebody else was quicker
        if not grants.may_refresh(grant):
            why = "held before its cut-over" if grant.held else "out of a backup"
            raise problems.Held(f"The grant is {why}: nothing is refreshed until it is activated.", do="activate")
        integration = self._catalog.integration_by_id(stored.integration_id)
        if integration is None or integration.trouble is not None:
            raise problems.IntegrationBroken("The integration is gone or cannot be used.", retry_after_s=int(BROKEN_S))
        due = Due(region, integration, stored)
        if not due.can_be_asked:
            if stored.expired:
                await rotation.run_out(due, self._clock.now())
            return None
        if due.contested:
            raise _contested(stored.in_state_s)
        self._refuse_while_paused(integration.id)
        self._refuse_while_paused(name)
        return due

    async def _keep(self, due: Due, fresh: Fresh) -> None:
        """Write what came, until it is written."""
        attempt = 0
        while True:
            now, waited_s = self._clock.now(), self._clock.monotonic() - fresh.at
            try:
                written = await rotation.keep(due, fresh, waited_s, now)
            except Exception as error:
                attempt += 1
                metrics.REFRESHES.labels(due.integration.name, "unwritten").inc()
                log.error("refresh.unwritten", error=type(error).__name__, attempt=attempt)
                await asyncio.sleep(self._keep_pauses_s[min(attempt, len(self._keep_pauses_s)) - 1])
            else:
                self._tell(due, "refreshed" if written else "overtaken")
                return

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

    def _ended(self, name: Name, task: asyncio.Task[None]) -> None:
        del self._under_way[name]
        if not task.cancelled():
            task.exception()  # whoever waited has it; where nobody did any more, it is not news

    def _tell(self, due: Due, outcome: str) -> None:
        """`outcome` is one of ours or a provider's code, of which there are few."""
        log.info("refresh.done", integration=due.integration.name, outcome=outcome)
        known = outcome if outcome in ("refreshed", "overtaken") else "failed"
        metrics.REFRESHES.labels(due.integration.name, known).inc()


def _contested(since_s: float) -> Unavailable:
    left_s = max(1, math.ceil(rotation.CONFIRM_AFTER_S - since_s))
    return problems.Checking(
        "The provider refused to refresh it; a second answer decides.", retry_after_s=left_s
    )  # fmt: skip
