"""A reader under chaos: follows the stream by API, from whichever gateway answers, with one cursor all along."""

from __future__ import annotations

import asyncio
import base64
import random
from collections import Counter

import aiohttp

from tests.faults.fleet import Fleet
from tests.faults.mail import MARK


class Reader:
    """What stands on the stream, by (number of the delivery, index of the item)."""

    def __init__(self, fleet: Fleet, seed: str) -> None:
        self._fleet, self._chance = fleet, random.Random(f"{seed}/reader")
        self.seen: Counter[tuple[int, int]] = Counter()
        self.events = 0
        self._cursor = "earliest"
        self._asked = self._reached = 0  # number of the last page asked for; of the last that was at the end
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._follow())

    async def catch_up(self) -> None:
        """Until everything that is committed by now has been read."""
        due = self._asked + 1
        async with asyncio.timeout(60):
            while self._reached < due:
                self._moved.clear()
                await self._moved.wait()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        limit = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {self._fleet.key}"}, timeout=limit) as http:
            while True:
                gateway = self._chance.choice(self._fleet.gateways)
                self._asked += 1
                try:
                    query = {"after": self._cursor, "limit": "1000", "wait_s": "0.5", "type": "posthouse.delivery"}
                    async with http.get(f"{gateway.private}/v1/events", params=query) as answer:
                        page = await answer.json() if answer.status == 200 else None
                except (aiohttp.ClientError, TimeoutError, ValueError):
                    page = None
                if page is None:
                    await asyncio.sleep(0.1)
                    continue
                for item in page["items"]:
                    self._note(base64.b64decode(item["event"]["data_base64"]))
                self._cursor = page["next_cursor"]
                if page["at_end"]:
                    self._reached = self._asked
                    self._moved.set()

    def _note(self, data: bytes) -> None:
        found = MARK.search(data)
        assert found is not None, "an event that nobody sent"
        self.seen[int(found[1]), int(found[2])] += 1
        self.events += 1
