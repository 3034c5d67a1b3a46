"""What is counted of one strategy."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from operator import add
from typing import Self

from subscriptions.policy import DAY_S, HOUR_S
from subscriptions.simulate.fleet import Fleet
from subscriptions.simulate.provider import MINUTE_S, Minutes, counters, limits, outages

QUARTER_S = 900.0
ANSWER_S = 1.0  # a refresh takes so long: who calls within it waits too
TTL_S = 60.0  # a reader wants a token that lives so long at least (gateway/web/tokens.py), half of its life at the most


@dataclass(slots=True)
class Tally:
    """Counters by provider and minute, by minute (waits), by quarter of an hour (movable) and by hour (lost)."""

    providers: list[Minutes]
    waits: array[int]  # user calls that waited for a refresh, or for its turn
    movable: array[int]  # renewals whose moment could be chosen from an hour or more
    lost: array[int]  # refresh tokens that died of idleness
    users: int = 0  # user calls
    unserved: int = 0  # user calls that came while the token was over and the provider down
    decisions: int = 0  # how often the policy was asked
    reasons: Counter[str] = field(default_factory=Counter)  # of renewals

    @classmethod
    def empty(cls, fleet: Fleet, share: float) -> Self:
        """For such a share of the fleet, which gets that share of the rate limits."""
        end_s = fleet.days * DAY_S
        bears = limits(fleet, share)
        return cls(
            [Minutes(limit, int(end_s // MINUTE_S), outages(fleet, place)) for place, limit in enumerate(bears)],
            counters(int(end_s // MINUTE_S)), counters(int(end_s // QUARTER_S)), counters(int(end_s // HOUR_S)),
        )  # fmt: skip

    def wait(self, at: float, users: int = 1) -> None:
        """So many user calls waited."""
        minute = int(at // MINUTE_S)
        if minute < len(self.waits):
            self.waits[minute] += users

    def lose(self, at: float) -> None:
        """A refresh token died."""
        self.lost[int(at // HOUR_S)] += 1

    def add(self, other: Tally) -> None:
        """What another part of the fleet counted."""
        for mine, its in zip(self.providers, other.providers, strict=True):
            mine.calls, mine.failed = _sum(mine.calls, its.calls), _sum(mine.failed, its.failed)
            mine.beyond, mine.limit = _sum(mine.beyond, its.beyond), mine.limit + its.limit
        self.waits, self.movable = _sum(self.waits, other.waits), _sum(self.movable, other.movable)
        self.lost = _sum(self.lost, other.lost)
        self.users, self.unserved = self.users + other.users, self.unserved + other.unserved
        self.decisions += other.decisions
        self.reasons.update(other.reasons)

    def calls(self) -> array[int]:
        """Calls that were answered with tokens, of all providers, by the minute."""
        total = counters(len(self.waits))
        for one in self.providers:
            total = _sum(total, one.calls)
        return total

    def made(self) -> int:
        """Every call, also those that were not answered or refused."""
        return sum(sum(one.calls) + sum(one.failed) + sum(one.beyond) for one in self.providers)


def _sum(one: array[int], other: array[int]) -> array[int]:
    return array("q", map(add, one, other))
