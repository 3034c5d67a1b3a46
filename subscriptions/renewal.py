"""The renewal unit of one connection: planned from what is known of it, renewed as far as that is due, planned again.

Today its tokens; the Subscriptions issue puts subscriptions into the same unit, under the same lease.

A unit decides nothing of its own: what is to be done when is the policy's, whether one call goes out is the refresher's, and
a grant's state is the machine's. What failed is put off, by chance and longer each time; a grant that is dead, or in doubt,
is planned as that, so nothing is sent for it until something changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog

from gateway import exchange
from gateway.catalog import Integration
from gateway.connections.grants import Name
from gateway.errors import Problem
from gateway.regions import Region
from gateway.tokens import problems
from subscriptions import facts, policy
from subscriptions.facts import Known
from subscriptions.hours import QuietHours
from subscriptions.store import ASKED, Claimed, Settled

PAUSE_S, MOST_PAUSE_S = 5.0, 240.0  # after a failure: the first pause, and the longest
SEALED_S = 3600.0  # where our own seal does not open: no haste mends it
NEVER = frozenset({"state", "held", "restored", "in_doubt", "cannot_renew", "hard_end"})  # whoever asks for it
LEAST_S = 5.0  # between a renewal and the next, however short a token's life is
RESTORED_S = 6 * 3600.0  # what is set aside after a restore is looked at again after so long: all at once may be let go

# renewed: tokens came; overtaken: somebody else was quicker; refused: the provider calls a grant dead; failed: no answer, and
# nothing is known; planned: nothing was due; given_back: the process ends.
Outcome = Literal["renewed", "overtaken", "refused", "failed", "planned", "given_back"]

log = structlog.get_logger(__name__)


class Renewing(Protocol):
    """What renews a grant's tokens. Single flight, intents, breakers and budgets are its affair."""

    async def renew(
        self, region: Region, name: Name, seen: tuple[int, int]
    ) -> Literal["refreshed", "overtaken", "refused"]:
        """Make the token set that was `seen` (generation and token version) new.    Raises: Problem, nothing is known."""


@dataclass(slots=True)
class Unit:
    """A claimed connection with its plan."""

    claimed: Claimed
    integration: Integration
    known: list[Known]
    plans: list[tuple[Known, policy.Plan]] = field(default_factory=list)
    now: float = 0.0  # when that was planned, by the region's clock

    @property
    def due(self) -> list[tuple[Known, policy.Plan]]:
        """The grants that are to be renewed now: by their plans, or because somebody asks for it."""
        asked = self.claimed.reason == ASKED
        return [
            (one, plan)
            for one, plan in self.plans
            if (plan.act == "renew" and plan.at <= self.now) or (asked and plan.reason not in NEVER)
        ]

    @property
    def data_keys(self) -> set[tuple[str, int]]:
        """Those that open what is due."""
        return {
            (self.claimed.tenant, one.extra.data_key_version)
            for one, _ in self.due if one.extra.data_key_version is not None
        }  # fmt: skip


class Renewal:
    """The units of one region, for one process. `chance`: 0 to 1, anew each time."""

    def __init__(
        self, region: Region, renewing: Renewing, hours: QuietHours, chance: Callable[[], float],
        draining: asyncio.Event,
    ) -> None:  # fmt: skip
        self._region, self._renewing, self._hours = region, renewing, hours
        self._chance, self._draining = chance, draining

    async def planned(self, claimed: Sequence[tuple[Claimed, Integration]]) -> list[Unit]:
        """Claimed connections with their plans, read all at once.    Raises: Unavailable."""
        database = self._region.database
        known = await facts.read(database, [one.connection for one, _ in claimed])
        hours = await self._hours.of(database, {(one.integration, one.tenant) for one, _ in claimed})
        units = [Unit(one, integration, known.get(one.connection, [])) for one, integration in claimed]
        for unit in units:
            _plan(unit, hours[unit.claimed.integration, unit.claimed.tenant])
        return units

    async def run(self, unit: Unit) -> tuple[Outcome, Settled]:
        """Renew what is due; what came of it, and what is next.    Raises: Unavailable."""
        outcome: Outcome = "planned"
        trouble: Problem | None = None
        for one, _ in unit.due:
            if self._draining.is_set():
                return "given_back", given_back(unit.claimed)
            try:
                told = await self._renewing.renew(
                    self._region, (unit.claimed.connection, one.grant.access_profile), one.seen
                )
            except Problem as problem:
                outcome, trouble = "failed", problem
            else:
                outcome = outcome if trouble else ("renewed" if told == "refreshed" else told)
        if outcome == "planned":
            return outcome, settled(unit, tries=0, not_before=0.0)
        (after,) = await self.planned([(unit.claimed, unit.integration)])
        tries, pause_s = 0, LEAST_S
        if outcome in ("failed", "overtaken"):
            tries = unit.claimed.tries + 1
            pause_s = max(pause_s, self._pause_s(tries, trouble))
        error = None if trouble is None else trouble.code
        return outcome, settled(after, tries=tries, not_before=after.now + pause_s, error=error)

    def _pause_s(self, tries: int, trouble: Problem | None) -> float:
        """Full jitter, and never sooner than we were told to come again."""
        if isinstance(trouble, problems.SealBroken):
            return SEALED_S
        most_s = min(PAUSE_S * 2.0 ** min(tries, 10), MOST_PAUSE_S)
        asked_s = 0.0 if trouble is None else float(trouble.retry_after_s or 0)
        return asked_s + self._chance() * most_s


def _plan(unit: Unit, hours: Sequence[float]) -> None:
    if unit.known:
        unit.now = unit.known[0].extra.now
        planned_at = unit.claimed.planned_at
        unit.plans = facts.plans(unit.known, exchange.facts_of(unit.integration), unit.now, hours, planned_at)


def settled(unit: Unit, *, tries: int, not_before: float, error: str | None = None) -> Settled:
    """The next thing to do for a connection; a renewal not before that."""
    plan = policy.earliest([plan for _, plan in unit.plans])
    at = plan.at
    if plan.act == "renew":
        at = max(at, not_before)
    act = "look" if plan.act == "nothing" else plan.act
    if any(one.reason == "restored" for _, one in unit.plans) and unit.now + RESTORED_S < at:
        at, act = unit.now + RESTORED_S, "look"
    return _settled(unit, at, act, plan.reason, tries, error)


def _settled(unit: Unit, at: float, act: str, reason: str, tries: int, error: str | None) -> Settled:
    claimed = unit.claimed
    asked_at = unit.known[0].extra.asked_at if unit.known else None
    return Settled(claimed.connection, claimed.fence, asked_at, at, act, reason, tries, error)


def given_back(claimed: Claimed) -> Settled:
    """As it was before it was claimed: due, for whoever comes first."""
    return Settled(claimed.connection, claimed.fence, None, 0.0, "look", claimed.reason, claimed.tries)
