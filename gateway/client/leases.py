"""What one worker of a consumer holds: its partitions, kept by renewing the lease in the background.

A partition goes on after `done`. The gateway's clock judges leases; this side measures from before it asked, so it
stops a little early rather than a little late, and nobody works on a partition that may already be another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.client.errors import PASSING
from gateway.client.http import Backoff, Http

RENEW_AFTER = 1 / 3  # of the lease
TRUSTED = 0.9  # of the lease
ASK_AGAIN_S = 1.0  # while there is nothing: others are being asked to hand over
GOODBYE_S = 5.0


@dataclass(slots=True)
class Part:
    """One partition in our hands."""

    fence: int
    done: str  # cursor: everything up to here is finished
    committed: str
    release: bool = False  # more than our share: to be handed over


Group = Mapping[int, int]  # partitions that stand at the same place, each with its fence


class Leases:
    """The partitions that this worker holds just now."""

    def __init__(self, http: Http, consumer: str, worker: str, ttl_s: float, start: str) -> None:
        self._http, self._pace = http, http.pace
        self._path = f"/v1/consumers/{consumer}"
        self._asking = {"worker": worker, "ttl_s": ttl_s, "start": start}
        self._ttl_s = ttl_s
        self._turn = asyncio.Lock()  # one lease call at a time
        self._on_its_way: asyncio.Future[Any] | None = None
        self._trusted_until = 0.0
        self._trouble: Exception | None = None
        self.held: dict[int, Part] = {}
        self.changed = asyncio.Event()  # what we hold is different, or we are asked for some of it

    async def renew(self, release: Sequence[int] = ()) -> None:
        """Lease: keep what we hold, give back `release`, take what is ours. Tries until it goes well or cannot."""
        backoff = Backoff(self._pace)
        async with self._turn:
            while True:
                asked_at = self._pace.clock()
                try:
                    lease = await self._to_the_end("lease", {**self._asking, "release": list(release)})
                except PASSING as trouble:
                    await backoff.wait(trouble)
                    continue
                self._take(lease["partitions"], asked_at)
                return

    async def keep(self) -> None:
        """Renew in time, without end. What cannot be mended is raised by `settled`, in the caller's task."""
        try:
            while True:
                pause_s = self._ttl_s * RENEW_AFTER if self.held else min(ASK_AGAIN_S, self._ttl_s * RENEW_AFTER)
                await self._pace.sleep(pause_s * (0.8 + 0.2 * self._pace.chance()))
                await self.renew()
        except Exception as trouble:
            self._trouble = trouble
            self.changed.set()

    async def settled(self) -> None:
        """Return when there is something that we may work on.    Raises: what ended the renewing."""
        while True:
            if self._trouble is not None:
                raise self._trouble
            if self.held and self._trusted():
                return
            self.changed.clear()
            await self.changed.wait()

    def holds(self, group: Group) -> bool:
        """Whether all of `group` is still ours."""
        mine = ((self.held.get(partition), fence) for partition, fence in group.items())
        return self._trusted() and all(part is not None and part.fence == fence for part, fence in mine)

    def finished(self, group: Group, cursor: str) -> None:
        """Everything in `group` up to `cursor` is done."""
        for partition, fence in group.items():
            part = self.held.get(partition)
            if part is not None and part.fence == fence and cursor > part.done:
                part.done = cursor

    def asked_for(self) -> list[int]:
        """Partitions that we are to hand over."""
        return [partition for partition, part in self.held.items() if part.release]

    def uncommitted(self) -> dict[int, Part]:
        """Partitions that are further than the gateway knows."""
        return {partition: part for partition, part in self.held.items() if part.done != part.committed}

    async def leave(self) -> None:
        """Give everything back at once. One try: the lease ends by itself."""
        self.held.clear()
        if self._on_its_way is not None:
            await asyncio.wait({self._on_its_way})
        await self._to_the_end("leave", {"worker": self._asking["worker"]})

    async def _to_the_end(self, what: str, body: Mapping[str, Any]) -> Any:
        """Ask, and let the question be answered even if we are cancelled: a lease that overtook our leaving would stay."""
        asking = self._http.once("POST", f"{self._path}/{what}", body=body, timeout_s=self._ttl_s / 2)
        task = asyncio.ensure_future(asking)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._on_its_way = task
        return await asyncio.shield(task)

    def _trusted(self) -> bool:
        return self._pace.clock() < self._trusted_until

    def _take(self, leased: Sequence[Mapping[str, Any]], asked_at: float) -> None:
        before = {partition: part.fence for partition, part in self.held.items()}
        lapsed = not self._trusted()
        self._trusted_until = asked_at + self._ttl_s * TRUSTED
        held: dict[int, Part] = {}
        for one in leased:
            part = self.held.get(one["partition"])
            if part is None or part.fence != one["fence"]:  # new, or it has been in other hands meanwhile
                part = Part(one["fence"], one["cursor"], one["cursor"])
            part.release = one["release"]
            held[one["partition"]] = part
        self.held = held
        if lapsed or self.asked_for() or {partition: part.fence for partition, part in held.items()} != before:
            self.changed.set()
