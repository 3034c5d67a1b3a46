"""How background work repeats: a `run_once` that tests call, and a loop around it that only waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import structlog

AGAIN_S = 1.0

log = structlog.get_logger(__name__)


async def every(
    interval_s: float, run_once: Callable[[], Awaitable[object]], *, name: str, wake: asyncio.Event | None = None
) -> None:
    """Run `run_once` now and again after each `interval_s`, until cancelled. A failure is logged, not the end.

    `wake`: runs it at once; what is set while it runs makes it run again.
    """
    while True:
        if wake is not None:
            wake.clear()
        try:
            await run_once()
        except Exception as error:  # outlives any one failure; the type is logged, never the text
            log.warning("loop.failed", loop=name, error=type(error).__name__)
        if wake is None:
            await asyncio.sleep(interval_s)
            continue
        try:
            async with asyncio.timeout(interval_s):  # not `wait_for`: see `Listener.wait`
                await wake.wait()
        except TimeoutError:
            pass


async def ended(loops: Collection[asyncio.Task[Any]]) -> None:
    """End them. An end can be swallowed on its way (by `asyncio.wait_for`, which asyncpg uses): it is said until it is heard."""
    left = set(loops)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)
