"""What one sees: bars and the last events on a terminal, plain lines everywhere else."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from gateway.client import Entry
from tests.demo.cast import Player
from tests.demo.ledger import Ledger
from tests.demo.reckoning import Check

WIDTH = 110  # where nobody says how wide it is
LAST = 8  # events that are shown
LINE_S = 1.0  # between lines of progress


class Screen:
    """Standard output."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        terminal = sys.stdout.isatty()
        self.console = Console(width=None if terminal else WIDTH, highlight=False, soft_wrap=not terminal, record=True)
        self._live: Live | None = None
        self._last: deque[str] = deque(maxlen=LAST)
        self._count = 0
        self._state = ""

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def shown(self) -> str:
        """Everything so far."""
        return self.console.export_text(clear=False)

    def act(self, title: str) -> None:
        """A new act begins."""
        self.console.print(f"\n[bold]{title}[/bold]")

    def say(self, text: str) -> None:
        """One line, with the time since the beginning."""
        self._state = text
        self.console.print(Text(f"  {self.elapsed_s:5.1f} s  {text}"))

    def arrived(self, entry: Entry) -> None:
        """An event came over the wire just now."""
        self._count += 1
        whose = ", ".join(entry.tenants) or "nobody's yet"
        self._last.append(f"{entry.event.type:<58.58} {whose:<14.14} {len(entry.event.data):>5} B")

    async def follow(self, players: Sequence[Player], ledger: Ledger, each: int) -> None:
        """Show how it goes, until cancelled."""
        if not self.console.is_terminal:
            while True:
                await asyncio.sleep(LINE_S)
                last = self._last[-1].split()[0] if self._last else "nothing yet"
                self.say(f"{ledger.acknowledged()} acknowledged, {self._count} events at the consumer, last: {last}")
        bars = Progress(
            TextColumn("  {task.description:<13}"),
            BarColumn(40),
            TextColumn("{task.completed:>4.0f}/{task.total:.0f} deliveries"),
        )
        tasks = {player.integration: bars.add_task(player.title, total=each) for player in players}
        with Live(console=self.console, refresh_per_second=12, transient=True) as live:
            while True:
                for name, task in tasks.items():
                    done = sum(1 for one in ledger.of(name) if one.acknowledged or one.refused)
                    bars.update(task, completed=done)
                lines = Text("\n".join(f"  {line}" for line in self._last), style="dim")
                live.update(Group(bars, Text(f"\n  live at the consumer (SSE): {self._count} events"), lines))
                await asyncio.sleep(0.1)

    def summary(self, players: Sequence[Player], rows: Sequence[tuple[str, list[int]]]) -> None:
        """The table at the end."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for player in players:
            table.add_column(player.title, justify="right")
        table.add_column("all", justify="right", style="bold")
        for name, figures in rows:
            bad = name.strip() in ("lost", "doubled") and any(figures)
            table.add_row(name, *(f"{figure:,}" for figure in figures), style="red" if bad else None)
        self.console.print(table)

    def checks(self, checks: Sequence[Check]) -> None:
        """One line each."""
        self.console.print()
        for check in checks:
            if not check.faults:
                self.console.print(Text(f"  ok     {check.what}", style="green"))
            else:
                self.console.print(
                    Text(f"  WRONG  {check.what}: {check.faults}, e.g. {check.example}", style="bold red")
                )
