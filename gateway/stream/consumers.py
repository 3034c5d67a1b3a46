"""Consumers: a named reader whose 64 partitions are leased to its workers, each with a stored cursor.

An event belongs to the partition of each of its connections, so one connection's events are one worker's, in order.
A partition that changes hands gets a new fence; a commit with an older one is refused, so a worker that was slow
(or cut off) cannot undo the work of its successor. Leases are judged by the database's clock.

A worker with more than its share is asked to `release` partitions and holds them until it does (or its lease ends):
it finishes what it has begun, commits, and hands over; nothing is worked on twice at once. Everybody who leases is
counted for a lease's length, whether there was something to take or not.

Leases, resets and commits take locks in one order and never deadlock: the consumer, then its partitions by
number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.database import Database, Db
from gateway.errors import Invalid, NotFound, StaleFence
from gateway.stream.cursor import Cursor
from gateway.stream.epoch import Log, look
from gateway.stream.read import at_time, check_log, earliest, latest

PARTITIONS = 64
OURS = "posthouse."  # how the names of our own consumers begin: whoever led them astray would lose revocations

MAKE = "INSERT INTO gateway.consumers (name, created_at) VALUES ($1, gateway.now()) ON CONFLICT DO NOTHING"
MAKE_PARTITIONS = """INSERT INTO gateway.consumer_partitions (consumer, partition, cursor_seq, cursor_mark, fence)
                     SELECT $1, p, $2, $3, nextval('gateway.fences') FROM generate_series(0, 63) AS p ON CONFLICT DO NOTHING"""
LOCK = "SELECT name FROM gateway.consumers WHERE name = $1 FOR UPDATE"
HELD = """SELECT partition, cursor_seq, cursor_mark, fence, worker, lease_until > gateway.now() AS live
            FROM gateway.consumer_partitions WHERE consumer = $1 ORDER BY partition FOR NO KEY UPDATE"""
WANT = """INSERT INTO gateway.consumer_workers (consumer, worker, wants_until)
          VALUES ($1, $2, gateway.now() + make_interval(secs => $3))
          ON CONFLICT (consumer, worker) DO UPDATE SET wants_until = excluded.wants_until"""
GONE = "DELETE FROM gateway.consumer_workers WHERE consumer = $1 AND (worker = $2 OR wants_until <= gateway.now())"
WANTING = "SELECT worker FROM gateway.consumer_workers WHERE consumer = $1"
RENEW = """UPDATE gateway.consumer_partitions SET lease_until = gateway.now() + make_interval(secs => $3)
            WHERE consumer = $1 AND worker = $2 AND partition = ANY ($4::smallint[])"""
TAKE = """UPDATE gateway.consumer_partitions
             SET worker = $2, fence = nextval('gateway.fences'), lease_until = gateway.now() + make_interval(secs => $3)
           WHERE consumer = $1 AND partition = ANY ($4::smallint[])"""
GIVE_BACK = """UPDATE gateway.consumer_partitions SET worker = NULL, lease_until = '-infinity'
                WHERE consumer = $1 AND worker = $2 AND partition = ANY ($3::smallint[])"""
STANDING = "SELECT seq, id FROM gateway.events WHERE seq = ANY ($1::bigint[])"
FENCES = """SELECT partition, fence FROM gateway.consumer_partitions
             WHERE consumer = $1 AND partition = ANY ($2::smallint[]) AND worker IS NOT NULL
             ORDER BY partition FOR NO KEY UPDATE"""
COMMIT = """UPDATE gateway.consumer_partitions AS p SET cursor_seq = c.seq, cursor_mark = c.mark
              FROM unnest($2::smallint[], $3::bigint[], $4::bytea[]) AS c(partition, seq, mark)
             WHERE p.consumer = $1 AND p.partition = c.partition AND p.cursor_seq < c.seq"""
# Locked in the order of their numbers, as by everybody: the update takes them as `held` brings them.
ADVANCE = f"""WITH held AS ({FENCES}), moved AS (
                UPDATE gateway.consumer_partitions AS p SET cursor_seq = $3, cursor_mark = $4 FROM held
                 WHERE p.consumer = $1 AND p.partition = held.partition AND p.cursor_seq < $3)
              SELECT partition, fence FROM held"""  # noqa: S608 - a constant
RESET = """UPDATE gateway.consumer_partitions
              SET cursor_seq = $2, cursor_mark = $3, fence = nextval('gateway.fences'), worker = NULL, lease_until = '-infinity'
            WHERE consumer = $1"""
STATES = """
SELECT c.name, c.created_at, min(p.cursor_seq) AS cursor_seq,
       (array_agg(p.cursor_mark ORDER BY p.cursor_seq))[1] AS cursor_mark, count(p.worker) FILTER (WHERE p.lease_until > gateway.now()) AS leased,
       array_agg(DISTINCT p.worker) FILTER (WHERE p.lease_until > gateway.now()) AS workers,
       greatest(coalesce((SELECT max(seq) FROM gateway.events), 0) - min(p.cursor_seq), 0) AS lag_events,
       coalesce(extract(epoch FROM gateway.now() - (SELECT e.at FROM gateway.events e WHERE e.seq > min(p.cursor_seq) ORDER BY e.seq LIMIT 1)), 0)::float8 AS lag_s
  FROM gateway.consumers c JOIN gateway.consumer_partitions p ON p.consumer = c.name
 WHERE ($1::text IS NULL OR c.name = $1) AND ($2::text IS NULL OR c.name > $2)
 GROUP BY c.name, c.created_at ORDER BY c.name LIMIT $3"""


@dataclass(frozen=True, slots=True)
class Leased:
    """One partition in a worker's hands: show `fence` with every commit, go on after `cursor`."""

    partition: int
    fence: int
    cursor: Cursor
    release: bool  # more than this worker's share: finish, commit, and give it back with the next lease

    def at(self, seq: int, mark: bytes) -> Leased:
        """The same, further on."""
        return replace(self, cursor=replace(self.cursor, seq=seq, mark=mark))


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything of `partition` up to `cursor` is done."""

    partition: int
    fence: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """Where a consumer stands. `lag_events` is an upper bound: numbers of rolled back appends count."""

    name: str
    created_at: datetime
    cursor: Cursor  # of the partition that is furthest behind
    leased: int
    workers: tuple[str, ...]
    lag_events: int
    lag_s: float


def partition_of(connection: UUID) -> int:
    """The partition of a connection, as `gateway.partition_of` has it."""
    return connection.bytes[15] & (PARTITIONS - 1)


async def lease(
    database: Database, name: str, worker: str, ttl_s: float, release: Sequence[int] = (), start: str = "earliest"
) -> list[Leased]:
    """Renew what `worker` holds, give back `release`, take what is free up to a fair share.

    A consumer is made by its first lease, and begins at `start` ("earliest" or "latest").
    """
    async with database.transaction() as db:
        await _make(db, name, start)
        await db.fetchrow(LOCK, name)  # one lease at a time a consumer: shares are counted under it
        rows = await db.fetch(HELD, name)
        given_back = {row["partition"] for row in rows if row["worker"] == worker} & set(release)
        await db.execute(GIVE_BACK, name, worker, list(given_back))
        live = {row["partition"]: row["worker"] for row in rows if row["live"] and row["partition"] not in given_back}
        await db.execute(GONE, name, worker)
        await db.execute(WANT, name, worker, ttl_s)
        wanting = {row["worker"] for row in await db.fetch(WANTING, name)}
        mine = [partition for partition, holder in live.items() if holder == worker]
        share = shares(Counter(live.values()), wanting)[worker]
        free = [row["partition"] for row in rows if row["partition"] not in live]
        await db.execute(RENEW, name, worker, ttl_s, mine)
        await db.execute(TAKE, name, worker, ttl_s, free[: max(share - len(mine), 0)])
        log = await look(db)
        surplus = set(mine[share:])
        return [
            Leased(row["partition"], row["fence"], _cursor(log, row), row["partition"] in surplus)
            for row in await db.fetch(HELD, name)
            if row["worker"] == worker and row["live"]
        ]


def shares(held: Mapping[str, int], wanting: Iterable[str]) -> dict[str, int]:
    """How many partitions each worker is to have; where it does not come out even, who holds most keeps one more."""
    workers = sorted({*held, *wanting}, key=lambda worker: (-held.get(worker, 0), worker))
    each, more = divmod(PARTITIONS, len(workers))
    return {worker: each + (place < more) for place, worker in enumerate(workers)}


async def leave(database: Database, name: str, worker: str, limit_s: float | None = None) -> None:
    """Give back everything and want nothing more: the others need not wait for the lease to end."""
    async with database.transaction(limit_s=limit_s) as db:
        await db.fetchrow(LOCK, name)
        held = await db.fetch(HELD, name)
        await db.execute(GIVE_BACK, name, worker, [row["partition"] for row in held])
        await db.execute(GONE, name, worker)


async def commit(database: Database, name: str, done: Sequence[Commit]) -> None:
    """Move cursors forward (never back). What is valid is committed even where other fences are stale.

    Raises: StaleFence with the partitions that are no longer this worker's. CursorGone, Invalid (beyond the end):
    a cursor of no use here, and nothing is committed.
    """
    async with database.transaction() as db:
        await _check(db, [one.cursor for one in done])
        partitions = list({one.partition for one in done})
        fences = {row["partition"]: row["fence"] for row in await db.fetch(FENCES, name, partitions)}
        furthest: dict[int, Cursor] = {}
        for one in done:
            if fences.get(one.partition) == one.fence:
                furthest[one.partition] = max(furthest.get(one.partition, one.cursor), one.cursor)
        cursors = furthest.values()
        await db.execute(COMMIT, name, list(furthest), [c.seq for c in cursors], [c.mark for c in cursors])
    if stale := sorted({one.partition for one in done if fences.get(one.partition) != one.fence}):
        raise StaleFence("these partitions were given to another worker since", partitions=stale)


async def advance(tx: Db, name: str, fences: Mapping[int, int], seq: int, mark: bytes) -> None:
    """Everything of these partitions up to `seq` is done with this transaction; they are ours until it ends.

    Raises: StaleFence.
    """
    held = {row["partition"]: row["fence"] for row in await tx.fetch(ADVANCE, name, list(fences), seq, mark)}
    if stale := sorted(partition for partition, fence in fences.items() if held.get(partition) != fence):
        raise StaleFence("these partitions were given to another worker since", partitions=stale)


async def reset(database: Database, name: str, to: datetime | str) -> Cursor:
    """Put every partition of a consumer at a time, at "earliest" or "latest"; all leases end.    Raises: NotFound."""
    async with database.transaction() as db:
        if await db.fetchrow(LOCK, name) is None:
            raise NotFound("no such consumer")
        await db.fetch(HELD, name)
        cursor = await _place(db, to)
        await db.execute(RESET, name, cursor.seq, cursor.mark)
        return cursor


async def states(
    db: Db, name: str | None = None, *, after: str | None = None, limit: int | None = None
) -> list[ConsumerState]:
    """Consumers with their lag, by name: the named one, or those after `after`."""
    log = await look(db)
    return [
        ConsumerState(
            row["name"], row["created_at"], _cursor(log, row), row["leased"],
            tuple(row["workers"] or ()), row["lag_events"], row["lag_s"],
        )
        for row in await db.fetch(STATES, name, after, limit)
    ]  # fmt: skip


async def remove(db: Db, name: str) -> None:
    """Forget a consumer and its cursors.    Raises: NotFound."""
    if await db.fetchval("DELETE FROM gateway.consumers WHERE name = $1 RETURNING name", name) is None:
        raise NotFound("no such consumer")


async def _make(db: Db, name: str, start: str) -> None:
    if await db.fetchval("SELECT name FROM gateway.consumers WHERE name = $1", name) is None:
        await db.execute(MAKE, name)
        cursor = await _place(db, start)
        await db.execute(MAKE_PARTITIONS, name, cursor.seq, cursor.mark)


async def _place(db: Db, to: datetime | str) -> Cursor:
    if isinstance(to, datetime):
        return await at_time(db, to)
    return await (latest(db) if to == "latest" else earliest(db))


async def _check(db: Db, cursors: Sequence[Cursor]) -> None:
    rows = await db.fetch(STANDING, list({cursor.seq for cursor in cursors}))
    standing = {row["seq"]: row["id"] for row in rows}
    log = await look(db)
    for cursor in cursors:
        check_log(cursor, log, standing.get(cursor.seq))
    furthest = max((cursor.seq for cursor in cursors), default=0)
    if furthest not in standing and furthest > (await latest(db)).seq:
        raise Invalid("the cursor is beyond the end of the stream")


def _cursor(log: Log, row: Any) -> Cursor:
    return Cursor(log.epoch, row["cursor_seq"], row["cursor_mark"])
