"""The platform's side: a consumer that follows the stream live, and one that reads it all once more at the end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.client import Client, Entry
from gateway.client.entries import entry
from gateway.client.http import Pace

MARKER = re.compile(rb"demo-[a-z-]+-[0-9]{5}-[0-9]")


@dataclass
class Watcher:
    """Follows over server-sent events, and keeps what it saw in the order in which it saw it."""

    on_entry: Callable[[Entry], None]
    seen: list[Entry] = field(default_factory=list)
    pauses: int = 0  # before connecting again
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self, url: str, key: str) -> None:
        """Without end; the client comes back by itself with Last-Event-ID."""
        async with Client(url, key, pace=Pace(sleep=self._pause)) as posthouse, posthouse.events() as events:
            async for entry in events:
                self.seen.append(entry)
                self.on_entry(entry)
                self.grown.set()

    async def until(self, enough: Callable[[list[Entry]], bool]) -> None:
        """Until what was seen is enough."""
        while not enough(self.seen):
            self.grown.clear()
            await self.grown.wait()

    async def _pause(self, seconds: float) -> None:
        self.pauses += 1
        await asyncio.sleep(seconds)


async def read_all(url: str, key: str) -> list[Entry]:
    """The whole stream as it stands now, page by page."""
    found: list[Entry] = []
    after = "earliest"
    async with Client(url, key) as posthouse:
        while True:
            page = await posthouse.request("GET", "/v1/events", params={"after": after, "limit": "1000"})
            found += [entry(sent) for sent in page["items"]]
            after = page["next_cursor"]
            if page["at_end"]:
                return found


def marker(entry: Entry) -> str | None:
    """Which item of ours it is; None for events of the gateway's own."""
    found = MARKER.search(entry.event.data) if entry.delivery is not None else None
    return found[0].decode() if found else None
