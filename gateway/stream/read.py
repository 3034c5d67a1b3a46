"""Reading the log after a cursor.

`seq` order is commit order (see `gateway.append`), so "everything after my cursor" misses nothing and no horizon is
needed. A filtered read looks at a bounded stretch of the log and answers with the cursor of the last event it
*looked at*: a rare match costs several quick requests, never one that scans for minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.database import Db
from gateway.errors import CursorGone
from gateway.stream.cursor import Cursor
from gateway.stream.epoch import Log, look

MAX_EVENTS = 1000
MAX_BYTES = 8 * 1024 * 1024  # of data in one page; a larger event comes alone
STRETCH = 5000  # events that one filtered read looks at

# $3, $4: types, whole and as LIKE patterns of what lies below. The window sum ends a page by its bytes.
READ = """
WITH stretch AS (
  SELECT seq, id, type, time, at, integration_id, connections, tenants, partitions, content_type, delivery, data,
         octet_length(data) AS size
    FROM gateway.events WHERE seq > $1 ORDER BY seq LIMIT $2),
matching AS (
  SELECT *, sum(size) OVER (ORDER BY seq) AS total FROM stretch
   WHERE ($3::text[] IS NULL OR type = ANY ($3) OR type LIKE ANY ($4::text[]))
     AND ($5::uuid IS NULL OR integration_id = $5)
     AND ($6::text IS NULL OR $6 = ANY (tenants))
     AND ($7::uuid IS NULL OR $7 = ANY (connections))
     AND ($8::smallint[] IS NULL OR partitions && $8)
   ORDER BY seq LIMIT $9)
SELECT m.*, s.looked_at, s.stretched, (SELECT count(*) FROM matching) AS matched
  FROM (SELECT max(seq) AS looked_at, count(*) AS stretched FROM stretch) AS s
  LEFT JOIN matching m ON m.total - m.size < $10 OR m.total = m.size
 ORDER BY m.seq"""
END = "SELECT max(seq) FROM gateway.events"
AT_TIME = "SELECT min(seq) - 1 FROM gateway.events WHERE at >= $1"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted; None means all. `types` are whole types or dotted prefixes of them."""

    types: tuple[str, ...] | None = None
    integration: UUID | None = None
    tenant: str | None = None
    connection: UUID | None = None
    partitions: tuple[int, ...] | None = None

    @property
    def open(self) -> bool:
        """Nothing is filtered out."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it lies in the log."""

    seq: int
    id: UUID
    type: str
    time: datetime
    at: datetime
    integration: UUID | None
    connections: tuple[UUID, ...]
    tenants: tuple[str, ...]
    partitions: tuple[int, ...]
    content_type: str
    delivery: str | None  # JSON
    data: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Events after a cursor, the cursor to go on from, and whether there was nothing more to look at."""

    events: Sequence[Event]
    next: Cursor
    at_end: bool


async def earliest(db: Db) -> Cursor:
    """Before the oldest event that is still here."""
    log = await look(db)
    return Cursor(log.epoch, log.dropped_through)


async def latest(db: Db) -> Cursor:
    """After the newest event."""
    log = await look(db)
    return Cursor(log.epoch, await _end(db, log))


async def at_time(db: Db, when: datetime) -> Cursor:
    """Before the first event that was kept at or after `when`."""
    log = await look(db)
    seq = await db.fetchval(AT_TIME, when)
    return Cursor(log.epoch, await _end(db, log) if seq is None else max(seq, log.dropped_through))


async def read(db: Db, after: Cursor, wanted: Filter, limit: int) -> Page:
    """Up to `limit` wanted events after `after`.

    Raises: CursorGone, with `earliest` as the way on: the cursor is of another epoch, behind what retention has
    dropped, or beyond the end of the log.
    """
    limit = min(limit, MAX_EVENTS)
    stretch = limit if wanted.open else max(STRETCH, limit)
    patterns = None if wanted.types is None else [like_prefix(t) for t in wanted.types]
    rows = await db.fetch(
        READ, after.seq, stretch, None if wanted.types is None else list(wanted.types), patterns, wanted.integration,
        wanted.tenant, wanted.connection, None if wanted.partitions is None else list(wanted.partitions),
        limit, MAX_BYTES,
    )  # fmt: skip
    log = await look(db)  # after the rows: what retention dropped in between would be missing among them
    _check(after, log)
    stretched, looked_at, matched = rows[0]["stretched"], rows[0]["looked_at"], rows[0]["matched"]
    if not stretched:
        if after.seq > await _end(db, log):
            raise CursorGone("the cursor is beyond the end of the stream: it was made by a log that is gone",
                             earliest=str(Cursor(log.epoch, log.dropped_through)))  # fmt: skip
        return Page((), after, at_end=True)
    events = [_event(row) for row in rows if row["id"] is not None]
    full = matched == limit or matched > len(events)
    return Page(
        events, Cursor(log.epoch, events[-1].seq if full else looked_at), at_end=not full and stretched < stretch
    )


def like_prefix(prefix: str) -> str:
    r"""A LIKE pattern for "below this dotted prefix": `a.b` matches `a.b.c`, not `a.bc`."""
    escaped = prefix.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"{escaped}.%"


def _check(cursor: Cursor, log: Log) -> None:
    way_on = str(Cursor(log.epoch, log.dropped_through))
    if cursor.epoch != log.epoch:
        raise CursorGone("the database was put back to an earlier point since this cursor was made", earliest=way_on)
    if cursor.seq < log.dropped_through:
        raise CursorGone("the events after this cursor have passed their retention", earliest=way_on)


async def _end(db: Db, log: Log) -> int:
    return max(await db.fetchval(END) or 0, log.dropped_through)


def _event(row: Any) -> Event:
    return Event(
        row["seq"], row["id"], row["type"], row["time"], row["at"], row["integration_id"], tuple(row["connections"]),
        tuple(row["tenants"]), tuple(row["partitions"]), row["content_type"], row["delivery"], row["data"],
    )  # fmt: skip
