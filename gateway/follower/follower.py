"""Following the stream: lease partitions, read what is marked, tell the machine, commit the cursor with the effects.

One transaction a batch: the partitions' fences are checked and their cursors moved, the machine's moves are applied and said.
So a follower that is killed anywhere has done a batch whole or not at all, and one that was slow (its partitions are another's
by now) does nothing. An event that cannot be digested is set aside and the cursor moves on. Events of one connection are
one partition's, so they are one worker's, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

import asyncpg
import structlog

from gateway import metrics
from gateway.clock import Clock
from gateway.connections import transitions
from gateway.database import AWAY, Db
from gateway.errors import StaleFence, Unavailable
from gateway.follower import store
from gateway.follower.meaning import DELIVERY, Meaning, Meant
from gateway.follower.store import Marked, Read
from gateway.regions import Region
from gateway.stream import consumers
from gateway.stream.consumers import Leased, partition_of
from gateway.stream.cursor import mark_of

NAME = "posthouse.lifecycle"
LEASE_S = 6.0  # after a crash somebody else goes on within this
RENEW_S = 2.5
BATCH = 100  # events of one transaction: it holds the locks of their connections
IDLE_S = 5.0  # how often cursors are moved past what is not marked
PACE_S = 0.005  # between two reads: every commit wakes us, and many are of nothing for us
PAUSE_S = 1.0  # after trouble
LEAVE_S = 1.0  # at the end: a lease that is not given back ends by itself
PASSING = (Unavailable, StaleFence, *AWAY)
OFFENCES = frozenset({"22", "23", "54"})  # SQLSTATE classes: a value that cannot be stored, as in gateway/batches.py

log = structlog.get_logger(__name__)


class Follower:
    """The follower of one process in one region."""

    def __init__(
        self, region: Region, meaning: Meaning, clock: Clock, worker: str, new_id: Callable[[], UUID],
        asked: Callable[[], None],
    ) -> None:  # fmt: skip
        self._region, self._meaning, self._clock = region, meaning, clock
        self._worker, self._new_id, self._asked = worker, new_id, asked
        self._held: dict[int, Leased] = {}
        self._leased_at = self._moved_at = float("-inf")
        self._entered = False

    async def follow(self) -> None:
        """Until cancelled: at every commit at once, and by a poll behind it."""
        news = self._region.news.subscribe()
        try:
            while True:
                news.clear()
                try:
                    worked = await self.run_once()
                except Exception as error:  # outlives any one failure; the type is logged, never the text
                    log.warning("follower.failed", error=type(error).__name__)
                    self._leased_at = float("-inf")
                    await asyncio.sleep(PAUSE_S)
                    continue
                if not worked:
                    await self._region.news.wait(news)
                await asyncio.sleep(PACE_S)
        finally:
            self._region.news.unsubscribe(news)

    async def leave(self) -> None:
        """Give back what is leased: others need not wait for it, nor the end of the process for long.

        Raises: Unavailable.
        """
        if self._entered:
            self._held, self._entered = {}, False
            await consumers.leave(self._region.following, NAME, self._worker, LEAVE_S)

    async def run_once(self) -> int:
        """One batch; how many events it held.    Raises: Unavailable."""
        await self._lease()
        if not self._held:
            return 0
        after = min(one.cursor.seq for one in self._held.values())
        read = await store.read(self._region.following, after, sorted(self._held), BATCH)
        done = await self._redrive() if read.redrive else 0
        due = [(event, where) for event in read.events if (where := self._due(event))]
        if due or (read.end is not None and read.end[0] > after and self._may_move(read)):
            try:
                await self._work(read, [event for event, _ in due])
            except StaleFence:
                self._held, self._leased_at = {}, float("-inf")
        return done + len(read.events)

    async def _lease(self) -> None:
        """Renew, take what is free, and hand over at once what is asked for: between batches nothing is in hand."""
        now = self._clock.monotonic()
        if now - self._leased_at < RENEW_S:
            return
        self._entered = True
        surplus = [one.partition for one in self._held.values() if one.release]
        leased = await consumers.lease(self._region.following, NAME, self._worker, LEASE_S, surplus)
        self._held, self._leased_at = {one.partition: one for one in leased}, now

    def _due(self, event: Marked) -> set[int]:
        """The partitions of ours in which the event was not done yet."""
        return {p for p in event.partitions if p in self._held and event.seq > self._held[p].cursor.seq}

    def _may_move(self, read: Read) -> bool:
        return bool(read.events) or self._clock.monotonic() - self._moved_at >= IDLE_S

    async def _work(self, read: Read, events: Sequence[Marked]) -> None:
        """The batch whole; where something in it cannot be done, one event after the other."""
        full = len(read.events) == BATCH
        assert read.end is not None
        place = (read.events[-1].seq, read.events[-1].id) if full else read.end
        try:
            await self._done(events, place)
        except Exception as error:
            if not _is_an_events(error):
                raise
            if len(events) <= 1:
                await self._done([], place, aside=[(event, type(error).__name__) for event in events])
                return
            for event in events:
                await self._work(Read([event], (event.seq, event.id), False), [event])
            await self._done([], place)

    async def _done(
        self, events: Sequence[Marked], place: tuple[int, UUID], aside: Sequence[tuple[Marked, str]] = ()
    ) -> None:
        """Tell the machine, and move the cursors to `place`, in one transaction.    Raises: StaleFence."""
        meant = await self._meant(events)
        fences = {partition: one.fence for partition, one in self._held.items()}
        async with self._region.following.transaction() as tx:
            await consumers.advance(tx, NAME, fences, place[0], mark_of(place[1]))
            for event, error in [*aside, *((one.event, one.error) for one in meant if one.error is not None)]:
                await store.set_aside(tx, event, error)
                log.error("follower.set_aside", event_type=event.type, error=error)
            await self._tell(tx, meant)
        moved = {p: one for p, one in self._held.items() if one.cursor.seq < place[0]}
        self._held |= {p: leased.at(place[0], mark_of(place[1])) for p, leased in moved.items()}
        self._moved_at = self._clock.monotonic()
        if any(one.moves or one.hints for one in meant):
            self._asked()  # a check, perhaps
        for one in meant:
            metrics.FOLLOWED.labels("set_aside" if one.error else "told" if one.moves or one.hints else "nothing").inc()

    async def _meant(self, events: Sequence[Marked]) -> list[Meant]:
        """What they say, and what was said of a connection before it was there."""
        db, asked = self._region.following, []
        for event in events:
            if not event.type.startswith(DELIVERY):  # a connection came to be: what of the time before? (PROTOCOLS 3)
                asked += [
                    (earlier, frozenset({connection}))
                    for connection in event.connections if event.integration_id is not None
                    for earlier in await store.before(db, event.seq, connection, event.integration_id)
                ]  # fmt: skip
            elif event.connections:
                due = self._due(event)
                asked.append((event, frozenset(c for c in event.connections if partition_of(c) in due)))
            else:
                asked.append((event, await self._meaning.resolved(db, event)))
        return await self._meaning.of(db, asked)

    async def _tell(self, tx: Db, meant: Sequence[Meant]) -> None:
        moves = [move for one in meant for move in one.moves]
        hints = [hint for one in meant for hint in one.hints]
        if moves or hints:
            await transitions.apply(tx, moves, self._new_id, hints=hints)

    async def _redrive(self) -> int:
        """Try one again that was set aside, where somebody has asked for it. Its original time passes the fences."""
        database, event = self._region.following, None
        try:
            async with database.transaction() as tx:
                found = await store.wanted(tx)
                if found is None:
                    return 0
                event_id, event = found
                if event is None:
                    await store.done(tx, event_id)
                    log.warning("follower.redrive_gone", hint="retention has dropped the event")
                    return 1
                connections = frozenset(event.connections) or await self._meaning.resolved(tx, event)
                (meant,) = await self._meaning.of(tx, [(event, connections)])
                if meant.error is not None:
                    await store.failed(tx, event.id, meant.error)
                else:
                    await store.done(tx, event_id)
                    await self._tell(tx, [meant])
        except Exception as error:  # else it would be tried for ever, before all that comes behind it
            if event is None or not _is_an_events(error):
                raise
            await store.failed(database, event.id, type(error).__name__)
        return 1


def _is_an_events(error: Exception) -> bool:
    """Is it one event's fault, which must not hold up the others, and no affair of the database's?"""
    if isinstance(error, asyncpg.PostgresError):
        return error.sqlstate[:2] in OFFENCES
    return not isinstance(error, PASSING)
