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
from gateway.stream.cursor import Cursor, mark_of
from gateway.stream.epoch import Log, look

MAX_EVENTS = 1000
MAX_BYTES = 8 * 1024 * 1024  # of data in one page; a larger event comes alone
STRETCH = 5000  # events that one filtered read looks at

# $3, $4: types, whole and as LIKE patterns of what lies below. The window sum ends a page by its bytes.
# `stood_on` is what stands at the cursor now, `looked_at_id` what stands at the next one.
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
SELECT m.*, s.looked_at, s.stretched, s.looked_at_id, (SELECT count(*) FROM matching) AS matched,
       (SELECT e.id FROM gateway.events e WHERE e.seq = $1 LIMIT 1) AS stood_on
  FROM (SELECT max(seq) AS looked_at, count(*) AS stretched,
               (SELECT id FROM stretch ORDER BY seq DESC LIMIT 1) AS looked_at_id FROM stretch) AS s
  LEFT JOIN matching m ON m.total <= $10 OR m.total = m.size
 ORDER BY m.seq"""
END = "SELECT seq, id FROM gateway.events ORDER BY seq DESC LIMIT 1"
FIRST_SINCE = "SELECT min(seq) FROM gateway.events WHERE at >= $1"
BEFORE = "SELECT seq, id FROM gateway.events WHERE seq < $1 ORDER BY seq DESC LIMIT 1"


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

    def cursor(self, epoch: int) -> Cursor:
        """After this event."""
        return Cursor(epoch, self.seq, mark_of(self.id))


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
    return await _end(db, await look(db))


async def at_time(db: Db, when: datetime) -> Cursor:
    """Before the first event that was kept at or after `when`."""
    log = await look(db)
    first = await db.fetchval(FIRST_SINCE, when)
    return await _end(db, log) if first is None else _at(log, await db.fetchrow(BEFORE, first))


async def read(db: Db, after: Cursor, wanted: Filter, limit: int, most_bytes: int = MAX_BYTES) -> Page:
    """Up to `limit` wanted events after `after`, with at most `most_bytes` of data unless one alone is larger.

    Raises: CursorGone, with `earliest` as the way on: the cursor is of another epoch, behind what retention has
    dropped, beyond the end of the log, or another event stands there now.
    """
    limit = max(1, min(limit, MAX_EVENTS))
    stretch = limit if wanted.open else max(STRETCH, limit)
    patterns = None if wanted.types is None else [like_prefix(t) for t in wanted.types]
    rows = await db.fetch(
        READ, after.seq, stretch, None if wanted.types is None else list(wanted.types), patterns, wanted.integration,
        wanted.tenant, wanted.connection, None if wanted.partitions is None else list(wanted.partitions),
        limit, most_bytes,
    )  # fmt: skip
    log = await look(db)  # after the rows: what retention dropped in between would be missing among them
    check_log(after, log, rows[0]["stood_on"])
    if after.seq < log.dropped_through:
        raise _gone(log, "the events after this cursor have passed their retention")
    stretched, looked_at, matched = rows[0]["stretched"], rows[0]["looked_at"], rows[0]["matched"]
    if not stretched:
        if after.seq > (await _end(db, log)).seq:
            raise _gone(log, "the cursor is beyond the end of the stream: it was made by a log that is gone")
        return Page((), after, at_end=True)
    events = [_event(row) for row in rows if row["id"] is not None]
    full = matched == limit or matched > len(events)
    if full:
        return Page(events, events[-1].cursor(log.epoch), at_end=False)
    return Page(events, Cursor(log.epoch, looked_at, mark_of(rows[0]["looked_at_id"])), at_end=stretched < stretch)


def like_prefix(prefix: str) -> str:
    r"""A LIKE pattern for "below this dotted prefix": `a.b` matches `a.b.c`, not `a.bc`."""
    escaped = prefix.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"{escaped}.%"


def check_log(cursor: Cursor, log: Log, standing: UUID | None) -> None:
    """Raise CursorGone if `cursor` was made by another log; `standing` is the id of the event at its `seq`, if any."""
    if cursor.epoch != log.epoch or not cursor.fits(standing):
        raise _gone(log, "the database was put back to an earlier point since this cursor was made")


def _gone(log: Log, why: str) -> CursorGone:
    return CursorGone(why, earliest=str(Cursor(log.epoch, log.dropped_through)))


def _at(log: Log, row: Any | None) -> Cursor:
    """After the event in `row`; where there is none, or retention takes it just now: at the edge."""
    if row is None or row["seq"] <= log.dropped_through:
        return Cursor(log.epoch, log.dropped_through)
    return Cursor(log.epoch, row["seq"], mark_of(row["id"]))


async def _end(db: Db, log: Log) -> Cursor:
    return _at(log, await db.fetchrow(END))


def _event(row: Any) -> Event:
    return Event(
        row["seq"], row["id"], row["type"], row["time"], row["at"], row["integration_id"], tuple(row["connections"]),
        tuple(row["tenants"]), tuple(row["partitions"]), row["content_type"], row["delivery"], row["data"],
    )  # fmt: skip
