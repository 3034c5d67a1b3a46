"""This package as a process runs it: a scheduler for each region. `gateway.cli` hands it down; the gateway never looks up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from gateway.service import Gateway
from gateway.web.routing import Route
from subscriptions import api
from subscriptions.hours import QuietHours
from subscriptions.renewal import Renewal
from subscriptions.scheduler import Scheduler

_chance = random.SystemRandom().random


class House:
    """The schedulers of one process, and the routes of this package."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        at_once = gateway.settings.renewals_at_once
        self.schedulers = {
            region.name: Scheduler(
                region, gateway.catalog,
                Renewal(region, gateway.refresher, QuietHours(gateway.clock), _chance, gateway.draining),
                gateway.breakers[region.name], at_once, gateway.draining,
            )
            for region in gateway.regions
        }  # fmt: skip
        self.routes: Sequence[Route] = api.ROUTES
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Work, until the gateway drains."""
        for scheduler in self.schedulers.values():
            await scheduler.start()
            self._loops.append(asyncio.create_task(scheduler.follow(), name="renewals"))

    async def drained(self) -> None:
        """Once the gateway drains: no more is claimed, and what is under way has ended."""
        await asyncio.gather(*self._loops, return_exceptions=True)
        await asyncio.gather(*(scheduler.ended() for scheduler in self.schedulers.values()))

    async def close(self) -> None:
        """Leave what is still under way."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await asyncio.gather(*(scheduler.close() for scheduler in self.schedulers.values()))


async def opened(gateway: Gateway) -> House:
    """Begin to work for a gateway that is open."""
    house = House(gateway)
    await house.start()
    return house
