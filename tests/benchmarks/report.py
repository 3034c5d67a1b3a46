"""What a benchmark leaves behind: `build/bench/NAME.json`, and the same on the terminal."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

FOLDER = Path("build/bench")


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure with what it is meant to reach."""

    name: str
    value: float
    goal: float
    better: Literal["higher", "lower"]

    @property
    def met(self) -> bool:
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {"cores": os.cpu_count(), "cpu": model, "python": platform.python_version(), "system": platform.platform()}


def write(name: str, figures: dict[str, object], goals: list[Goal]) -> None:
    """Leave `figures` and `goals` as JSON and print them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "figures": figures, "goals": [asdict(goal) | {"met": goal.met} for goal in goals]}
    (FOLDER / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    console = Console()
    table = Table("figure", "value", title=name, title_justify="left")
    for key, value in figures.items():
        table.add_row(key, f"{value:,.2f}" if isinstance(value, float) else str(value))
    console.print(table)
    show(console, [(name, asdict(goal) | {"met": goal.met}) for goal in goals])


def show(console: Console, goals: list[tuple[str, dict[str, object]]]) -> None:
    """One table of goals."""
    table = Table("benchmark", "goal", "value", "wanted", "met")
    for name, goal in goals:
        sign = ">=" if goal["better"] == "higher" else "<="
        table.add_row(
            name, str(goal["name"]), f"{goal['value']:,.3f}", f"{sign} {goal['goal']:g}", "yes" if goal["met"] else "NO"
        )
    console.print(table)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
