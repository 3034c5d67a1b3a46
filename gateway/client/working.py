"""One worker of a consumer: reads its partitions, yields in order, commits what is finished, hands over when asked.

Partitions that stand at the same place are read together. Those that come from a worker that was further behind (or
ahead) stand elsewhere; each such group is read by itself up to the place where the next one stands, and joins it
there. So nothing is yielded twice, and an event's connections are exactly those that are due.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any

from gateway.client.entries import Entry, entry
from gateway.client.errors import PosthouseError, StaleFence
from gateway.client.http import Http, Params
from gateway.client.leases import GOODBYE_S, Group, Leases

WAIT_S = 20.0  # a long poll
PAGE = 200


@dataclass(frozen=True, slots=True)
class Batching:
    """When finished events are committed: after so many, or so much later, whichever comes first."""

    events: int = 100
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Page:
    """What was read for `group`, which has then seen everything up to `upto`."""

    group: Group
    entries: list[Entry]
    upto: str


class Worker:
    """Yields entries until it is closed."""

    def __init__(self, http: Http, consumer: str, leases: Leases, wanted: Params, batching: Batching) -> None:
        self._http, self._leases, self._wanted, self._batching = http, leases, wanted, batching
        self._path = f"/v1/consumers/{consumer}/commit"
        self._in_hand: tuple[Group, str] | None = None
        self._count, self._since = 0, 0.0  # finished and not committed: how many, since when
        self._turn = ""  # where the group stood that was read last

    async def entries(self) -> AsyncGenerator[Entry, None]:
        """Entries in the order of each connection. Asking for the next one says that the last one is done."""
        keeping: asyncio.Task[None] | None = None
        try:
            await self._leases.renew()
            keeping = asyncio.create_task(self._leases.keep())
            while True:
                await self._settle()
                page = await self._read()
                if page is None:
                    continue
                for one in page.entries:
                    if not self._leases.holds(page.group):
                        break  # what is still ours is read again, without what is not
                    self._in_hand = (page.group, one.cursor)
                    yield one
                    self._finish_in_hand()
                    await self._settle()
                else:
                    self._leases.finished(page.group, page.upto)
        finally:
            if keeping is not None:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            await self._end()

    async def commit(self) -> None:
        """The entry in hand is done; tell the gateway everything that is."""
        self._finish_in_hand()
        await self._commit()

    async def _settle(self) -> None:
        """Between two entries: commit what is due, wait until we may work, hand over what we are asked for."""
        while True:
            # Before anything else: after a pause that outlived the lease this may still be in time.
            if self._due_in_s() <= 0 and await self._commit():
                await self._leases.renew()
            await self._leases.settled()
            asked = self._leases.asked_for()
            if not asked:
                return
            await self._commit()
            for partition in asked:
                self._leases.held.pop(partition, None)
            await self._leases.renew(release=asked)

    def _finish_in_hand(self) -> None:
        if self._in_hand is not None:
            self._leases.finished(*self._in_hand)
            self._in_hand = None
            self._since = self._since if self._count else self._http.pace.clock()
            self._count += 1

    def _due_in_s(self) -> float:
        if self._count >= self._batching.events:
            return 0.0
        if not self._count and not self._leases.uncommitted():
            return WAIT_S
        return self._since + self._batching.seconds - self._http.pace.clock()

    async def _commit(self) -> bool:
        """Tell the gateway what is done; whether it turned out that something is no longer ours."""
        # All that moved, also by events that are not for us: so no partition is left behind at the retention edge.
        moved = {p: (part, part.done) for p, part in self._leases.uncommitted().items()}
        self._count, self._since = 0, self._http.pace.clock()
        if not moved:
            return False
        body = {"partitions": [{"partition": p, "fence": x.fence, "cursor": done} for p, (x, done) in moved.items()]}
        lost: set[int] = set()
        try:
            await self._http.patiently("POST", self._path, body=body, patience_s=None)
        except StaleFence as stale:
            lost = set(stale.partitions)
        for partition, (part, done) in moved.items():
            if partition not in lost:
                part.committed = done
            elif self._leases.held.get(partition) is part:
                del self._leases.held[partition]
        return bool(lost)

    def _next_group(self) -> tuple[Group, str, str | None]:
        """Whose turn it is, where they stand, and where the next group stands. Each in turn, from the front backwards."""
        held = self._leases.held
        places = sorted({part.done for part in held.values()})
        place = max((p for p in places if p < self._turn), default=places[-1])
        self._turn = place
        ahead = min((p for p in places if p > place), default=None)
        return {p: part.fence for p, part in held.items() if part.done == place}, place, ahead

    async def _read(self) -> Page | None:
        """The next page of the group whose turn it is; None when what we hold changed while we waited."""
        group, place, ahead = self._next_group()
        alone = len(group) == len(self._leases.held)
        wait_s = min(WAIT_S, max(self._due_in_s(), 0.0)) if alone else 0.0
        params = [*self._wanted, ("after", place), ("limit", str(PAGE)), ("wait_s", f"{wait_s:.3f}")]
        params += [("partition", str(partition)) for partition in group]
        self._leases.changed.clear()
        asking = self._http.patiently(
            "GET", "/v1/events", params=params, timeout_s=wait_s + 15, patience_s=None
        )  # fmt: skip
        answer = await _unless(self._leases.changed, asking)
        if answer is None:
            return None
        upto: str = answer["next_cursor"]
        if ahead is not None and (answer["at_end"] or upto > ahead):
            upto = ahead
        entries = [entry(sent) for sent in answer["items"]]
        return Page(group, [one for one in entries if one.cursor <= upto], upto)

    async def _end(self) -> None:
        """Commit and give back; when the gateway is away, the lease ends by itself and the last events come again."""
        self._in_hand = None
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._commit()
                await self._leases.leave()
        except (PosthouseError, TimeoutError):
            pass


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, Any]) -> Any:
    """The result of `work`, or None if `event` is set before."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
