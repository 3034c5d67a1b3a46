"""Sweeping KV blobs that no row points to: mark, wait, look again, delete.

A blob is there before its row (the commit is yet to come) and, for readers who have just read the old row, a little
longer than its row. So one that no row points to is only marked; if a look at least `margin_s` later, on this
process's monotonic clock, still finds no row, it is deleted. No other clock is asked. A restart forgets the marks,
which only puts off.
"""

from __future__ import annotations

import structlog

from gateway.clock import Clock
from gateway.database import Database
from gateway.vault.kv import SHARDS, KvBlobs

log = structlog.get_logger(__name__)

EVERY_S = 1800.0
MARGIN_S = 3600.0  # no transaction of ours lasts a minute

NAMED = "SELECT kv_path FROM gateway.tokens WHERE kv_path = ANY($1::text[])"


class Sweep:
    """The marks of one region's sweep."""

    def __init__(self, blobs: KvBlobs, database: Database, clock: Clock, margin_s: float = MARGIN_S) -> None:
        self._blobs, self._database, self._clock, self._margin_s = blobs, database, clock, margin_s
        self._marks: dict[str, dict[str, float]] = {}  # by shard: path, and when it was first seen without a row

    async def run_once(self) -> int:
        """Look at every blob; how many were deleted.    Raises: Unavailable, Refused."""
        deleted = sum([await self._shard(shard) for shard in SHARDS])
        if deleted:
            log.info("kv.swept", blobs=deleted)
        return deleted

    async def _shard(self, shard: str) -> int:
        now = self._clock.monotonic()
        listed = await self._blobs.listed(shard)
        named = {row["kv_path"] for row in await self._database.fetch(NAMED, listed)} if listed else set()
        marks = self._marks.get(shard, {})
        marks = {path: marks.get(path, now) for path in listed if path not in named}
        self._marks[shard] = marks
        due = [path for path, since in marks.items() if now - since >= self._margin_s]
        await self._blobs.delete(due)
        return len(due)
