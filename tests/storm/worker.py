"""A gateway process as `posthouse serve` runs it, with what only a test does to it: a clock that is off, a death on the minute."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from gateway import serve, service
from gateway.clock import SystemClock
from gateway.regions import DEFAULT
from gateway.settings import Settings
from providers.registry import all_providers
from subscriptions import house
from tests.storm import moments
from tests.storm.moments import Moment

all_providers()  # loaded once, before anything is forked
TASK = "refresh"  # what the task is called that refreshes


@dataclass(frozen=True)
class Orders:
    """What a process is to do beside its work."""

    settings: Mapping[str, Any]
    clock_off_s: float = 0.0  # of its wall clock
    dies_at: int | None = None  # the moment of its refresh at which it kills itself
    tells: bool = False  # of each moment


class Off(SystemClock):
    """A wall clock that is off."""

    def __init__(self, off_s: float) -> None:
        self._off = timedelta(seconds=off_s)

    def now(self) -> datetime:
        return super().now() + self._off


def run(orders: Orders, line: Connection, log: str) -> None:
    """The process, from its first line to its last. What it has to say goes through `line`, at once."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    service.SystemClock = partial(Off, orders.clock_off_s)  # type: ignore[misc,assignment]
    settings = Settings(_env_file=None, **orders.settings)
    serve.run(partial(_serve, settings, orders, line), settings)


async def _serve(settings: Settings, orders: Orders, line: Connection) -> None:
    passed = 0

    def see(kind: moments.Kind, where: str) -> None:
        nonlocal passed
        passed += 1
        dies = passed == orders.dies_at
        if dies or orders.tells:
            line.send(Moment(passed, kind, where))
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    async def ready(process: serve.Process) -> None:
        assert process.gateway is not None
        line.send((process.private, process.gateway.processes[DEFAULT].id))

    if orders.tells or orders.dies_at is not None:
        moments.watch(asyncio.get_running_loop(), TASK, see)
    await serve.Process(settings, on_ready=ready, upstairs=house.opened).run()
