"""How background work repeats: a `run_once` that tests call, and a loop around it that only waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)


async def every(interval_s: float, run_once: Callable[[], Awaitable[object]], *, name: str) -> None:
    """Run `run_once` now and again after each `interval_s`, until cancelled. A failure is logged, not the end."""
    while True:
        try:
            await run_once()
        except Exception as error:  # outlives any one failure; the type is logged, never the text
            log.warning("loop.failed", loop=name, error=type(error).__name__)
        await asyncio.sleep(interval_s)
