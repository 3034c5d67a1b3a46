"""Group commit: requests that come at the same time share one statement and one fsync (gateway/batches.py says how).

The events of one delivery are kept whole or not at all: they never span two batches. COMMIT was sent and its answer
lost: the batch is sent again, finds its own keys, and they count as kept. A check of ours that fails (no partition for
today) is nobody's offence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import structlog

from gateway import metrics
from gateway.batches import Batches, Unstorable
from gateway.clock import Clock
from gateway.database import Database
from gateway.errors import Problem, Unavailable
from gateway.stream.append import Kept, NewEvent, append

MAX_EVENTS = 256  # a batch ends at this many events …
MAX_BYTES = 8 * 1024 * 1024  # … or bytes of data; a larger delivery goes alone

log = structlog.get_logger(__name__)


class Appender(Batches[Sequence[NewEvent], list[Kept]]):
    """The group commit of one process for one region. `start` before use; `stop` lets what is queued finish."""

    name, away = "append", "the log is away"

    def __init__(self, database: Database, clock: Clock, deadline_s: float, late_s: float = 5.0) -> None:
        super().__init__(database, deadline_s, late_s, MAX_EVENTS, MAX_BYTES)
        self._clock = clock

    async def keep(self, events: Sequence[NewEvent]) -> list[Kept]:
        """Durably keep `events` together; returns once they are committed.

        Raises: Unavailable (not known to be kept; sending again is safe), Unstorable.
        """
        size = len(events[0].data) if len(events) == 1 else sum(len(event.data) for event in events)
        return await self.ask(events, rows=len(events), size=size)

    async def write(self, connection: Any, asked: Sequence[Sequence[NewEvent]], *, again: bool) -> Sequence[list[Kept]]:
        events = [event for parcel in asked for event in parcel]
        started = self._clock.monotonic()
        kept = await append(connection, events)
        metrics.COMMIT_SECONDS.observe(self._clock.monotonic() - started)
        metrics.COMMIT_BATCH_EVENTS.observe(len(events))
        metrics.APPEND_LOCK_WAIT_SECONDS.observe(max((k.waited_s for k in kept), default=0.0))
        if again:  # what is there already may be what we wrote before the answer was lost
            kept = [Kept(None, False, True) if k.duplicate else k for k in kept]
        told: list[list[Kept]] = []
        at = 0
        for parcel in asked:
            told.append(kept[at : at + len(parcel)])
            at += len(parcel)
        return told

    def fault(self, error: Exception) -> Problem | None:
        if isinstance(error, asyncpg.CheckViolationError):  # no partition for today; 422 would lose the delivery
            log.error("append.no_room", error=type(error).__name__, table=error.table_name)
            return Unavailable("the log has no room for today")
        return None


__all__ = ["Appender", "Unstorable"]
