"""The picture of a run: calls by the minute, a day of them, who waited, what was lost, how even the movable ones lie."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from subscriptions.policy import DAY_S
from subscriptions.simulate.fleet import Fleet
from subscriptions.simulate.goals import movable
from subscriptions.simulate.provider import outages
from subscriptions.simulate.svg import Panel, Theme, page
from subscriptions.simulate.tally import QUARTER_S, Tally

WEEK = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LEGEND = (
    ("cron", "cron: all that expires soon"), ("lazy", "lazy: refreshed on use"), ("hybrid", "Posthouse: the hybrid policy"),
)  # fmt: skip
ORDER = ("cron", "lazy", "hybrid")  # ours is drawn over the others


def draw(fleet: Fleet, found: Mapping[str, Tally], theme: Theme = "auto") -> str:
    """The run as one SVG."""
    down = sorted(
        {
            span
            for place in range(len(fleet.providers))
            for span in outages(fleet, place)
            if span[0] < fleet.days * DAY_S
        }
    )
    day = int(down[0][0] // DAY_S) if down else min(1, fleet.days - 1)
    panels = [
        _calls(fleet, found, "Calls to providers, per minute (means of an hour)", 0, fleet.days, 60),
        _calls(fleet, found, f"{_day(day)}, minute by minute", day, day + 1, 1),
        _waits(fleet, found), _lost(fleet, found), _movable(fleet, found["hybrid"]),
    ]  # fmt: skip
    for panel in panels:
        for start, end in down:
            panel.shade(start, end, "outage" if panel.x[1] - panel.x[0] <= DAY_S else "")
    return page(f"{fleet.connections:,} connections over {fleet.days} days", LEGEND, panels, theme)


def _calls(fleet: Fleet, found: Mapping[str, Tally], title: str, first: int, last: int, step: int) -> Panel:
    lines = {name: list(_means(found[name].calls()[first * 1440 : last * 1440], step)) for name in ORDER}
    panel = Panel(
        title, (first * DAY_S, last * DAY_S), _decades(lines.values()), height=250, log=True, ticks=_ticks(first, last)
    )
    for name, line in lines.items():
        panel.line(name, ((first * DAY_S + i * step * 60, y) for i, y in enumerate(line)))
    return panel


def _waits(fleet: Fleet, found: Mapping[str, Tally]) -> Panel:
    lines = {name: [60 * mean for mean in _means(found[name].waits, 60)] for name in ORDER}
    panel = Panel(
        "User calls that waited for a refresh, per hour", (0, fleet.days * DAY_S), _decades(lines.values()), log=True,
        ticks=_ticks(0, fleet.days),
    )  # fmt: skip
    for name, line in lines.items():
        panel.line(name, ((i * 3600, y) for i, y in enumerate(line)))
    return panel


def _lost(fleet: Fleet, found: Mapping[str, Tally]) -> Panel:
    most = max(1, *(sum(found[name].lost) for name in ORDER))
    panel = Panel(
        "Refresh tokens dead of idleness, since the start", (0, fleet.days * DAY_S), (0, most * 1.1), height=170,
        ticks=_ticks(0, fleet.days),
    )  # fmt: skip
    for name in ORDER:
        total, points = 0, [(0.0, 0.0)]
        for hour, lost in enumerate(found[name].lost):
            total += lost
            points.append(((hour + 1) * 3600.0, float(total)))
        panel.line(name, points)
    return panel


def _movable(fleet: Fleet, ours: Tally) -> Panel:
    peak, mean = movable(fleet, ours)
    panel = Panel(
        "Posthouse's movable renewals (window of an hour or more), per quarter of an hour", (0, fleet.days * DAY_S),
        (0, max(1.0, peak, mean * 1.5) * 1.15), height=190, ticks=_ticks(0, fleet.days),
    )  # fmt: skip
    panel.line("hybrid", ((i * QUARTER_S, float(y)) for i, y in enumerate(ours.movable)))
    panel.level(mean, "mean")
    panel.level(mean * 1.5, "1.5 x mean")
    return panel


def _means(of: Sequence[int], step: int) -> Iterator[float]:
    for at in range(0, len(of), step):
        some = of[at : at + step]
        yield sum(some) / len(some)


def _decades(lines: Iterable[list[float]]) -> tuple[float, float]:
    """From a power of ten below most of what there is, three of them at the most, to a little above all."""
    every = list(lines)
    high = max(10.0, *(max(line) for line in every)) * 1.3
    typical = min((sorted(line)[len(line) // 2] for line in every if any(line)), default=1.0)
    low = 10.0 ** math.floor(math.log10(max(1.0, typical / 2)))
    return min(low, high / 10), high


def _day(day: int) -> str:
    return f"{WEEK[day % 7]}" if day < 7 else f"{WEEK[day % 7]} of week {day // 7 + 1}"


def _ticks(first: int, last: int) -> list[tuple[float, str]]:
    if last - first == 1:
        return [
            (first * DAY_S + hour * 3600, f"{hour:02}:00 UTC" if hour == 3 else f"{hour:02}:00")
            for hour in range(3, 24, 3)
        ]
    every = -(-(last - first) // 10)
    return [
        ((day + 0.5) * DAY_S, WEEK[day % 7] if every == 1 else f"day {day + 1}") for day in range(first, last, every)
    ]
