"""The one way onto the log. `append` is the last statement of its transaction; `gateway.append` (SQL) says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.database import Db

# What came back stands in arrays: one row an event would cost more to read than the rest of the answer.
APPEND = """
SELECT ids, seqs, matched, dropped, waited_s
  FROM gateway.append($1::uuid[], $2::uuid[], $3::int[], $4::timestamptz[], $5::text[], $6::text[], $7::bytea[],
                      $8::text[], $9::int[], $10::uuid[], $11::uuid[], $12::bool[], $13::bool[], $14::text[])"""


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
    sent = events if len(distinct) == len(events) else [event for event in events if distinct[event.key] is event]
    row = await db.fetchrow(APPEND, *_columns(sent))
    if row is None or row["waited_s"] is None:
        return [DUPLICATE] * len(events)
    seqs, matched, waited_s = row["seqs"] or (), row["matched"] or (), row["waited_s"]
    kept = [Kept(seq, False, match, waited_s) for seq, match in zip(seqs, matched, strict=True)]
    if len(kept) == len(events):
        return kept
    fresh = dict(zip((event.id for event in sent) if row["ids"] is None else row["ids"], kept, strict=False))
    fresh |= {id: Kept(None, False, False, waited_s) for id in row["dropped"] or ()}
    return [fresh.get(event.id, DUPLICATE) for event in events]


def _columns(events: Sequence[NewEvent]) -> tuple[list[Any], ...]:
    """The arguments of `gateway.append`. What many events have in common (their kind) is sent once."""
    known: dict[tuple[Any, ...], int] = {}
    kinds = [
        known.setdefault(
            (e.type, e.window_s, e.integration, e.connection, e.drop_unmatched, e.signal, e.content_type),
            len(known) + 1,
        )
        for e in events
    ]
    return (
        [e.id for e in events],
        [e.key for e in events],
        kinds,
        [e.time for e in events],
        ["{" + ",".join([a.hex for a in e.accounts]) + "}" for e in events],
        [None if e.delivery is None else e.delivery.decode() for e in events],
        [e.data for e in events],
        *([*column] for column in zip(*known, strict=True)),
    )
