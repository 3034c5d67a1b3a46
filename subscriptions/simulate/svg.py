"""Line charts as SVG: axes, lines, shades, labels. Plain text out; colours by class, for light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

Theme = Literal["auto", "light", "dark"]  # auto: as the reader's system is
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1080.0, 78.0, 22.0, 34.0, 26.0

SHARED = """
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
.title { font-size: 15px; font-weight: 600; }
.head { font-size: 21px; font-weight: 650; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.grid { stroke-width: 1; }
.mark { fill: none; stroke-width: 1.2; stroke-dasharray: 5 4; }
.halo { paint-order: stroke; stroke-width: 5px; stroke-linejoin: round; }
.end { text-anchor: end; } .middle { text-anchor: middle; }
"""
COLOURS = {  # the three strategies after Okabe and Ito: told apart by those who see few colours too
    "light": {"paper": "#ffffff", "ink": "#1f2933", "faint": "#5f6c7b", "grid": "#e4e8ed", "shade": "#f3dfdf",
              "hybrid": "#0072b2", "cron": "#d55e00", "lazy": "#008a63"},
    "dark": {"paper": "#0f1720", "ink": "#e6ebf1", "faint": "#9aa8b8", "grid": "#263241", "shade": "#3a2328",
             "hybrid": "#5cb8ee", "cron": "#f2894b", "lazy": "#3ecf9a"},
}  # fmt: skip


@dataclass(slots=True)
class Panel:
    """One chart. x and y are in its own units; `log`: y by powers of ten, from `low` on."""

    title: str
    x: tuple[float, float]
    y: tuple[float, float]
    height: float = 210.0
    log: bool = False
    ticks: Sequence[tuple[float, str]] = ()  # of x
    parts: list[str] = field(default_factory=list)

    def shade(self, start: float, end: float, text: str) -> None:
        """A span of x, with a word on it."""
        start, end = max(start, self.x[0]), min(end, self.x[1])
        if end > start:
            a, b = self._x(start), self._x(end)
            self.parts.append(
                f'<rect class="shade" x="{a:.1f}" y="{TOP}" width="{b - a:.1f}" height="{self._inner:.1f}"/>'
            )
            self.parts.append(f'<text class="faint middle" x="{(a + b) / 2:.1f}" y="{TOP + 14}">{escape(text)}</text>')

    def line(self, kind: str, points: Iterable[tuple[float, float]]) -> None:
        """A line of the colour of `kind`."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        self.parts.append(f'<polyline class="line {kind}" points="{path}"/>')

    def level(self, y: float, text: str) -> None:
        """A dashed line across, with what it stands for."""
        at = self._y(y)
        self.parts.append(
            f'<line class="mark faint-line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        self.parts.append(f'<text class="ink halo end" x="{WIDTH - RIGHT - 4}" y="{at - 5:.1f}">{escape(text)}</text>')

    def draw(self, top: float) -> str:
        """The panel as a group, so far down."""
        axes = [f'<text class="title ink" x="{LEFT}" y="20">{escape(self.title)}</text>']
        for y in self._levels():
            at = self._y(y)
            axes.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            axes.append(f'<text class="faint end" x="{LEFT - 8}" y="{at + 4:.1f}">{short(y)}</text>')
        below = self.height - BOTTOM + 18
        axes += [
            f'<text class="faint middle" x="{self._x(x):.1f}" y="{below:.1f}">{escape(text)}</text>'
            for x, text in self.ticks
        ]
        shades = [part for part in self.parts if 'class="shade"' in part]
        rest = [part for part in self.parts if 'class="shade"' not in part]
        return f'<g transform="translate(0 {top:.0f})">' + "\n".join([*shades, *axes, *rest]) + "</g>"

    @property
    def _inner(self) -> float:
        return self.height - TOP - BOTTOM

    def _x(self, x: float) -> float:
        return LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - LEFT - RIGHT)

    def _y(self, y: float) -> float:
        low, high = self.y
        y = min(max(y, low), high)
        share = math.log(y / low) / math.log(high / low) if self.log else (y - low) / (high - low)
        return self.height - BOTTOM - share * self._inner

    def _levels(self) -> list[float]:
        low, high = self.y
        if self.log:
            of = (1, 3) if high / low < 1500 else (1,)
            every = [by * 10.0**power for power in range(9) for by in of]
            return [y for y in every if low * 0.999 <= y <= high]
        step = 10 ** math.floor(math.log10((high - low) / 2))
        step *= next(by for by in (1, 2, 5, 10) if (high - low) / (step * by) <= 5)
        return [low + step * i for i in range(int((high - low) / step) + 1)]


def page(head: str, legend: Sequence[tuple[str, str]], panels: Sequence[Panel], theme: Theme = "auto") -> str:
    """The whole picture: a head, what the colours mean, and panels one below the other."""
    top = 92.0
    drawn = []
    for panel in panels:
        drawn.append(panel.draw(top))
        top += panel.height + 14
    at = LEFT
    key = []
    for kind, text in legend:
        key.append(f'<line class="line {kind}" style="stroke-width:3" x1="{at}" x2="{at + 26}" y1="66" y2="66"/>')
        key.append(f'<text class="ink" x="{at + 34}" y="70">{escape(text)}</text>')
        at += 60 + 7.1 * len(text)
    body = "\n".join([f'<text class="head ink" x="{LEFT}" y="40">{escape(head)}</text>', *key, *drawn])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {top:.0f}" width="{WIDTH:.0f}" height="{top:.0f}" '
        f'role="img"><title>{escape(head)}</title><style>{_style(theme)}</style><rect class="paper" width="100%" height="100%"/>\n'
        f"{body}\n</svg>\n"
    )


def short(number: float) -> str:
    """`20k`, `1.5M`."""
    for unit, sign in ((1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{sign}"
    return f"{number:g}"


def _style(theme: Theme) -> str:
    if theme != "auto":
        return SHARED + _colours(theme)
    return SHARED + _colours("light") + "@media (prefers-color-scheme: dark) {" + _colours("dark") + "}\n"


def _colours(theme: str) -> str:
    of = COLOURS[theme]
    fills = "".join(f".{name} {{ fill: {of[name]}; }}\n" for name in ("paper", "ink", "faint", "shade"))
    lines = "".join(f".line.{name} {{ stroke: {of[name]}; }}\n" for name in ("hybrid", "cron", "lazy"))
    return f"{fills}{lines}.grid {{ stroke: {of['grid']}; }}\n.halo {{ stroke: {of['paper']}; }}\n.faint-line {{ stroke: {of['faint']}; }}\n"
