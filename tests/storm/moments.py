"""The moments of a task: each time that it begins to wait, and each time that it goes on. Found by watching, not listed by hand.

A process may die between any two of them. Dying as a wait begins, what the task has written may still lie in the event
loop's hands; dying as it ends, the answer is there and nobody has read it. So each await counts twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["asleep", "awake"]
See = Callable[[Kind, str], None]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Moment:
    """Its number (from 1), whether a wait begins or is over, and where in the code."""

    number: int
    kind: Kind
    where: str

    def __str__(self) -> str:
        return f"{self.number:3} {self.kind:6} {self.where}"


class Watched(Coroutine[Any, Any, Any]):
    """A coroutine that tells of its moments, if it is run by a task of that name (which a task has only after its making)."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], name: str, see: See) -> None:
        self._coroutine, self._name, self._see = coroutine, name, see
        self._seen: bool | None = None  # until it runs nobody knows whose it is

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def _step(self, step: Callable[..., Any], *given: Any) -> Any:
        if self._seen is None:
            task = asyncio.current_task()
            self._seen = task is not None and task.get_name() == self._name
        if not self._seen:
            return step(*given)
        self._see("awake", where(self._coroutine))
        waits_for = step(*given)
        self._see("asleep", where(self._coroutine))
        return waits_for


def watch(loop: asyncio.AbstractEventLoop, name: str, see: See) -> None:
    """From now on `see` is told of each moment of each task of that name."""

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        return asyncio.Task(Watched(coroutine, name, see), loop=loop, **more)

    loop.set_task_factory(factory)


def where(coroutine: Any) -> str:
    """Where it stands, as far in as the gateway's own code goes: `gateway/tokens/rotation.py:112`."""
    found = ""
    inner = coroutine
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "ag_frame", None) or getattr(inner, "gi_frame", None)
        if frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.is_relative_to(ROOT / "gateway"):
                found = f"{file.relative_to(ROOT)}:{frame.f_lineno}"
        inner = (
            getattr(inner, "cr_await", None) or getattr(inner, "ag_await", None) or getattr(inner, "gi_yieldfrom", None)
        )
    return found
