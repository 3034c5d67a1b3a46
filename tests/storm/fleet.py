"""Gateway processes by the dozen: each is forked from one that has loaded everything, and is as real as if a shell had started it."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.storm.moments import Moment
from tests.storm.worker import Orders, run

PATIENCE_S = 60

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.storm.worker", "gateway.web.app", "gateway.web.hooks", "uvloop"])


@dataclass
class Worker:
    """One process. `url`: of its private listener, and `id`: as the database knows it, once it is ready."""

    process: Any = field(repr=False)
    line: Connection = field(repr=False)
    log: Path
    url: str = ""
    id: UUID | None = None
    moments: list[Moment] = field(default_factory=list)

    async def ready(self) -> None:
        """Raises: AssertionError, it ended instead."""
        while not self.url:
            assert await self._hear(), f"it ended: {self.log.read_text()[-2000:]}"

    async def dead(self) -> None:
        """Until it has ended; what it said before is in `moments`."""
        while await self._hear():
            pass
        await _readable(self.process.sentinel)
        self.process.join()

    def listen(self) -> None:
        """Take in what it has said by now."""
        while self.alive and self.line.poll():
            try:
                self._take(self.line.recv())
            except EOFError:
                return

    @property
    def alive(self) -> bool:
        return self.process.exitcode is None

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    async def _hear(self) -> bool:
        await _readable(self.line.fileno())
        try:
            self._take(self.line.recv())
        except (EOFError, OSError):
            return False
        return True

    def _take(self, said: Any) -> None:
        if isinstance(said, Moment):
            self.moments.append(said)
        else:
            self.url, self.id = said


class Fleet:
    """The processes of a test, all with the same settings but for what their orders say."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.settings, self._folder, self._numbers = settings, folder, count(1)
        self.workers: list[Worker] = []

    async def start(self, number: int = 1, **orders: Any) -> list[Worker]:
        """So many more, ready."""
        return await self.start_each([orders] * number)

    async def start_each(self, orders: Sequence[dict[str, Any]]) -> list[Worker]:
        """One for each of these orders, ready."""
        made = [self._start(**each) for each in orders]
        self.workers += made
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(worker.ready() for worker in made))
        return made

    async def end(self) -> None:
        """SIGTERM for all that live, and SIGKILL for those that do not heed it."""
        alive = [worker for worker in self.workers if worker.alive]
        for worker in alive:
            worker.process.terminate()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(worker.dead() for worker in alive))
        finally:
            for worker in self.workers:
                worker.process.kill()
                worker.process.join()
                worker.process.close()
                worker.line.close()

    def _start(self, **orders: Any) -> Worker:
        near, far = CONTEXT.Pipe(duplex=False)
        log = self._folder / f"worker-{next(self._numbers)}.log"
        settings = {**self.settings, **orders.pop("settings", {})}
        process = CONTEXT.Process(target=run, args=(Orders(settings, **orders), far, str(log)), daemon=True)
        process.start()
        far.close()
        return Worker(process, near, log)


@asynccontextmanager
async def fleet(settings: dict[str, Any], folder: Path) -> AsyncIterator[Fleet]:
    """None at first."""
    made = Fleet(settings, folder)
    try:
        yield made
    finally:
        await made.end()


async def _readable(file: int) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    seen: Callable[[], None] = event.set
    loop.add_reader(file, seen)
    try:
        await event.wait()
    finally:
        loop.remove_reader(file)
