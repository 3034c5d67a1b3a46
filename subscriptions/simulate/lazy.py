"""Refresh on use: whoever finds the token over waits for a new one. Nothing else is ever sent: the floor of calls."""

from __future__ import annotations

from subscriptions.policy import DAY_S
from subscriptions.simulate.fleet import Fleet
from subscriptions.simulate.people import Connection
from subscriptions.simulate.tally import ANSWER_S, TTL_S, Tally
from subscriptions.simulate.uses import Never, Uses


class Lazy:
    """All connections of a part of the fleet, one after another."""

    def __init__(self, fleet: Fleet, tally: Tally) -> None:
        self._fleet, self._tally, self._end = fleet, tally, fleet.days * DAY_S

    def live(self, connection: Connection) -> None:
        """One connection's run."""
        tally, uses, end = self._tally, connection.uses, self._end
        told, minutes = self._fleet.providers[connection.provider], tally.providers[connection.provider]
        life, idle = told.access_life_s, told.refresh_idle_s
        ttl = min(TTL_S, life / 2)
        issued = _refreshed(uses, life, idle or life, connection.luck)
        over = end
        at = 0.0
        while True:
            need = uses.after(max(at, issued + life - ttl))
            if idle is not None and issued + idle < min(need, end):
                over = max(issued + idle, 0.0)
                tally.lose(over)
                break
            if need >= end:
                break
            back = minutes.back(need)
            if back > need:
                at = self._down(connection, max(need, issued + life), min(back, end))
                continue
            ready = minutes.room(need, minutes.limit)
            if ready > need:
                minutes.beyond[int(need // 60)] += 1
            minutes.call(ready)
            tally.wait(need, 1 + uses.count(need + 0.001, ready + ANSWER_S))
            issued = ready
        tally.users += uses.count(0.0, over)

    def _down(self, connection: Connection, start: float, back: float) -> float:
        """Each use asks, and is not answered."""
        uses, minutes = connection.uses, self._tally.providers[connection.provider]
        use = uses.after(start)
        while use < back:
            minutes.fail(use)
            self._tally.unserved += 1
            use = uses.after(use + 0.001)
        return back


def _refreshed(uses: Uses, life: float, idle: float, luck: float) -> float:
    """When it was refreshed last before the run: by a use, some time within its life; of an unused one, within its idle life."""
    if isinstance(uses, Never):
        return -luck * idle
    at = -luck * life
    used = uses.before(at)
    return at if used is None else used
