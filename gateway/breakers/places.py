"""Bounded concurrency: so many calls of one way are under way at once in one process, so many more wait, each for a moment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.breakers.ways import Shut

WAIT_S = 5.0
MOST_WAITING = 200
AGAIN_S = 2.0  # when to come again


@dataclass(slots=True)
class _Way:
    taken: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Places:
    """Of all ways of one process, by scope."""

    def __init__(self, at_once: int, wait_s: float = WAIT_S, most_waiting: int = MOST_WAITING) -> None:
        self._at_once, self._wait_s, self._most_waiting = at_once, wait_s, most_waiting
        self._ways: dict[str, _Way] = {}

    def free(self, scope: str) -> int:
        """How many may begin now without taking anybody's turn."""
        way = self._ways.get(scope)
        return self._at_once if way is None else max(0, self._at_once - way.taken - len(way.waiting))

    @asynccontextmanager
    async def one(self, scope: str, *, waits: bool) -> AsyncIterator[None]:
        """A place while the block runs; first come, first served.    Raises: Shut, there is none within the wait."""
        way = self._ways.setdefault(scope, _Way())
        await self._enter(way, waits)
        try:
            yield
        finally:
            self._left(way)
            if not way.taken and not way.waiting:
                self._ways.pop(scope, None)

    async def _enter(self, way: _Way, waits: bool) -> None:
        if way.taken < self._at_once and not way.waiting:
            way.taken += 1
            return
        if not waits or len(way.waiting) >= self._most_waiting:
            raise Shut("crowded", AGAIN_S)
        turn = asyncio.get_running_loop().create_future()
        way.waiting.append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it came in the same breath: the next one's
                self._left(way)
            elif turn in way.waiting:
                way.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise Shut("crowded", AGAIN_S) from None
            raise

    def _left(self, way: _Way) -> None:
        """A place goes to who waits longest, or is free."""
        while way.waiting:
            turn = way.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        way.taken -= 1
