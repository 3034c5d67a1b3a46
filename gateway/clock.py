"""Time and chance, as arguments. `Clock` is the only reader of a process's wall time; leases are judged by the database's."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What may be asked about time."""

    def now(self) -> datetime:
        """The wall clock: an aware UTC datetime. For signatures and records, never for leases."""

    def monotonic(self) -> float:
        """Seconds since some start, never going back. For deadlines and durations."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def chance() -> float:
    """A number from 0 to below 1, unpredictable: for jitter."""
    return int.from_bytes(random_bytes(7)) / 2**56


def random_bytes(length: int) -> bytes:
    """Unpredictable bytes from the system. The one source of chance for ids, secrets and nonces."""
    return os.urandom(length)
