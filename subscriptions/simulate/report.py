"""A run's result as rows to print and as files to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from subscriptions.simulate import goals, picture
from subscriptions.simulate.fleet import Fleet
from subscriptions.simulate.tally import Tally


def compared(found: Mapping[str, Tally]) -> list[tuple[str, ...]]:
    """A row a figure, a column a strategy."""
    columns = [goals.figures(tally) for tally in found.values()]
    return [(name, *(_number(column[name]) for column in columns)) for name in columns[0]]


def judged(fleet: Fleet, found: Mapping[str, Tally]) -> list[tuple[str, ...]]:
    """A row a goal: name, value, the most it may be, whether it is met."""
    return [
        (goal.name, _number(goal.value), f"{goal.most:g}", "yes" if goal.met else "NO")
        for goal in goals.goals(fleet, found)
    ]


def all_met(fleet: Fleet, found: Mapping[str, Tally]) -> bool:
    """Every goal."""
    return all(goal.met for goal in goals.goals(fleet, found))


def as_json(fleet: Fleet, found: Mapping[str, Tally]) -> dict[str, object]:
    """Fleet, figures and goals, for programs."""
    return {
        "connections": fleet.connections, "days": fleet.days, "seed": fleet.seed,
        "strategies": {name: goals.figures(tally) for name, tally in found.items()},
        "reasons": dict(sorted(found["hybrid"].reasons.items())), "decisions": found["hybrid"].decisions,
        "goals": [
            {"name": one.name, "value": one.value, "most": one.most, "met": one.met} for one in goals.goals(fleet, found)
        ],
    }  # fmt: skip


def write(fleet: Fleet, found: Mapping[str, Tally], folder: Path) -> list[Path]:
    """`simulate.svg`, which is light or dark as its reader's system, and `simulate.json`; their paths."""
    drawn, figures = folder / "simulate.svg", folder / "simulate.json"
    drawn.write_text(picture.draw(fleet, found))
    figures.write_text(json.dumps(as_json(fleet, found), indent=2) + "\n")
    return [drawn, figures]


def _number(value: float) -> str:
    if value == 0 or (float(value).is_integer() and abs(value) >= 10):
        return f"{value:,.0f}"
    return f"{value:,.4f}" if value < 10 else f"{value:,.1f}"
