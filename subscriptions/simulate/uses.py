"""When the users of one connection call for its token. Three kinds, one shape: nothing between two decisions is played."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Protocol


class Uses(Protocol):
    """The moments of a connection's user calls."""

    def after(self, at: float) -> float:
        """The first one at or after `at`; infinity: none."""

    def before(self, at: float) -> float | None:
        """The last one at or before `at`; None: none."""

    def count(self, start: float, end: float) -> int:
        """How many lie in [start, end)."""


class Never:
    """Nobody calls."""

    __slots__ = ()

    def after(self, at: float) -> float:
        return math.inf

    def before(self, at: float) -> float | None:
        return None

    def count(self, start: float, end: float) -> int:
        return 0


class Every:
    """A job that runs every `step` seconds, since always."""

    __slots__ = ("phase", "step")

    def __init__(self, phase: float, step: float) -> None:
        self.phase, self.step = phase, step

    def after(self, at: float) -> float:
        return self.phase + math.ceil((at - self.phase) / self.step) * self.step

    def before(self, at: float) -> float | None:
        return self.phase + (at - self.phase) // self.step * self.step

    def count(self, start: float, end: float) -> int:
        phase, step = self.phase, self.step
        return max(0, math.ceil((end - phase) / step) - math.ceil((start - phase) / step))


class Listed:
    """Moments one by one: people's."""

    __slots__ = ("moments",)

    def __init__(self, moments: list[float]) -> None:
        self.moments = sorted(moments)

    def after(self, at: float) -> float:
        place = bisect_left(self.moments, at)
        return self.moments[place] if place < len(self.moments) else math.inf

    def before(self, at: float) -> float | None:
        place = bisect_right(self.moments, at)
        return self.moments[place - 1] if place else None

    def count(self, start: float, end: float) -> int:
        return max(0, bisect_left(self.moments, end) - bisect_left(self.moments, start))
