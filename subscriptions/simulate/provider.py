"""A provider within a run: the calls of each minute, the limit it sets on them, and its outages."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence

from subscriptions.simulate.fleet import Fleet

MINUTE_S = 60.0


class Minutes:
    """One provider's minutes under one strategy. More than `limit` calls in one are answered 429."""

    __slots__ = ("_begins", "_ends", "beyond", "calls", "failed", "limit", "minutes")

    def __init__(self, limit: int, minutes: int, outages: Sequence[tuple[float, float]]) -> None:
        self.limit, self.minutes = limit, minutes
        self.calls = counters(minutes)  # answered with tokens
        self.failed = counters(minutes)  # not answered: it was down
        self.beyond = counters(minutes)  # answered 429
        self._begins, self._ends = [one[0] for one in outages], [one[1] for one in outages]

    def room(self, at: float, limit: int) -> float:
        """The first moment from `at` on in whose minute less than `limit` calls were made. At `at` it is not down."""
        minute, calls, minutes = int(at // MINUTE_S), self.calls, self.minutes
        if minute >= minutes or calls[minute] < limit:
            return at
        while minute < minutes and (calls[minute] >= limit or self.back(minute * MINUTE_S) > minute * MINUTE_S):
            minute += 1
        return minute * MINUTE_S

    def call(self, at: float) -> None:
        """One more that is answered; what lies beyond the run is not counted."""
        minute = int(at // MINUTE_S)
        if minute < self.minutes:
            self.calls[minute] += 1

    def fail(self, at: float) -> None:
        """One more that is not."""
        minute = int(at // MINUTE_S)
        if minute < self.minutes:
            self.failed[minute] += 1

    def back(self, at: float) -> float:
        """When it answers one who would ask at `at`: just then, unless it is down."""
        place = bisect_right(self._begins, at) - 1
        return self._ends[place] if place >= 0 and at < self._ends[place] else at

    def outage(self, at: float) -> tuple[float, float] | None:
        """The last one that began at or before `at`."""
        place = bisect_right(self._begins, at) - 1
        return (self._begins[place], self._ends[place]) if place >= 0 else None


def counters(size: int) -> array[int]:
    """So many zeros."""
    return array("q", bytes(8 * size))


def outages(fleet: Fleet, provider: int) -> list[tuple[float, float]]:
    """Begin and end of each, in order, overlapping ones made one."""
    name = fleet.providers[provider].name
    found: list[tuple[float, float]] = []
    for begin, end in sorted(
        (one.begins_h * 3600, one.begins_h * 3600 + one.lasts_s)
        for one in fleet.outages
        if one.providers is None or name in one.providers
    ):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def limits(fleet: Fleet, share: float) -> list[int]:
    """Calls a minute that each provider bears of such a share of the fleet."""
    return [max(1, int(one.calls_per_s * MINUTE_S * share)) for one in fleet.providers]
