"""Sharing statements: what is asked for at the same time shares one statement, one commit and one fsync.

One batch is under way at a time, on a connection of its own; the next is whatever arrived meanwhile, so the batch
grows with the load by itself and a lone question waits for nobody. A question joins only a statement that is sent
after it arrived: whatever was committed before it was asked, its answer has seen (PROTOCOLS 10 stands on this).

What may go wrong, and what then:
- the database is away: the same batch is tried again on a new connection until its questions' deadlines have passed;
  each is answered `Unavailable` at its own deadline, whatever the database does; a statement that is silent for
  `late_s` beyond that is given up with its connection, so a dead wire stops nobody for long;
- a statement was sent and its answer lost: the batch is sent again, and `write` is told so;
- one value cannot be stored (SQLSTATE 22, 23, 54): the batch is halved until the offender stands alone; it gets
  `Unstorable`, the others are answered.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import asyncpg
import structlog

from gateway.database import AWAY, Database
from gateway.errors import Problem, Unavailable

RETRY_S = 0.1  # between attempts while the database is away
OFFENCES = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.UntranslatableCharacterError,
    ValueError,
    OverflowError,
)

log = structlog.get_logger(__name__)

AskedT = TypeVar("AskedT")
ToldT = TypeVar("ToldT")


class Unstorable(Problem):
    """The database refuses a value of this request for what it is. Sending it again will not help."""

    status, code, title = 422, "unstorable", "The delivery holds a value that cannot be stored"


@dataclass(slots=True)
class Waiting(Generic[AskedT, ToldT]):
    """One question that waits for its answer."""

    asked: AskedT
    rows: int
    size: int
    deadline: float  # of the event loop's clock
    done: asyncio.Future[ToldT] = field(repr=False)


class Batches(ABC, Generic[AskedT, ToldT]):
    """One process's batches of one kind. `start` before use; `stop` lets what is queued finish."""

    name = "batches"  # of its log lines
    away = "the database is away"  # what one is told whose deadline has passed

    def __init__(self, database: Database, deadline_s: float, late_s: float, most_rows: int, most_bytes: int) -> None:
        self._database, self._deadline_s, self._late_s = database, deadline_s, late_s
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._queue: deque[Waiting[AskedT, ToldT]] = deque()  # not sent yet
        self._waiting: deque[Waiting[AskedT, ToldT]] = deque()  # not known to be answered: oldest deadline first
        self._alarm: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    @abstractmethod
    async def write(self, connection: Any, asked: Sequence[AskedT], *, again: bool) -> Sequence[ToldT]:
        """Run one batch's statement; an answer for each question, in their order. `again`: it may have run before."""

    def fault(self, error: Exception) -> Problem | None:
        """What all of a batch are told about an error that is none of theirs; None: it is for halving to find out."""
        return None

    async def prepare(self, connection: Any) -> None:
        """Set up a new connection."""

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        """Finish what is queued, then end."""
        self._stopping = True
        self._arrived.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def ask(self, asked: AskedT, *, rows: int = 1, size: int = 0) -> ToldT:
        """The answer of a statement that is sent after this call.    Raises: Unavailable, Unstorable."""
        loop = asyncio.get_running_loop()
        waiting: Waiting[AskedT, ToldT] = Waiting(
            asked, rows, size, loop.time() + self._deadline_s, loop.create_future()
        )
        self._queue.append(waiting)
        self._waiting.append(waiting)
        if self._alarm is None:
            self._alarm = loop.call_at(waiting.deadline, self._expire, loop)
        self._arrived.set()
        return await waiting.done

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer those whose time is over. One alarm serves all: they wait equally long, so the first is due first."""
        now = loop.time()
        while self._waiting and (self._waiting[0].done.done() or self._waiting[0].deadline <= now):
            waiting = self._waiting.popleft()
            if not waiting.done.done():
                waiting.done.set_exception(Unavailable(self.away))
        self._alarm = loop.call_at(self._waiting[0].deadline, self._expire, loop) if self._waiting else None

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                # One turn of the loop: what is readable already joins, and nobody waits for it. Sending at once, before
                # the answers to the last batch are written, fell into lockstep with the load: one batch with all in it.
                await asyncio.sleep(0)
                await self._deliver(self._take())
            if self._stopping:
                await self._disconnect()
                return

    def _take(self) -> list[Waiting[AskedT, ToldT]]:
        """The next batch: questions nobody waits for any more are left out."""
        batch: list[Waiting[AskedT, ToldT]] = []
        rows = size = 0
        while self._queue:
            waiting = self._queue[0]
            if waiting.done.done():
                self._queue.popleft()
                continue
            if batch and (rows + waiting.rows > self._most_rows or size + waiting.size > self._most_bytes):
                break
            batch.append(self._queue.popleft())
            rows += waiting.rows
            size += waiting.size
        return batch

    async def _deliver(self, batch: list[Waiting[AskedT, ToldT]]) -> None:
        """Write `batch`, in halves where it holds an offender, until every question has its answer."""
        pending = [batch]
        while pending:
            some = pending.pop()
            try:
                await self._write_until_answered(some)
            except Exception as error:  # the loop outlives anything; each question gets an answer
                told = self.fault(error)
                if told is not None:
                    _fail(some, told)
                elif not isinstance(error, OFFENCES):
                    log.error(f"{self.name}.failed", error=type(error).__name__)
                    _fail(some, Unavailable(self.away))
                    self._hang_up()
                elif len(some) == 1:
                    log.warning(f"{self.name}.unstorable", error=type(error).__name__)
                    _fail(some, Unstorable())
                else:
                    middle = len(some) // 2
                    pending += [some[middle:], some[:middle]]

    async def _write_until_answered(self, some: list[Waiting[AskedT, ToldT]]) -> None:
        again = False
        while not all(waiting.done.done() for waiting in some):
            try:
                async with asyncio.timeout(self._deadline_s + self._late_s):
                    await self._write(some, again=again)
                return
            except AWAY as error:
                log.warning(f"{self.name}.away", error=type(error).__name__)
                again = True
                self._hang_up()
                await asyncio.sleep(RETRY_S)

    async def _write(self, some: list[Waiting[AskedT, ToldT]], *, again: bool) -> None:
        if self._connection is None:
            self._connection = await self._database.connect()
            await self.prepare(self._connection)
        told = await self.write(self._connection, [waiting.asked for waiting in some], again=again)
        for waiting, answer in zip(some, told, strict=True):
            if not waiting.done.done():
                waiting.done.set_result(answer)
        while self._waiting and self._waiting[0].done.done():  # what it holds need not wait for the alarm
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


def _fail(some: Sequence[Waiting[Any, Any]], error: Exception) -> None:
    for waiting in some:
        if not waiting.done.done():
            waiting.done.set_exception(error)
