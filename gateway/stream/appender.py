"""Group commit: requests that come at the same time share one statement and one fsync.

One batch is under way at a time, on a connection of its own; the next is whatever arrived meanwhile, so the batch
grows with the load by itself and a lone request waits for nobody. A *parcel* (the events of one delivery) is kept
whole or not at all: it never spans two batches.

What may go wrong, and what then:
- the database is away: the same batch is tried again on a new connection until its parcels' deadlines have passed;
  each parcel answers `Unavailable` at its own deadline, whatever the database does; a statement that is silent for
  `late_s` beyond that is given up with its connection, so a dead wire stops nobody for long;
- COMMIT was sent and its answer lost: the batch is sent again, finds its own keys, and they count as kept;
- one value cannot be stored (SQLSTATE 22, 23, 54): the batch is halved until the offender stands alone; it gets
  `Unstorable`, the others are kept. A check of ours that fails (no partition for today) is nobody's offence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import structlog

from gateway import metrics
from gateway.clock import Clock
from gateway.database import AWAY, Database
from gateway.errors import Problem, Unavailable
from gateway.stream.append import Kept, NewEvent, append

MAX_EVENTS = 256  # a batch ends at this many events …
MAX_BYTES = 8 * 1024 * 1024  # … or bytes of data; a larger parcel goes alone
RETRY_S = 0.1  # between attempts while the database is away

log = structlog.get_logger(__name__)


class Unstorable(Problem):
    """The database refuses a value of this delivery for what it is. Sending it again will not help."""

    status, code, title = 422, "unstorable", "The delivery holds a value that cannot be stored"


@dataclass(slots=True)
class Parcel:
    """The events of one delivery, waiting together."""

    events: Sequence[NewEvent]
    size: int
    deadline: float  # of the event loop's clock
    done: asyncio.Future[list[Kept]] = field(repr=False)


class Appender:
    """The group commit of one process for one region. `start` before use; `stop` lets what is queued finish."""

    def __init__(self, database: Database, clock: Clock, deadline_s: float, late_s: float = 5.0) -> None:
        self._database, self._clock, self._deadline_s, self._late_s = database, clock, deadline_s, late_s
        self._queue: deque[Parcel] = deque()  # not sent yet
        self._waiting: deque[Parcel] = deque()  # not answered yet, or not known to be: oldest deadline first
        self._alarm: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="appender")

    async def stop(self) -> None:
        """Finish what is queued, then end."""
        self._stopping = True
        self._arrived.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def keep(self, events: Sequence[NewEvent]) -> list[Kept]:
        """Durably keep `events` together; returns once they are committed.

        Raises: Unavailable (not known to be kept; sending again is safe), Unstorable.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Kept]] = loop.create_future()
        size = len(events[0].data) if len(events) == 1 else sum(len(event.data) for event in events)
        parcel = Parcel(events, size, loop.time() + self._deadline_s, done)
        self._queue.append(parcel)
        self._waiting.append(parcel)
        if self._alarm is None:
            self._alarm = loop.call_at(parcel.deadline, self._expire, loop)
        self._arrived.set()
        return await done

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those whose time is over. One alarm serves all: they wait equally long, so the first is due first."""
        now = loop.time()
        while self._waiting and (self._waiting[0].done.done() or self._waiting[0].deadline <= now):
            parcel = self._waiting.popleft()
            if not parcel.done.done():
                parcel.done.set_exception(Unavailable("the log is away"))
        self._alarm = loop.call_at(self._waiting[0].deadline, self._expire, loop) if self._waiting else None

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                await asyncio.sleep(0)  # one turn of the loop: what is readable already joins, and nobody waits for it
                batch = self._take()
                await self._deliver(batch)
            if self._stopping:
                await self._disconnect()
                return

    def _take(self) -> list[Parcel]:
        """The next batch: parcels nobody waits for any more are left out."""
        batch: list[Parcel] = []
        events = size = 0
        while self._queue:
            parcel = self._queue[0]
            if parcel.done.done():
                self._queue.popleft()
                continue
            if batch and (events + len(parcel.events) > MAX_EVENTS or size + parcel.size > MAX_BYTES):
                break
            batch.append(self._queue.popleft())
            events += len(parcel.events)
            size += parcel.size
        return batch

    async def _deliver(self, batch: list[Parcel]) -> None:
        """Write `batch`, in halves where it holds an offender, until every parcel has its answer."""
        pending = [batch]
        while pending:
            parcels = pending.pop()
            try:
                await self._write_until_answered(parcels)
            except asyncpg.CheckViolationError as error:  # no partition for today; 422 would lose the delivery
                log.error("append.no_room", error=type(error).__name__, table=error.table_name)
                _fail(parcels, Unavailable("the log has no room for today"))
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError,
                    asyncpg.UntranslatableCharacterError, ValueError, OverflowError) as error:  # fmt: skip
                if len(parcels) == 1:
                    log.warning("append.unstorable", error=type(error).__name__)
                    _fail(parcels, Unstorable())
                else:
                    middle = len(parcels) // 2
                    pending += [parcels[middle:], parcels[:middle]]
            except Exception as error:  # the loop outlives anything; the parcels get an answer
                log.error("append.failed", error=type(error).__name__)
                _fail(parcels, Unavailable("the events could not be kept"))
                self._hang_up()

    async def _write_until_answered(self, parcels: list[Parcel]) -> None:
        again = False
        while not all(parcel.done.done() for parcel in parcels):
            try:
                async with asyncio.timeout(self._deadline_s + self._late_s):
                    await self._write(parcels, again=again)
                return
            except AWAY as error:
                log.warning("append.away", error=type(error).__name__)
                again = True
                self._hang_up()
                await asyncio.sleep(RETRY_S)

    async def _write(self, parcels: list[Parcel], *, again: bool) -> None:
        if self._connection is None:
            self._connection = await self._database.connect()
        events = [event for parcel in parcels for event in parcel.events]
        started = self._clock.monotonic()
        kept = await append(self._connection, events)
        metrics.COMMIT_SECONDS.observe(self._clock.monotonic() - started)
        metrics.COMMIT_BATCH_EVENTS.observe(len(events))
        metrics.APPEND_LOCK_WAIT_SECONDS.observe(max((k.waited_s for k in kept), default=0.0))
        if again:  # what is there already may be what we wrote before the answer was lost
            kept = [Kept(None, False, True) if k.duplicate else k for k in kept]
        at = 0
        for parcel in parcels:
            if not parcel.done.done():
                parcel.done.set_result(kept[at : at + len(parcel.events)])
            at += len(parcel.events)
        while self._waiting and self._waiting[0].done.done():  # its bodies need not wait for the alarm
            self._waiting.popleft()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=1)
            except AWAY:
                connection.terminate()

    def _hang_up(self) -> None:
        """Leave a connection that cannot be trusted any more, without a word that might not be heard."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _fail(parcels: list[Parcel], error: Exception) -> None:
    for parcel in parcels:
        if not parcel.done.done():
            parcel.done.set_exception(error)
