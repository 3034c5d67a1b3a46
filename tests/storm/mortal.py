"""Processes that share one event loop, and die each by itself as of SIGKILL: at a moment, without a last word.

All that a process does runs in tasks that inherit its `Life`. A dead one's tasks are never resumed: no `finally`, no `except`,
no write of theirs runs any more, while its connections are cut under their hands as the kernel would. When the story is over
they are buried: cancelled, with nothing left within their reach.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any

OWNER: ContextVar[Life | None] = ContextVar("owner", default=None)
TASK = "refresh"  # whose moments count


class Life:
    """One process's. `on_death` cuts its connections, at once."""

    def __init__(self, name: str, on_death: Callable[[], None]) -> None:
        self.name, self._on_death = name, on_death
        self.dead = self.buried = False
        self.dies_in: int | None = None  # moments of its refreshes
        self._tasks: set[asyncio.Task[Any]] = set()

    def owns(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def die(self) -> None:
        """At once."""
        if not self.dead:
            self.dead = True
            self._on_death()

    def moment(self) -> None:
        """One more of its refresh has come."""
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in <= 0:
                self.die()

    async def bury(self) -> None:
        """Let its tasks end, which find nothing that they could change."""
        self.dead = self.buried = True
        while self._tasks:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.wait(self._tasks, timeout=1)

    def call(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Let the process do something."""
        token = OWNER.set(self)
        try:
            return asyncio.create_task(work, name=name)
        finally:
            OWNER.reset(token)


class Mortal(Coroutine[Any, Any, Any]):
    """What a task of a process does, for as long as that lives."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], life: Life) -> None:
        self._coroutine, self._life = coroutine, life
        self._counts: bool | None = None

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        life = self._life
        if self._counts is None:
            task = asyncio.current_task()
            self._counts = task is not None and task.get_name() == TASK
        if self._counts and not life.dead:
            life.moment()  # it was to go on
        if life.dead and not life.buried:
            return _for_ever()
        waits_for = step(*given)
        if self._counts and not life.dead:
            life.moment()  # it waits
        return waits_for


def install(loop: asyncio.AbstractEventLoop) -> None:
    """From now on tasks belong to the process that made them."""

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        context = more.get("context")
        life = OWNER.get() if context is None else context.get(OWNER)
        if life is None:
            return asyncio.Task(coroutine, loop=loop, **more)
        task = asyncio.Task(Mortal(coroutine, life), loop=loop, **more)
        life.owns(task)
        return task

    loop.set_task_factory(factory)


def _for_ever() -> asyncio.Future[None]:
    """What a task may wait for that is not to go on: it looks as if a coroutine awaited it."""
    never = asyncio.get_running_loop().create_future()
    never._asyncio_future_blocking = True
    return never
