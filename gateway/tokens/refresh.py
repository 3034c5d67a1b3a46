"""Making tokens new: one refresh of a grant at a time, however many readers and processes want it (PROTOCOLS 5).

    look      is it still the token set that was seen, and may it be refreshed? Is a refresh of it open?
    wait      for another process's; or refuse, where an answer is missing and the provider would not forgive (`intent.py`)
    enter     the breaker of its way lets it pass: a place, a share of the budget
    lease     in `gateway.refreshes`, with a fence, by the database's clock
    look      again: whoever was quicker has left another token set
    sent      written down before the first byte leaves: whoever comes after us knows that it may have
    ask       the provider, with a deadline that ends before the lease does; no database connection is held
    keep      by compare-and-swap on generation, version and fence, until it is written, for as long as the process lives

In one process everybody who wants it waits for one task; other processes are woken by the end of it. What a provider's trouble
costs is told by the row: until `again_at` nobody asks for this grant, from no process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal
from uuid import UUID

import structlog

from gateway import ids
from gateway.breakers.breakers import Breakers
from gateway.breakers.ways import Shut, Way, way_of
from gateway.catalog import Catalog
from gateway.clock import Clock
from gateway.connections import conditions, grants
from gateway.connections.grants import Name
from gateway.connections.moves import CONFIRM_AFTER_S
from gateway.connections.states import ISSUED
from gateway.database import Listener
from gateway.errors import Problem
from gateway.outbound import Outbound
from gateway.outbound.client import DEADLINE_S
from gateway.processes import Process
from gateway.regions import Region
from gateway.tokens import intent, leases, problems, rotation, trouble
from gateway.tokens.endings import Endings, Outcome
from gateway.tokens.leases import LEASE_S, Lease, Open
from gateway.tokens.rotation import Due, Fresh, Prepared
from gateway.tokens.spool import Spool
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from providers.errors import (
    GrantEnded,
    OddAnswer,
    ProviderError,
    Unreachable,
)  # fmt: skip

WAIT_S = 20.0  # how long a reader waits for a refresh that goes on
MOST_WAIT_S = 60.0  # … and a check or the scheduler, which come again: one that cannot be written has no end
LOOKERS = 4  # readers of one integration that look at their grants at once: a crowd leaves the pool to others
MARGIN_S = 3.0  # a call is cut so long before its lease ends
POLLS_S = (0.5, 1.0, 2.0, 4.0)  # looks of a process that waits for another's, behind a notice that is lost
RENEWED = ISSUED | {"suspended"}  # a check may renew what the provider paused: it says whether that is lifted
CLOSE_S = 2.0  # how long the end of the process waits for what is under way

# For whom: a reader waits; a check asks now, whatever else is pending; the scheduler is ahead of its time, and never waits.
For = Literal["read", "check", "ahead"]

AHEAD = "refresh ahead"  # the name of its task

log = structlog.get_logger(__name__)


class Refresher:
    """The refreshes of one process."""

    def __init__(
        self, catalog: Catalog, outbound: Outbound, clock: Clock, keyring: Keyring, public_url: str, *,
        breakers: Mapping[str, Breakers], news: Mapping[str, Listener], processes: Mapping[str, Process], spool: Spool, spool_grace_s: float,
        chance: Callable[[], float] = intent.chance,
    ) -> None:  # fmt: skip
        """`breakers`, `news` (of `leases.CHANNEL`) and `processes` (this one, there) by region."""
        self._catalog, self._outbound, self._clock, self._public_url = catalog, outbound, clock, public_url
        self._endings, self._chance = Endings(clock, keyring, processes, spool, chance), chance
        self._breakers, self._news, self._processes, self._spool_grace_s = breakers, news, processes, spool_grace_s
        self._under_way: dict[Name, asyncio.Task[Outcome]] = {}
        self._lookers: dict[UUID | None, asyncio.Semaphore] = {}  # by integration

    async def refresh(
        self, region: Region, connection: UUID, access_profile: str, seen: tuple[int, int],
        integration: UUID | None = None,
    ) -> None:  # fmt: skip
        """Make the token set that was `seen` (generation and token version) new, or find that it is already.

        `integration`: whose it is, if that is known: a thousand callers of a provider that is away ask no database then.

        Raises: Problem, why there is no new token; whether the old one still serves is for a check to say.
        """
        name = (connection, access_profile)
        until = self._clock.monotonic() + WAIT_S
        task = self._under_way.get(name)
        if task is not None and task.get_name() == AHEAD:
            await asyncio.wait({task}, timeout=WAIT_S)
            if task.done() and not task.cancelled() and isinstance(task.exception(), Problem):
                task = self._under_way.get(name)  # it waits for nothing; a reader does
        if task is None:
            self._refuse_while_shut(region, integration, access_profile)
            task = self._start(region, name, seen, "read", doubts=True, integration=integration)
        await asyncio.wait({task}, timeout=max(until - self._clock.monotonic(), 0.0))
        if not task.done():
            raise problems.ProviderUnavailable("A refresh is under way.", retry_after_s=2)
        if task.result() == "refused":
            raise trouble.in_doubt(CONFIRM_AFTER_S)

    def _refuse_while_shut(self, region: Region, integration: UUID | None, access_profile: str) -> None:
        """Raises: Problem, what its breaker would say."""
        known = None if integration is None else self._catalog.integration_by_id(integration)
        facts = None if known is None or known.trouble is not None else known.provider.oauth_for(known.settings)
        if known is None or facts is None:
            return  # what is wrong with it is said where it is looked at
        way = way_of(known, "token", minted=access_profile in facts.minted)
        if not way.chosen:  # else only the grant knows the host
            try:
                self._breakers[region.name].refuse(way)
            except Shut as shut:
                raise trouble.shut_problem(shut, self._chance()) from None

    async def attempt(self, region: Region, name: Name, seen: tuple[int, int], *, doubts: bool) -> Outcome:
        """A refresh for a check: asked now, whatever else is pending. One that is under way was asked before: it ends first.

        `doubts`: whether a refusal is told to the machine (else whoever asks does).    Raises: Problem, nothing is known.
        """
        if (task := self._under_way.get(name)) is not None:
            await asyncio.wait({task}, timeout=WAIT_S)
            return "overtaken"
        return await _ended(self._start(region, name, seen, "check", doubts=doubts))

    async def renew(self, region: Region, name: Name, seen: tuple[int, int]) -> Outcome:
        """A refresh for the scheduler, ahead of its time.    Raises: Problem, with when to come again."""
        if (task := self._under_way.get(name)) is None:
            task = self._start(region, name, seen, "ahead", doubts=True)
        return await _ended(task)

    async def idle(self) -> None:
        """Once nothing is under way: a call that is cut may have been the end of its grant."""
        while self._under_way:
            await asyncio.wait(set(self._under_way.values()))

    async def close(self) -> None:
        """Let what is under way end, for a moment."""
        if self._under_way:
            await asyncio.wait(set(self._under_way.values()), timeout=CLOSE_S)
        for task in (left := [*self._under_way.values(), *self._endings.unwritten]):
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _start(
        self, region: Region, name: Name, seen: tuple[int, int], purpose: For, *, doubts: bool,
        integration: UUID | None = None,
    ) -> asyncio.Task[Outcome]:  # fmt: skip
        said = AHEAD if purpose == "ahead" else "refresh"
        turns = self._lookers.setdefault(integration, asyncio.Semaphore(LOOKERS)) if purpose == "read" else None
        task = asyncio.create_task(self._refresh(region, name, seen, purpose, doubts, turns), name=said)
        self._under_way[name] = task
        task.add_done_callback(lambda ended: self._ended(name, ended))
        return task

    async def _refresh(
        self, region: Region, name: Name, seen: tuple[int, int], purpose: For, doubts: bool,
        turns: asyncio.Semaphore | None,
    ) -> Outcome:  # fmt: skip
        until = self._clock.monotonic() + WAIT_S
        while True:
            async with turns or nullcontext():
                due = await self._look(region, name, seen, purpose)
                if due is None:
                    return "overtaken"
                was = await leases.look(region.database, name)
            open = was if was is not None and was.seen == seen else None
            if open is not None and open.is_under_way and open.holder != self._processes[region.name].id:
                if purpose == "ahead" or not await self._waited(region, name, open, until):
                    raise problems.ProviderUnavailable("A refresh is under way.", retry_after_s=2)
                if purpose == "check":
                    return "overtaken"
                continue
            await self._refuse_while_open(due, open, purpose)
            if (outcome := await self._entered(due, was, purpose, doubts)) is not None:
                return outcome
            if self._clock.monotonic() >= until:  # a vault so slow that each lease is over before anything can be sent
                raise problems.ProviderUnavailable("A refresh is under way.", retry_after_s=2)

    async def _entered(self, due: Due, was: Open | None, purpose: For, doubts: bool) -> Outcome | None:
        """Its way lets it pass, or not.    None: another process was quicker.    Raises: Problem."""
        try:
            async with self._breakers[due.region.name].call(
                _way(due), ahead=purpose == "ahead", told=purpose == "check", again=was is not None and was.tries > 0
            ) as in_a_canarys_place:
                outcome = await self._leased(due, was, doubts)
        except _Unasked as unasked:
            return unasked.outcome
        except Shut as shut:
            raise trouble.shut_problem(shut, self._chance()) from None
        except ProviderError as error:
            raise trouble.problem(error, self._endings.pause_s(was, error)) from None
        if outcome == "refreshed" and purpose != "check":  # a check says so itself
            await self._well(due, in_a_canarys_place)
        return outcome

    async def _leased(self, due: Due, was: Open | None, doubts: bool) -> Outcome:
        """Claim, look again, ask, keep.    Raises: ProviderError; Problem, _Unasked: no call was made."""
        began = self._clock.monotonic()
        lease = await leases.claim(due.region.database, due.name, due.seen, self._processes[due.region.name].id, was)
        if lease is None:
            raise _Unasked(None)
        try:
            again = await self._look_again(due)
            prepared = None if again is None else await rotation.prepare(again, self._public_url, self._clock.now())
            is_sent = prepared is not None and await leases.sent(due.region.database, lease)
        except BaseException as error:  # nothing has left us
            await self._endings.released(due, lease)
            if isinstance(error, SealBroken):
                log.error("refresh.seal_broken", region=due.region.name, connection=str(due.name[0]))
                raise problems.SealBroken() from None
            raise
        if again is None or prepared is None:
            await self._endings.released(due, lease)
            raise _Unasked("overtaken")
        if not is_sent:  # the lease is over, and another's by now
            raise _Unasked(None)
        return await self._asked(again, lease, was, prepared, began, doubts)

    async def _asked(
        self, due: Due, lease: Lease, was: Open | None, prepared: Prepared, began: float, doubts: bool
    ) -> Outcome:  # fmt: skip
        asked_at = self._clock.monotonic()
        deadline_s = min(DEADLINE_S, began + LEASE_S - MARGIN_S - asked_at)
        try:
            if deadline_s <= 0:
                raise Unreachable("closed")
            tokens, refresh_token = await rotation.ask(self._outbound, due, prepared, deadline_s)
        except GrantEnded as error:
            self._endings.tell(due, error.code)
            return await self._endings.refused(due, lease, was, error, doubts)
        except ProviderError as error:
            self._endings.tell(due, error.code)
            await self._endings.failed(due, lease, was, error, self._clock.monotonic() - asked_at)
            raise
        except asyncio.CancelledError:
            await self._endings.cut(due, lease)
            raise
        except Exception as error:  # something came that our own code cannot read: it may have been tokens
            log.error("refresh.unread", integration=due.integration.name, error=type(error).__name__)
            unread = OddAnswer("unread")
            await self._endings.failed(due, lease, was, unread, self._clock.monotonic() - asked_at)
            raise unread from None
        came_at = self._clock.monotonic()
        return await self._endings.keep(due, lease, Fresh(tokens, refresh_token, came_at, came_at - asked_at))

    async def _look(self, region: Region, name: Name, seen: tuple[int, int], purpose: For) -> Due | None:
        """What is to be refreshed; None: nothing is any more.    Raises: Problem, it must not be, or not yet."""
        stored = await grants.stored(region.database, *name)
        if stored is None or stored.grant.state not in (RENEWED if purpose == "check" else ISSUED):
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
            raise problems.IntegrationBroken(
                "The integration is gone or cannot be used.", retry_after_s=int(trouble.BROKEN_S)
            )
        due = Due(region, integration, stored)
        if not due.can_be_asked:
            if stored.expired:
                await rotation.run_out(due, self.new_id)
            return None
        if purpose != "check":
            trouble.refuse_in_doubt(stored)
        return due

    async def _look_again(self, due: Due) -> Due | None:
        """As the grant is now that the lease is ours; None: somebody else was quicker, or it may not be sent any more."""
        stored = await grants.stored(due.region.database, *due.name)
        if stored is None or stored.grant.state not in RENEWED or not grants.may_refresh(stored.grant):
            return None
        again = replace(due, stored=stored)
        return again if again.seen == due.seen and again.can_be_asked else None

    async def _waited(self, region: Region, name: Name, open: Open, until: float) -> bool:
        """Wait for another process's refresh; False: it takes longer than whoever waits does."""
        news = self._news[region.name]
        event = news.subscribe(name[0].hex)
        try:
            await leases.wait(region.database, name, open.fence)
            polls = iter((*POLLS_S,))
            while True:
                event.clear()
                now = await leases.look(region.database, name)
                if now is None or now.fence != open.fence or not now.is_under_way:
                    return True
                left_s = min(until - self._clock.monotonic(), next(polls, POLLS_S[-1]))
                if left_s <= 0:
                    return False
                await news.wait(event, left_s)
        finally:
            news.unsubscribe(event)

    async def _refuse_while_open(self, due: Due, open: Open | None, purpose: For) -> None:
        """Raises: Problem, it must not be sent yet: an answer is missing, or the last try failed a moment ago."""
        if open is None:
            return
        kind = due.stored.grant.kind
        me = self._processes[due.region.name].id
        left_s = intent.wait_s(open, due.facts, kind, me, self._spool_grace_s)
        if intent.is_dangerous(open, due.facts, kind):
            if left_s > 0:
                await rotation.lost(due, None, left_s, self.new_id)
                raise trouble.lost(left_s)
        elif left_s > 0 and purpose != "check":
            raise trouble.again(open.last_error or "unreachable", left_s)

    async def _well(self, due: Due, in_a_canarys_place: bool) -> None:
        """It counts like a canary that passes: what waits may be dead, all of it, and would never release the provider."""
        try:
            await conditions.well(
                due.region.database,
                due.integration.condition,
                self.new_id,
                renewed=True,
                unasked=not in_a_canarys_place,
            )
        except Exception as error:  # the token set is written, and that is what was asked for
            log.warning("refresh.condition_unwritten", error=type(error).__name__)

    def new_id(self) -> UUID:
        return ids.uuid7(self._clock.now())

    def _ended(self, name: Name, task: asyncio.Task[Outcome]) -> None:
        del self._under_way[name]
        if not task.cancelled():
            task.exception()  # whoever waited has it; where nobody did any more, it is not news


class _Unasked(Exception):
    """No call was made, so the way has learnt nothing."""

    def __init__(self, outcome: Outcome | None) -> None:
        super().__init__()
        self.outcome = outcome


async def _ended(task: asyncio.Task[Outcome]) -> Outcome:
    """Raises: Problem, it goes on; and whatever the task does."""
    await asyncio.wait({task}, timeout=MOST_WAIT_S)
    if not task.done():
        raise problems.ProviderUnavailable("A refresh is under way.", retry_after_s=2)
    return task.result()


def _way(due: Due) -> Way:
    grant = due.stored.grant
    return way_of(due.integration, "token", grant.parameters, minted=grant.kind == "installation")
