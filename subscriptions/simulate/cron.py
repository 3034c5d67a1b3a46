"""Every quarter of an hour, refresh whatever expires within a margin, used or not.

Connections need not be told apart for that: what counts is how many are due at a tick. Those that it serves are due again a
fixed number of ticks later. It makes as many calls in a minute as the provider bears: of a tick's heap, those beyond the
first minute's are answered 429 once (counted), then it paces itself. Whoever finds a token over (after an outage) refreshes.
"""

from __future__ import annotations

from subscriptions.policy import DAY_S
from subscriptions.simulate.fleet import Cron as Setting
from subscriptions.simulate.fleet import Fleet
from subscriptions.simulate.people import Connection
from subscriptions.simulate.provider import MINUTE_S, Minutes, outages
from subscriptions.simulate.tally import Tally

SHORT_S = 7200.0  # lives up to this have the short margin


def ticks_between(setting: Setting, life: float) -> int:
    """A token that came just after a tick is refreshed so many later: at the first that finds it within its margin."""
    margin = setting.margin_s if life <= SHORT_S else setting.long_margin_s
    return max(1, int((life - margin) // setting.every_s) + 1)


class Cron:
    """All connections of a part of the fleet, counted; then `finish`."""

    def __init__(self, fleet: Fleet, tally: Tally) -> None:
        self._fleet, self._tally, self._end = fleet, tally, fleet.days * DAY_S
        self._due: list[dict[int, int]] = [{} for _ in fleet.providers]  # by tick
        self._found_over: list[list[tuple[float, float, float]]] = [[] for _ in fleet.providers]
        self._outages = [outages(fleet, place) for place in range(len(fleet.providers))]

    def live(self, connection: Connection) -> None:
        """One connection more."""
        place, uses, tally = connection.provider, connection.uses, self._tally
        life, setting = self._fleet.providers[place].access_life_s, self._fleet.cron
        every = ticks_between(setting, life)
        first = int(connection.luck * every)
        self._due[place][first] = self._due[place].get(first, 0) + 1
        tally.users += uses.count(0.0, self._end)
        for number, (begin, back) in enumerate(self._outages[place], 2):
            age = connection.luck * 997 * number % 1 * every * setting.every_s  # evenly, whatever came before
            over = begin - age + life
            if over < back:
                tally.unserved += uses.count(max(over, begin), min(back, self._end))
                self._found_over[place].append((back, uses.after(back), connection.luck * 9973 * number % 1))

    def finish(self) -> None:
        """Ticks and minutes in order."""
        for place, minutes in enumerate(self._tally.providers):
            drained = self._serve(place, minutes)
            for back, use, turn in self._found_over[place]:
                until = drained.get(back, back)
                if use < min(back + turn * (until - back), self._end):
                    self._tally.wait(use)

    def _serve(self, place: int, minutes: Minutes) -> dict[float, float]:
        """Returns when the heap that an outage left was gone, by the outage's end."""
        setting, due = self._fleet.cron, self._due[place]
        every = ticks_between(setting, self._fleet.providers[place].access_life_s)
        drained: dict[float, float] = {}
        heaped: float | None = None
        waiting = 0
        for minute in range(minutes.minutes):
            at = minute * MINUTE_S
            tick, within = divmod(at, setting.every_s)
            if within == 0:
                come = due.pop(int(tick), 0)
                waiting += come
                heap = waiting
            if minutes.back(at) > at:
                tried = min(heap, minutes.limit)  # each of a tick's heap once
                minutes.failed[minute] += tried
                heap -= tried
                heaped = minutes.back(at)
                continue
            if within == 0:
                minutes.beyond[minute] += max(0, waiting - minutes.limit)
            served = min(waiting, minutes.limit)
            minutes.calls[minute] += served
            waiting -= served
            if served:
                again = int(tick) + every
                due[again] = due.get(again, 0) + served
            if heaped is not None and waiting == 0 and served:
                drained[heaped], heaped = at + MINUTE_S, None
        return drained
