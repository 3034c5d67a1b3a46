"""The history of a connection: what every signal led to, those that changed nothing among them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from gateway.connections.machine import Signal
from gateway.connections.states import State
from gateway.database import Db

Source = Literal["delivery", "token_answer", "report", "probe", "consent", "import", "operator", "clock"]
# `contested`: a check was asked for, and decides; `refuted`: it found the signal untrue; `guarded`: it went onto the
# provider's condition; `asked`: weak evidence, a check was asked for and nothing else.
Outcome = Literal["moved", "stays", "stale", "contested", "refuted", "guarded", "illegal", "asked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One signal and what it led to. The fields are the table's columns but for `at`."""

    id: UUID
    connection_id: UUID
    access_profile: str | None  # None: the connection itself, which has no grants
    signal: Signal | Literal["hint"]
    outcome: Outcome
    cause: str
    source: Source
    evidence: UUID | None
    code: str | None
    occurred_at: datetime | None
    generation: int | None
    token_version: int | None
    state_before: State
    state_after: State


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry, and when it was made."""

    entry: Entry
    at: datetime


_COLUMNS = ", ".join(field.name for field in fields(Entry))
ADD = f"""INSERT INTO gateway.history (at, {_COLUMNS})
          SELECT gateway.now(), * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
                 $7::text[], $8::uuid[], $9::text[], $10::timestamptz[], $11::int[], $12::int[], $13::text[], $14::text[])"""  # noqa: S608 - names of our own
HEARD = """SELECT DISTINCT evidence, connection_id, access_profile, signal, generation FROM gateway.history
            WHERE evidence = ANY ($1::uuid[]) AND connection_id = ANY ($2::uuid[])"""
PAGE = f"""SELECT at, {_COLUMNS} FROM gateway.history
            WHERE connection_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"""  # noqa: S608 - likewise
# The time is asked for once: a volatile function in a condition keeps the index from being used.
FORGET = "DELETE FROM gateway.history WHERE at < (SELECT gateway.now()) - make_interval(days => $1)"

Heard = tuple[UUID, UUID, str | None, str, int | None]  # evidence, connection, access profile, signal, generation


async def add(tx: Db, entries: Sequence[Entry]) -> None:
    """Keep entries, in their order: ids of one millisecond have none of their own, and a page is read by them."""
    if entries:
        columns = {field.name: [getattr(entry, field.name) for entry in entries] for field in fields(Entry)}
        await tx.execute(ADD, *(columns | {"id": sorted(columns["id"])}).values())


async def heard(tx: Db, evidence: Collection[UUID], connections: Collection[UUID]) -> set[Heard]:
    """Which signals of these events were heard already: a delivery that is read twice speaks once for a generation."""
    if not evidence:
        return set()
    rows = await tx.fetch(HEARD, list(evidence), list(connections))
    return {
        (row["evidence"], row["connection_id"], row["access_profile"], row["signal"], row["generation"]) for row in rows
    }


async def page(db: Db, connection_id: UUID, *, before: UUID | None, limit: int) -> list[Kept]:
    """Newest first."""
    return [_kept(row) for row in await db.fetch(PAGE, connection_id, before, limit)]


async def forget(db: Db, days: int) -> None:
    """Drop what is older."""
    await db.execute(FORGET, days)


def _kept(row: Any) -> Kept:
    told = dict(row)
    at = told.pop("at")
    return Kept(Entry(**told), at)
