"""Keeping the log in shape: days made ahead, old days dropped, old dedupe keys swept."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import asyncpg
import structlog

from gateway import metrics
from gateway.database import Database, Db

log = structlog.get_logger(__name__)

AHEAD_DAYS = 7
SWEEP_PAGES = 2000  # of 8 KiB, at the least, in one pass of the sweep: about 16 MB
SWEEP_PASSES = 24  # a key is looked at again after as many passes at the most, however large the table is
SWEEP_CHUNK = 200  # pages in one statement: short transactions

# Somebody reads for hours (a dump), or a cancel: the days stay until the next run, which goes on where this one ended.
IN_THE_WAY = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError)

MAKE_DAYS = "SELECT gateway.make_partitions($1)"
DAYS = """SELECT c.relname AS name, i.inhdetachpending AS pending
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
           WHERE i.inhparent = 'gateway.events'::regclass ORDER BY c.relname"""
LOOSE = """SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'gateway' AND c.relkind = 'r' AND c.relname ~ '^events_[0-9]{8}$'
              AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)"""
TODAY = "SELECT (gateway.now() AT TIME ZONE 'UTC')::date"
SIZE = """SELECT pg_relation_size('gateway.dedupe') / current_setting('block_size')::int AS pages, swept_to
            FROM gateway.retention"""
SWEPT = "UPDATE gateway.retention SET swept_to = $1"
SWEEP = """DELETE FROM gateway.dedupe
            WHERE ctid >= $1::text::tid AND ctid < $2::text::tid AND expires_at < (SELECT gateway.now())"""


def day_of(name: str) -> date:
    """The day that a partition holds, from its name."""
    return datetime.strptime(name.removeprefix("events_"), "%Y%m%d").replace(tzinfo=UTC).date()


class Upkeep:
    """Run by every process; an advisory lock lets one do it at a time."""

    def __init__(self, database: Database, retention_days: int, sweep_pages: int = SWEEP_PAGES) -> None:
        self._database, self._retention_days, self._sweep_pages = database, retention_days, sweep_pages

    async def ready(self) -> None:
        """Make days ahead, so that a process which starts can keep deliveries at once; the rest may take its time."""
        async with self._database.acquire() as db:
            await db.execute(MAKE_DAYS, AHEAD_DAYS)
            metrics.PARTITIONS_AHEAD_DAYS.set(await self.days_ahead(db))

    async def run_once(self) -> None:
        """Make days ahead, drop those past retention, sweep a stretch of dedupe keys."""
        async with self._database.acquire() as db:
            if not await db.fetchval("SELECT pg_try_advisory_lock(hashtext('posthouse.upkeep'))"):
                return
            try:
                await db.execute(MAKE_DAYS, AHEAD_DAYS)
                try:
                    await self.drop_old_days(db)
                except IN_THE_WAY as error:
                    log.warning("stream.days_in_use", error=type(error).__name__)
                await self.sweep(db)
            finally:
                await db.execute("SELECT pg_advisory_unlock(hashtext('posthouse.upkeep'))")
            metrics.PARTITIONS_AHEAD_DAYS.set(await self.days_ahead(db))

    async def days_ahead(self, db: Db) -> int:
        """How many days from today on have their partition already; under 1 is an alert."""
        days = [day_of(row["name"]) for row in await db.fetch(DAYS)]
        return (max(days) - cast(date, await db.fetchval(TODAY))).days if days else -1

    async def drop_old_days(self, db: Db) -> list[date]:
        """Detach and drop every day that is wholly past retention. Readers of it are told by `dropped_through`.

        Raises: asyncpg's errors of IN_THE_WAY, after `lock_timeout` at the latest.
        """
        oldest_kept = cast(date, await db.fetchval(TODAY)) - timedelta(days=self._retention_days)
        dropped = []
        for row in await db.fetch(DAYS):
            if day_of(row["name"]) < oldest_kept:
                await self._detach(db, row["name"], pending=row["pending"])
        for row in await db.fetch(LOOSE):  # also those whose process died between DETACH and DROP
            if day_of(row["name"]) < oldest_kept:
                await db.execute(f"DROP TABLE gateway.{row['name']}")  # the name fits LOOSE's pattern
                dropped.append(day_of(row["name"]))
                log.info("stream.day_dropped", day=str(day_of(row["name"])))
        return dropped

    async def sweep(self, db: Db) -> int:
        """Delete expired dedupe keys from the next stretch of pages; the table has no index on the time.

        A key may outlive its window until the walk comes round: it then deduplicates a little longer than promised.
        """
        size = await db.fetchrow(SIZE)
        assert size is not None, "gateway.retention holds one row"
        pages = int(size["pages"])
        page = size["swept_to"] if size["swept_to"] < pages else 0
        last = min(page + max(self._sweep_pages, -(-pages // SWEEP_PASSES)), pages)
        deleted = 0
        while page < last:
            upto = min(page + SWEEP_CHUNK, last)
            status = await db.execute(SWEEP, f"({page},0)", f"({upto},0)")
            deleted += int(status.rsplit(" ", 1)[1])
            page = upto
        await db.execute(SWEPT, page)
        return deleted

    async def _detach(self, db: Db, name: str, *, pending: bool) -> None:
        # First the edge, then the rows: a reader who finds them gone finds the edge moved too.
        await db.execute(
            f"UPDATE gateway.retention SET dropped_through = "  # noqa: S608 - the name comes from the catalog
            f"greatest(dropped_through, coalesce((SELECT max(seq) FROM gateway.{name}), 0))"
        )
        how = "FINALIZE" if pending else "CONCURRENTLY"
        await cast(Any, db).execute(f"ALTER TABLE gateway.events DETACH PARTITION gateway.{name} {how}")
