"""The quiet hours of a tenant at an integration, learnt from the traffic that `gateway.traffic` counts.

A tenant's own hours and those of the whole integration weigh the same, whatever their sizes: the one says when its users
sleep, the other when everybody's renewals would meet.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from gateway import traffic
from gateway.clock import Clock
from gateway.database import Db
from subscriptions import policy
from subscriptions.shares import Turn

FOR_S = 1800.0  # what was learnt is believed for so long
MOST = 20_000  # tenants in memory: about 10 MB

Hours = tuple[float, ...]


class QuietHours:
    """Of one region, for one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[Turn, tuple[float, Hours]] = OrderedDict()  # the oldest first

    async def of(self, db: Db, wanted: Collection[Turn]) -> dict[Turn, Hours]:
        """How likely each hour of the day (UTC) is chosen, for each of these.    Raises: Unavailable."""
        now = self._clock.monotonic()
        while self._known and (len(self._known) > MOST or now - next(iter(self._known.values()))[0] >= FOR_S):
            self._known.popitem(last=False)
        if missing := {turn for turn in wanted if turn not in self._known}:
            wholes = {(integration, traffic.EVERYBODY) for integration, _ in missing}
            found = await traffic.hours(db, missing | wholes)
            for turn in missing:
                learnt = quiet(found.get(turn, ()), found.get((turn[0], traffic.EVERYBODY), ()))
                self._known[turn] = (now, learnt)
        return {turn: self._known[turn][1] for turn in wanted}


def quiet(tenants: Sequence[float], everybodys: Sequence[float]) -> Hours:
    """Of both, each as shares of its day. Empty: nothing is known of it."""
    both = [_shares(one) for one in (tenants, everybodys) if sum(one) > 0]
    return policy.quiet([sum(hour) for hour in zip(*both, strict=True)]) if both else policy.EVEN


def _shares(of: Sequence[float]) -> list[float]:
    total = sum(of)
    return [one / total for one in of]
