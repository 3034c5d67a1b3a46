"""`make bench-rotate`: both rotations of keys at full size, beside readers, killed half-way and resumed.

1. One million sealed token sets of 10,000 tenants. `keyring rotate --data` seals them anew under new data keys.
2. One million data keys. `keyring rotate` wraps them anew under a new key version; then the old version is retired.

Each runs in a process of its own, as an operator starts it, gets SIGKILL when half is done, and is started again. All
the while this process reads random rows as a process that serves does (its keyring follows the file, it counts among
the holders) and compares plaintexts. A read that fails, a row that is lost or counted twice ends the benchmark.
The same through OpenBao's Transit engine, with 20,000 of each.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gateway import embedded, logs
from gateway.database import Database
from gateway.migrate import migrate_for_tests
from gateway.vault import keyring
from gateway.vault.reseal import KEPT_S, SETTLE_S
from gateway.vault.rewrap import BATCH
from gateway.vault.watch import KeyringWatch
from tests import openbao
from tests.benchmarks import report
from tests.benchmarks._rotation import REGION, Bench, Reader, Retires
from tests.vault.rows import access_of, fill, place_of

ROWS = {"local": 1_000_000, "transit": 20_000}


async def measure(bench: Bench, *, tenants: int, rows: int, data_keys: int) -> dict[str, Any]:
    """Fill, rotate both ways beside the reader, retire, and look at everything once more."""
    figures: dict[str, Any] = {"token sets": rows, "tenants": tenants, "data keys": data_keys}
    began = time.monotonic()
    names = [f"tenant-{n:06}" for n in range(tenants)]
    connections = await fill(bench.dsn, bench.data_keys(), names, rows // tenants)
    await bench.database.execute("ANALYZE gateway.tokens")
    await bench.database.execute("ANALYZE gateway.data_keys")
    figures["token sets stored/s"] = len(connections) / (time.monotonic() - began)
    print(f"  {len(connections):,} token sets of {tenants:,} tenants are there")
    watch = KeyringWatch(bench.keys, bench.settings)
    reader = Reader(bench.database, bench.keys, watch, bench.backend, connections)
    reading = asyncio.create_task(reader.run())
    try:
        data = await bench.rotated("data", "rotate", "--data")
        check(data.done == len(connections), f"{data.done} of {len(connections)} token sets were sealed anew")
        await bench.database.execute(
            "UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)", KEPT_S
        )
        await bench.done("rotate", "--data")
        left = await bench.database.fetchval("SELECT count(*) FROM gateway.data_keys")
        check(left == tenants, f"{left - tenants} old data keys are left")

        await bench.add_data_keys(data_keys)
        wrap = await bench.rotated("wrap", "rotate")
        check(wrap.done == data_keys, f"{wrap.done} of {data_keys} data keys were wrapped anew")
        await bench.done("retire", "1")
        if isinstance(bench.backend, Retires):
            await bench.backend.retire(1)  # Transit's version 1; refused while anything is under it
        await asyncio.sleep(1)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    rate = reader.reads / (time.monotonic() - reader.began)
    check(not reader.failures, f"{len(reader.failures)} reads failed: {reader.failures[:3]}")
    check(bench.keys.versions == (2,), f"the reader's keyring holds {bench.keys.versions}")
    await look_at_all(bench, connections)
    return figures | {
        "data keys wrapped anew/s": wrap.per_second, "killed at": wrap.killed_at,
        "token sets sealed anew/s": data.per_second, "killed at (data)": data.killed_at,
        "reads": reader.reads, "reads/s": rate, "failed reads": len(reader.failures), "slowest read ms": reader.slowest_s * 1000,
    }  # fmt: skip


async def look_at_all(bench: Bench, connections: list[UUID]) -> None:
    """A process that starts now, with version 2 only, opens what it likes (every row, up to 20,000 of them)."""
    vault = bench.sealing(keyring.load(bench.settings)).tokens
    chosen = random.Random(11).sample(connections, min(20_000, len(connections)))
    found = await bench.database.fetch("SELECT * FROM gateway.tokens WHERE connection_id = ANY ($1::uuid[])", chosen)
    check(len(found) == len(chosen), "rows are lost")
    await vault.keys.for_opening({(row["tenant_id"], row["data_key_version"]) for row in found})
    for row in found:
        opened = await vault.open(place_of(REGION, row), "access_token", row["data_key_version"], row["sealed_access"])
        check(opened == access_of(row["connection_id"]), "another plaintext")
    under = await bench.database.fetch("SELECT DISTINCT wrapped_under FROM gateway.data_keys")
    check([row[0] for row in under] == [2], "a data key is under an old version")


def check(holds: bool, otherwise: str) -> None:
    """End the benchmark unless it holds."""
    if not holds:
        raise SystemExit(otherwise)


async def run(sizes: dict[str, int], batch: int, vault: openbao.Tenancy | None = None) -> None:
    """On a database of its own."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-") as folder:
        postgres = await embedded.start(Path(folder) / "postgres")
        try:
            await migrate_for_tests(postgres.dsn)
            database = Database(postgres.dsn)
            await database.open()
            try:
                async with Bench(
                    postgres.dsn, Path(folder), database, batch=batch, settle_s=SETTLE_S, vault=vault
                ) as bench:
                    figures = await measure(bench, **sizes)
            finally:
                await database.close()
        finally:
            await postgres.stop()
    report.write(
        "rotate" if vault is None else "rotate_transit",
        figures,
        [
            report.Goal("failed reads", figures["failed reads"], 0, "lower"),
            report.Goal("reads/s beside both rotations", figures["reads/s"], 100, "higher"),
        ],
    )


def main() -> None:
    """Parse, choose the backend, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--backend", choices=[*ROWS], action="append", help="what wraps data keys; unset: one after another"
    )
    parser.add_argument("--rows", type=int, help="sealed token sets; unset: 1,000,000 (transit: 20,000)")
    parser.add_argument("--data-keys", type=int, help="data keys to wrap anew; unset: as many as rows")
    parser.add_argument("--tenants", type=int, help="whose token sets they are; unset: a hundredth of the rows")
    parser.add_argument("--batch", type=int, default=BATCH)
    arguments = parser.parse_args()
    logs.configure("json", "error")
    for backend in arguments.backend or ROWS:
        rows = arguments.rows or ROWS[backend]
        sizes = {
            "rows": rows,
            "tenants": arguments.tenants or max(rows // 100, 1),
            "data_keys": arguments.data_keys or rows,
        }
        print(f"{backend}:")
        if backend == "local":
            asyncio.run(run(sizes, arguments.batch))
            continue
        try:
            with openbao.dev_server() as server:
                asyncio.run(run(sizes, arguments.batch, server.tenancy()))
        except pytest.skip.Exception as why:
            print(f"  skipped: {why}")


if __name__ == "__main__":
    main()
