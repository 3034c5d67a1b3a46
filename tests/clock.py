"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Wall clock and monotonic clock, moved together by hand."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def move(self, seconds: float) -> None:
        """Let `seconds` pass (or, negative, set the wall clock back: the monotonic one stays)."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += max(seconds, 0)
