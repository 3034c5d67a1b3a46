"""`make bench-scheduler`: what a claim costs among a million renewals and among five, and what a scheduler costs that has nothing to do.

1. Claims of 64 connections, spread over the tenants of 8 integrations, from tables of both sizes. The median of 20, warm, for
   each claimed row; the statement and its commit, not the work. The larger table may cost 1.6 times as much (aim: 1.3).
2. A scheduler over the larger one while nothing is due: transactions a second, as PostgreSQL counts them.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway import embedded, logs
from gateway.catalog import Integration
from gateway.database import Database
from gateway.migrate import migrate_for_tests
from providers.contract import Trust
from providers.registry import all_providers
from subscriptions import store
from subscriptions.scheduler import Scheduler
from subscriptions.store import Settled
from tests.benchmarks import report

SIZES = (1_000_000, 5_000_000)
INTEGRATIONS, OF_TENANT = 8, 100  # connections of a tenant: most have a few, so turns are many
ROOM, WARM, CLAIMS = 64, 10, 20
DUE_SHARE, LEAST_DUE = 0.01, 3 * ROOM * (WARM + CLAIMS)
IDLE_S = 30.0
SETTLED_S = 2.0  # until every session has told its counts
CHUNK = 250_000

# Ids are ordered by time, as ours are. A hundredth is due; two thirds fall due on the next day, the others never.
CONNECTIONS = """
INSERT INTO gateway.connections (id, tenant_id, integration_id, state, created_at, updated_at)
SELECT (lpad(to_hex($1::bigint + n), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid, 'tenant-' || (n % $4), $3::uuid,
       'active', now(), now() FROM generate_series($1::integer, $2::integer) AS n"""
RENEWALS = """
INSERT INTO gateway.renewals (connection_id, integration_id, tenant_id, due_at, asked_at)
SELECT id, integration_id, tenant_id, CASE
         WHEN c.chance < $2 THEN now() - (c.chance / $2) * interval '1 hour'
         WHEN c.chance < $2 + 0.67 THEN now() + interval '1 hour' + c.chance * interval '23 hours'
         ELSE 'infinity' END, now()
  FROM (SELECT id, integration_id, tenant_id, random() AS chance FROM gateway.connections WHERE integration_id = $1 OFFSET 0) AS c"""
TURNS = """INSERT INTO gateway.renewal_queues SELECT integration_id, tenant_id, min(due_at) FROM gateway.renewals GROUP BY 1, 2"""
LATER = "UPDATE gateway.clock SET shifted_by = interval '-2 hours'"  # nothing is due then
COMMITS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rows: Sequence[int] = SIZES
    idle_s: float = IDLE_S


class Known:
    """As much of a catalog as a scheduler asks for."""

    def __init__(self, ids: Sequence[UUID]) -> None:
        provider = all_providers()["sandbox"]
        self._all = [
            Integration(
                id=id, name=f"integration-{number}", provider=provider, region="default", client_id="c",
                settings={"base_url": "https://sandbox.example.com"}, unattributed="keep", trust=Trust(secrets=(), endpoint=False),
            )
            for number, id in enumerate(ids)
        ]  # fmt: skip

    def integrations(self) -> list[Integration]:
        return self._all


class Plenty:
    """No breaker is in the way."""

    def room(self, integration: Integration, kind: str) -> int:
        return ROOM


@dataclass(frozen=True, slots=True)
class OneRegion:
    """As much of a region as a scheduler asks for that finds nothing to do."""

    database: Database
    name: str = "default"


async def fill(database: Database, rows: int) -> list[UUID]:
    """So many renewals; the integrations that they are of."""
    ids = [UUID(int=number + 1) for number in range(INTEGRATIONS)]
    each = rows // INTEGRATIONS
    async with database.acquire() as db:
        await db.execute("SET synchronous_commit = off")
        await db.execute("SET statement_timeout = 0")
        for number, id in enumerate(ids):
            for begin in range(0, each, CHUNK):
                end = min(begin + CHUNK, each)
                await _slowly(
                    db, CONNECTIONS, number * each + begin, number * each + end - 1, id, max(each // OF_TENANT, 1)
                )
            await _slowly(db, RENEWALS, id, max(DUE_SHARE, LEAST_DUE / rows))
        await _slowly(db, TURNS)
        for table in ("connections", "renewals", "renewal_queues"):
            await _slowly(db, f"VACUUM (ANALYZE) gateway.{table}")
        await _slowly(db, "CHECKPOINT")
        await db.execute("RESET statement_timeout")
        await db.execute("RESET synchronous_commit")
    return ids


async def _slowly(db: Any, sql: str, *args: Any) -> None:
    await db.execute(sql, *args, timeout=1800)


async def claim(database: Database, ids: Sequence[UUID]) -> tuple[int, float]:
    """One claim: how many rows, and seconds for each. They are settled afterwards, which is not measured."""
    rooms = dict.fromkeys(ids, ROOM)
    began = time.perf_counter()
    claimed = await store.take(database, rooms, ROOM)
    took_s = time.perf_counter() - began
    later = await store.now(database) + 86400.0
    await store.settle(database, [Settled(one.connection, one.fence, None, later, "look", "used") for one in claimed])
    return len(claimed), took_s / max(len(claimed), 1)


async def claims(database: Database, ids: Sequence[UUID]) -> tuple[float, float]:
    """Rows of a claim, and microseconds for each: medians."""
    found = [await claim(database, ids) for _ in range(WARM + CLAIMS)][WARM:]
    return statistics.median(rows for rows, _ in found), statistics.median(s for _, s in found) * 1e6


async def idle(dsn: str, ids: Sequence[UUID], idle_s: float) -> float:
    """Transactions a second of a scheduler that finds nothing due, and of nobody else."""
    database = Database(dsn, size=1)  # a session of its own, whose counts begin with it
    await database.open()
    await database.execute(LATER)
    draining = asyncio.Event()
    region: Any = OneRegion(database)
    catalog: Any = Known(ids)
    renewal: Any = None  # nothing is claimed, so nothing is renewed
    scheduler = Scheduler(region, catalog, renewal, Plenty(), ROOM, draining)
    watching = await database.connect()  # its own questions are counted, too: one
    try:
        await asyncio.sleep(SETTLED_S)
        before = await watching.fetchval(COMMITS)
        began = time.monotonic()
        following = asyncio.create_task(scheduler.follow())
        await asyncio.sleep(idle_s)
        draining.set()
        await following
        lasted_s = time.monotonic() - began
        await asyncio.sleep(SETTLED_S)
        await database.fetchval("SELECT 1")  # has the pool's session tell what it has counted so far
        await asyncio.sleep(SETTLED_S)
        return (await watching.fetchval(COMMITS) - before - 1) / lasted_s
    finally:
        await watching.close()
        await database.close()


async def measure(dsns: Sequence[str], sizes: Sizes) -> tuple[dict[str, Any], list[report.Goal]]:
    """Figures and goals; a migrated, empty database for each size."""
    figures: dict[str, Any] = {}
    costs: list[float] = []
    for dsn, rows in zip(dsns, sizes.rows, strict=True):
        database = Database(dsn)
        await database.open()
        try:
            began = time.monotonic()
            ids = await fill(database, rows)
            print(f"  {rows:,} renewals are there ({time.monotonic() - began:.0f} s)")
            of_claim, us = await claims(database, ids)
            figures |= {f"{rows:,}: rows of a claim": of_claim, f"{rows:,}: us for each": us}
            costs.append(us)
        finally:
            await database.close()
        if rows == max(sizes.rows):
            figures["idle transactions/s"] = await idle(dsn, ids, sizes.idle_s)
    ratio = costs[-1] / costs[0]
    figures["cost of a claimed row, larger / smaller"] = ratio
    print(f"a claimed row costs {ratio:.2f} times as much among {sizes.rows[-1]:,} as among {sizes.rows[0]:,}")
    return figures, [
        report.Goal("cost of a claimed row, larger / smaller", ratio, 1.6, "lower"),
        report.Goal("… aim", ratio, 1.3, "lower"),
        report.Goal("idle transactions/s", figures["idle transactions/s"], 1.0, "lower"),
    ]


async def run(sizes: Sizes) -> None:
    """On databases of its own."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-") as folder:
        postgres = await embedded.start(Path(folder) / "postgres", settings={"autovacuum": "off"})
        try:
            dsns = [await _database(postgres.dsn, f"renewals_{rows}") for rows in sizes.rows]
            figures, goals = await measure(dsns, sizes)
        finally:
            await postgres.stop()
    report.write("scheduler", figures, goals)


async def _database(dsn: str, name: str) -> str:
    from tests.postgres import database_of

    database = Database(dsn, size=1)
    await database.open()
    try:
        await database.execute(f'CREATE DATABASE "{name}"')
    finally:
        await database.close()
    made = database_of(dsn, name)
    await migrate_for_tests(made)
    return made


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=SIZES, help="the two sizes")
    parser.add_argument("--idle-s", type=float, default=IDLE_S)
    arguments = parser.parse_args()
    logs.configure("json", "error")
    asyncio.run(run(Sizes(tuple(arguments.rows), arguments.idle_s)))


if __name__ == "__main__":
    main()
