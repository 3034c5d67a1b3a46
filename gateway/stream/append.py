"""The one way onto the log. `append` is the last statement of its transaction; `gateway.append` (SQL) says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database import Db

# In arrays: one row an event would cost more to read than the rest of the answer.
APPEND = """
SELECT array_agg(event_id) AS ids, array_agg(event_seq) AS seqs, array_agg(matched) AS matched,
       extract(epoch FROM max(waited))::float8 AS waited_s
  FROM gateway.append($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::timestamptz[], $6::uuid[], $7::uuid[],
                      $8::bool[], $9::bool[], $10::text[], $11::text[], $12::bytea[], $13::text[])"""


@dataclass(slots=True)  # not frozen: that would treble the cost of making one, and the hot path makes many
class NewEvent:
    """An event that is about to be kept."""

    id: UUID
    key: UUID  # what makes it the same event when it comes again; its own id where nothing does
    window_s: int  # how long `key` is remembered, seconds
    type: str  # CloudEvents type
    time: datetime  # when it happened, as far as is known
    integration: UUID | None
    connection: UUID | None  # the one it belongs to; None: looked up by `accounts`
    accounts: tuple[UUID, ...]  # keyed hashes
    drop_unmatched: bool  # nobody wants it while it matches no connection
    signal: bool
    content_type: str
    delivery: bytes | None  # JSON: headers, verification, digests; None for events of our own
    data: bytes


@dataclass(slots=True)
class Kept:
    """What became of an event. `seq` None and not `duplicate`: it matched no connection and was to be dropped."""

    seq: int | None
    duplicate: bool
    matched: bool
    waited_s: float = 0.0  # time spent on the append lock by the batch


DUPLICATE = Kept(None, True, False)


async def append(db: Db, events: Sequence[NewEvent]) -> list[Kept]:
    """Keep `events` in order, each key once. In a transaction this must be the last statement: it takes the lock.

    Raises: asyncpg errors of classes 22, 23, 54 where a value cannot be stored (NUL in text, say).
    """
    distinct = {event.key: event for event in reversed(events)}  # a key counts once within a batch as well: its first
    row = await db.fetchrow(APPEND, *_columns(events if len(distinct) == len(events) else _in_order(events, distinct)))
    if row is None or row["ids"] is None:
        return [DUPLICATE] * len(events)
    waited_s = row["waited_s"]
    fresh = {
        event: Kept(seq, False, matched, waited_s)
        for event, seq, matched in zip(row["ids"], row["seqs"], row["matched"], strict=True)
    }
    return [fresh.get(event.id, DUPLICATE) for event in events]


def _in_order(events: Sequence[NewEvent], distinct: Mapping[UUID, NewEvent]) -> list[NewEvent]:
    return [event for event in events if distinct[event.key] is event]


def _columns(events: Sequence[NewEvent]) -> tuple[list[object], ...]:
    return (
        [e.id for e in events],
        [e.key for e in events],
        [e.window_s for e in events],
        [e.type for e in events],
        [e.time for e in events],
        [e.integration for e in events],
        [e.connection for e in events],
        [e.drop_unmatched for e in events],
        [e.signal for e in events],
        [e.content_type for e in events],
        [None if e.delivery is None else e.delivery.decode() for e in events],
        [e.data for e in events],
        ["{" + ",".join([a.hex for a in e.accounts]) + "}" for e in events],
    )
