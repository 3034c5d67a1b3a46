"""Rotations of keys: what is under way, how far it has come, and the loop that takes it step by step to its end.

A step is one batch and one transaction, which also moves the row: a rotation that was killed goes on behind the last
batch that was committed, in whatever process takes it up. Every write is a compare-and-swap, so two that work at once
waste each other's time and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

import asyncpg

from gateway.database import Database, Db

Kind = Literal["wrap", "data"]

IDLE_S = 30.0  # a rotation that nobody moved for so long is anybody's
PAUSE_S = 0.5
TRIES = 5

# Another process was at the same rows: the batch was rolled back, and is read anew.
CROSSED = (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError, asyncpg.ForeignKeyViolationError)

COLUMNS = "kind, target, began_at, touched_at, ended_at, total, done, broken, position"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One rotation as its row tells it."""

    kind: Kind
    target: int
    began_at: datetime
    touched_at: datetime
    ended_at: datetime | None
    total: int
    done: int
    broken: int
    position: Mapping[str, Any]

    @property
    def left(self) -> int:
        return 0 if self.ended_at is not None else max(self.total - self.done, 0)

    @property
    def waiting(self) -> bool:
        """Nothing to do but to let time pass."""
        return bool(self.position.get("waiting"))


class Job(Protocol):
    """Work of one kind in one region."""

    async def run_once(self) -> Rotation | None:
        """One step. None: there is no such rotation."""


async def run(
    job: Job, tell: Callable[[Rotation], None], *, until: Callable[[Rotation], bool] = lambda _: False
) -> Rotation | None:
    """Step by step to the end (or `until`), telling each.    Raises: Unavailable."""
    while True:
        rotation = await _step(job)
        if rotation is None:
            return None
        tell(rotation)
        if rotation.ended_at is not None or until(rotation):
            return rotation
        if rotation.waiting:
            await asyncio.sleep(PAUSE_S)


async def _step(job: Job) -> Rotation | None:
    for _ in range(TRIES):
        try:
            return await job.run_once()
        except CROSSED:
            await asyncio.sleep(PAUSE_S)
    return await job.run_once()


# One that is under way goes on as it is; a new target (the key was rotated again meanwhile) begins anew.
BEGIN = """INSERT INTO gateway.key_rotations AS r (kind, target, began_at, touched_at, total)
           VALUES ($1, $2, gateway.now(), gateway.now(), 0)
           ON CONFLICT (kind) DO UPDATE SET target = excluded.target, began_at = excluded.began_at,
             touched_at = excluded.touched_at, ended_at = NULL, total = 0, done = 0, broken = 0, position = '{}'
            WHERE r.ended_at IS NOT NULL OR r.kind = 'wrap' AND r.target <> excluded.target
           RETURNING true"""


async def begin(tx: Db, kind: Kind, target: int) -> tuple[Rotation, bool]:
    """The rotation under way, and whether it is a new one."""
    new = await tx.fetchval(BEGIN, kind, target)
    found = await get(tx, kind)
    assert found is not None
    return found, bool(new)


GET = f"SELECT {COLUMNS} FROM gateway.key_rotations WHERE kind = $1"  # noqa: S608 - a constant of this file
ALL = f"SELECT {COLUMNS} FROM gateway.key_rotations ORDER BY kind DESC"  # noqa: S608 - the same
IDLE = ALL.replace("ORDER", "WHERE ended_at IS NULL AND touched_at < gateway.now() - make_interval(secs => $1) ORDER")


async def get(db: Db, kind: Kind) -> Rotation | None:
    row = await db.fetchrow(GET, kind)
    return None if row is None else _rotation(row)


async def all_of(db: Db) -> list[Rotation]:
    """Each kind's: under way, or done last."""
    return [_rotation(row) for row in await db.fetch(ALL)]


async def idle(db: Database) -> list[Rotation]:
    """Those that are under way and have stood still: their process was killed, or only lets time pass."""
    return [_rotation(row) for row in await db.fetch(IDLE, IDLE_S)]


MOVE = f"""UPDATE gateway.key_rotations SET done = done + $3, total = greatest(total, done + $3) + $4, broken = $5, position = $6,
              touched_at = gateway.now(), ended_at = CASE WHEN $7 THEN gateway.now() END
            WHERE kind = $1 AND began_at = $2 AND ended_at IS NULL RETURNING {COLUMNS}"""  # noqa: S608 - a constant of this file


async def move(
    tx: Db, rotation: Rotation, position: Mapping[str, Any], *, done: int = 0, more: int = 0, broken: int | None = None,
    ended: bool = False,
) -> Rotation:  # fmt: skip
    """Note a step: `done` more are done, `more` were found to be done."""
    row = await tx.fetchrow(
        MOVE, rotation.kind, rotation.began_at, done, more, rotation.broken if broken is None else broken,
        json.dumps(position), ended,
    )  # fmt: skip
    if row is not None:
        return _rotation(row)
    found = await get(tx, rotation.kind)  # ended meanwhile, or begun anew, by another process
    assert found is not None
    return found


def _rotation(row: Any) -> Rotation:
    return Rotation(**{**dict(row), "position": json.loads(row["position"])})
