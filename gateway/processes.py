"""Processes that serve a region, as its database knows them: one row each, with when it was last heard of.

Two questions are asked of it. Does the holder of an open refresh still live? It may have the answer in its memory. And how many
are there, to share what a provider allows among them?
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from gateway.database import Database, Db

EVERY_S = 10.0
SILENT_S = 35  # not heard of for so long: it may be gone
FORGOTTEN_S = 24 * 3600  # longer than a spool's grace can be

BEAT = """INSERT INTO gateway.processes (id, started_at, seen_at) VALUES ($1, gateway.now(), gateway.now())
          ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"""
# It has no share of what a provider allows: an entry that waits for ever (its integration is gone) would take one for ever.
VOUCH = """INSERT INTO gateway.processes (id, started_at, seen_at, dead) VALUES ($1, gateway.now(), gateway.now(), true)
           ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, dead = true"""
FORGET = "DELETE FROM gateway.processes WHERE seen_at < gateway.now() - make_interval(secs => $1)"
# One that leaves with a refresh open stays known: its answer may lie in its spool.
LEAVE = """DELETE FROM gateway.processes p WHERE p.id = $1
              AND NOT EXISTS (SELECT FROM gateway.refreshes r WHERE p.id IN (r.holder, r.spender) AND r.phase <> 'failed')"""
LIVE = "SELECT count(*) FROM gateway.processes WHERE NOT dead AND seen_at > gateway.now() - make_interval(secs => $1)"


class Process:
    """This process in one region."""

    def __init__(self, database: Database, id: UUID) -> None:
        self.id = id
        self._database = database

    async def run_once(self) -> None:
        """Say that it lives.    Raises: Unavailable."""
        await self._database.execute(BEAT, self.id)
        await self._database.execute(FORGET, FORGOTTEN_S)

    async def leave(self) -> None:
        """Say that it ends.    Raises: Unavailable."""
        await self._database.execute(LEAVE, self.id)


async def vouch(db: Db, dead: Collection[UUID]) -> None:
    """Whoever has the spool of dead processes speaks for them: what they have is not lost, and nobody shall act as if it were."""
    for id in dead:
        await db.execute(VOUCH, id)


async def live(db: Db) -> int:
    """How many there are, this one among them."""
    return max(int(await db.fetchval(LIVE, SILENT_S)), 1)
