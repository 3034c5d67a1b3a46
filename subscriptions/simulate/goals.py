"""What is wanted of a run, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from subscriptions.simulate.fleet import Fleet
from subscriptions.simulate.provider import limits, outages
from subscriptions.simulate.tally import QUARTER_S, Tally

ENOUGH = 100.0  # movable renewals in a quarter of an hour, in the mean: of fewer, chance alone makes such peaks


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure of the hybrid strategy and the most that it may be."""

    name: str
    value: float
    most: float

    @property
    def met(self) -> bool:
        return self.value <= self.most


def goals(fleet: Fleet, found: Mapping[str, Tally]) -> list[Goal]:
    """Of our calls every one counts, also canaries; of the others' only those that were answered with tokens."""
    ours = found["hybrid"]
    made = ours.made()
    wanted = [
        Goal("provider calls, of cron's", made / max(1, sum(found["cron"].calls())), 0.6),
        Goal("provider calls, of lazy's", made / max(1, sum(found["lazy"].calls())), 1.5),
        Goal("user calls that waited for a refresh", sum(ours.waits) / max(1, ours.users), 0.01),
        Goal("refresh tokens dead of idleness", sum(ours.lost), 0),
        Goal("calls beyond the rate limit (429)", beyond(fleet, ours), 0),
        Goal("fullest minute after an outage, of the limit", recovery(fleet, ours), 1),
    ]
    peak, mean = movable(fleet, ours)
    if mean >= ENOUGH:
        wanted.insert(4, Goal("movable renewals, peak quarter of an hour of the mean", peak / mean, 1.5))
    return wanted


def movable(fleet: Fleet, ours: Tally) -> tuple[float, float]:
    """The fullest quarter of an hour of those whose window is an hour or more, and the mean, both outside outages.

    The hours after an outage count: what was put off must make no heap.
    """
    down = [span for place in range(len(fleet.providers)) for span in outages(fleet, place)]
    quarters = [
        of for place, of in enumerate(ours.movable)
        if not any(start < (place + 1) * QUARTER_S and place * QUARTER_S < end for start, end in down)
    ]  # fmt: skip
    return (max(quarters), sum(quarters) / len(quarters)) if quarters else (0.0, 0.0)


def beyond(fleet: Fleet, ours: Tally) -> int:
    """Calls that were answered 429, and those that would have been had nobody counted."""
    full = limits(fleet, 1.0)
    return sum(
        sum(one.beyond) + sum(max(0, calls - limit) for calls in one.calls)
        for one, limit in zip(ours.providers, full, strict=True)
    )


def recovery(fleet: Fleet, ours: Tally) -> float:
    """Of the hour after each outage, the fullest minute of any provider as a share of its limit."""
    full = limits(fleet, 1.0)
    shares = [0.0]
    for place, minutes in enumerate(ours.providers):
        for _, end in outages(fleet, place):
            after = minutes.calls[int(end // 60) : int(end // 60) + 60]
            shares += [calls / full[place] for calls in after]
    return max(shares)


def figures(tally: Tally) -> dict[str, int | float]:
    """One strategy's, in words."""
    calls = tally.calls()
    return {
        "calls answered with tokens": sum(calls),
        "calls in vain, in outages": sum(sum(one.failed) for one in tally.providers),
        "calls answered 429": sum(sum(one.beyond) for one in tally.providers),
        "calls of the fullest minute": max(calls),
        "user calls": tally.users,
        "user calls that waited for a refresh": sum(tally.waits),
        "user calls that waited, in percent": 100 * sum(tally.waits) / max(1, tally.users),
        "user calls without a token, in outages": tally.unserved,
        "refresh tokens dead of idleness": sum(tally.lost),
    }
