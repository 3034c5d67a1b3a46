"""Is this still the log that the cursors were made for? Looked at with every read, and settled at every start."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.database import Database, Db

LOOK = """SELECT e.epoch, e.identity = gateway.identity() AS same, r.dropped_through
            FROM gateway.epoch e, gateway.retention r"""
# Two processes may find it changed at once: the second waits for the first's row lock and then changes nothing.
SETTLE = """UPDATE gateway.epoch SET epoch = floor(random() * 4294967296)::bigint, identity = gateway.identity()
             WHERE identity <> gateway.identity()"""


@dataclass(frozen=True, slots=True)
class Log:
    """What a reader must know of the log: its epoch, and the last `seq` that retention has dropped."""

    epoch: int
    dropped_through: int


async def look(db: Db) -> Log:
    """The log as it is now; a new epoch is drawn first if the database was put back to an earlier point."""
    row = await db.fetchrow(LOOK)
    if row is not None and not row["same"]:
        await db.execute(SETTLE)
        row = await db.fetchrow(LOOK)
    assert row is not None, "gateway.epoch holds one row"
    return Log(row["epoch"], row["dropped_through"])


async def settle(database: Database) -> Log:
    """`look`, at the start of a process."""
    async with database.acquire() as db:
        return await look(db)
