"""What the follower reads, and what it has set aside: SQL beside the function that runs it.

`events_signal` is a partial index over the items that ingest marked, so reading them costs what there is of them, however
many other deliveries lie between. `end` is taken in the same statement: seq order is commit order, so once the signals of a
snapshot are done, everything up to its end is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.database import Db

LOOK_BACK_S = 900  # before a connection that no session made


@dataclass(frozen=True, slots=True)
class Marked:
    """An event that may say something about a grant, as it lies on the log."""

    seq: int
    id: UUID
    type: str
    time: datetime  # when it happened, as far as is known
    integration_id: UUID | None
    connections: tuple[UUID, ...]
    partitions: tuple[int, ...]
    accounts: tuple[UUID, ...]
    content_type: str
    delivery: str | None  # JSON; None: it is one of our own
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Read:
    """Marked events in order, and the last event of all when they were read; None: the log is empty."""

    events: Sequence[Marked]
    end: tuple[int, UUID] | None
    redrive: bool  # something that was set aside is to be tried again


COLUMNS = "e.seq, e.id, e.type, e.time, e.integration_id, e.connections, e.partitions, e.accounts, e.content_type, e.delivery, e.data"
READ = f"""
SELECT last.seq AS end_seq, last.id AS end_id, EXISTS (SELECT FROM gateway.set_aside WHERE redrive) AS end_redrive, e.*
  FROM (SELECT seq, id FROM gateway.events ORDER BY seq DESC LIMIT 1) AS last
  LEFT JOIN LATERAL (SELECT {COLUMNS} FROM gateway.events e
                      WHERE e.signal AND e.seq > $1 AND e.partitions && $2::smallint[] ORDER BY e.seq LIMIT $3) AS e ON true
 ORDER BY e.seq"""  # noqa: S608 - a constant
# What matched none, by its index; and, since a session says from when on, what was told of the connection as it was before.
OF_ITS = "e.accounts && ARRAY(SELECT a.account_hash FROM gateway.connection_accounts a WHERE a.connection_id = $2)"
BEFORE = f"""
WITH session AS (SELECT max(s.created_at) AS began FROM gateway.connect_sessions s
                  WHERE s.connection_id = $2 AND s.state = 'completed')
SELECT {COLUMNS} FROM gateway.events e
 WHERE e.signal AND e.connections = '{{}}' AND e.integration_id = $3 AND e.seq < $1 AND {OF_ITS}
   AND e.at >= coalesce((SELECT began FROM session), (SELECT gateway.now() - make_interval(secs => $4)))
 UNION ALL
SELECT {COLUMNS} FROM gateway.events e
 WHERE e.signal AND $2 = ANY (e.connections) AND e.integration_id = $3 AND e.seq < $1 AND {OF_ITS}
   AND e.at >= (SELECT began FROM session)
 ORDER BY seq"""  # noqa: S608 - likewise
ACCOUNTS = """SELECT connection_id, account_hash FROM gateway.connection_accounts
               WHERE connection_id = ANY ($1::uuid[]) AND account_hash = ANY ($2::uuid[])"""
SET_ASIDE = """INSERT INTO gateway.set_aside AS s (event_id, seq, integration_id, type, at, error)
               VALUES ($1, $2, $3, $4, gateway.now(), $5)
               ON CONFLICT (event_id) DO UPDATE SET error = excluded.error, tries = s.tries + 1, redrive = false, at = excluded.at"""
WANTED = "SELECT event_id, seq FROM gateway.set_aside WHERE redrive ORDER BY seq LIMIT 1 FOR UPDATE SKIP LOCKED"
AT = f"SELECT {COLUMNS} FROM gateway.events e WHERE e.seq = $1 AND e.id = $2"  # noqa: S608 - likewise
DONE = "DELETE FROM gateway.set_aside WHERE event_id = $1"
FAILED = "UPDATE gateway.set_aside SET error = $2, tries = tries + 1, redrive = false, at = gateway.now() WHERE event_id = $1"
REDRIVE = """UPDATE gateway.set_aside SET redrive = true WHERE ($1::uuid IS NULL OR event_id = $1) RETURNING event_id"""
LISTED = """SELECT event_id, seq, integration_id, type, at, error, tries, redrive FROM gateway.set_aside
             WHERE ($1::uuid IS NULL OR event_id > $1) ORDER BY event_id LIMIT $2"""
COUNT = "SELECT count(*) FROM gateway.set_aside"


@dataclass(frozen=True, slots=True)
class SetAside:
    """A delivery that could not be digested."""

    event_id: UUID
    seq: int
    integration_id: UUID | None
    type: str
    at: datetime
    error: str
    tries: int
    redrive: bool


async def read(db: Db, after: int, partitions: Sequence[int], limit: int) -> Read:
    """Marked events of these partitions behind `after`."""
    rows = await db.fetch(READ, after, list(partitions), limit)
    if not rows:
        return Read((), None, False)
    end = (rows[0]["end_seq"], rows[0]["end_id"])
    return Read([_marked(row) for row in rows if row["seq"] is not None], end, rows[0]["end_redrive"])


async def before(db: Db, seq: int, connection: UUID, integration: UUID) -> list[Marked]:
    """What came for its accounts while it was under way (PROTOCOLS 3).

    It matched no connection then, or this one as it was before its reconnect, and was heard of the former generation.
    """
    return [_marked(row) for row in await db.fetch(BEFORE, seq, connection, integration, LOOK_BACK_S)]


async def accounts(db: Db, connections: Collection[UUID], hashes: Collection[UUID]) -> Mapping[UUID, set[UUID]]:
    """Which of these hashes are accounts of these connections, by connection."""
    found: dict[UUID, set[UUID]] = {}
    for row in await db.fetch(ACCOUNTS, list(connections), list(hashes)):
        found.setdefault(row["connection_id"], set()).add(row["account_hash"])
    return found


async def set_aside(tx: Db, event: Marked, error: str) -> None:
    """It cannot be digested: out of the way of those behind it, and not forgotten."""
    await tx.execute(SET_ASIDE, event.id, event.seq, event.integration_id, event.type, error)


async def wanted(tx: Db) -> tuple[UUID, Marked | None] | None:
    """One that is to be tried again, locked; the event is None where retention has dropped it."""
    row = await tx.fetchrow(WANTED)
    if row is None:
        return None
    event = await tx.fetchrow(AT, row["seq"], row["event_id"])
    return row["event_id"], None if event is None else _marked(event)


async def done(tx: Db, event_id: UUID) -> None:
    await tx.execute(DONE, event_id)


async def failed(db: Db, event_id: UUID, error: str) -> None:
    """It was tried again, and cannot be digested still."""
    await db.execute(FAILED, event_id, error)


async def redrive(db: Db, event_id: UUID | None) -> int:
    """Have one (or all) tried again; how many."""
    return len(await db.fetch(REDRIVE, event_id))


async def listed(db: Db, *, after: UUID | None, limit: int) -> list[SetAside]:
    """What is set aside, in the order of its ids."""
    return [SetAside(**dict(row)) for row in await db.fetch(LISTED, after, limit)]


async def count(db: Db) -> int:
    """How many are set aside."""
    return int(await db.fetchval(COUNT))


def _marked(row: Any) -> Marked:
    lists = {name: tuple(row[name]) for name in ("connections", "partitions", "accounts")}
    return Marked(**{name: value for name, value in dict(row).items() if not name.startswith("end_")} | lists)
