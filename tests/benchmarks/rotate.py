"""`make bench-rotate`: both rotations of keys at full size, beside readers, killed half-way and resumed.

1. One million sealed token sets of 10,000 tenants. `keyring rotate --data` seals them anew under new data keys.
2. One million data keys. `keyring rotate` wraps them anew under a new key version; then the old version is retired.

Each runs in a process of its own, as an operator starts it, gets SIGKILL when half is done, and is started again. All
the while this process reads random rows as a process that serves does (its keyring follows the file, it counts among
the holders) and compares plaintexts. A read that fails, a row that is lost or counted twice ends the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr

from gateway import embedded, ids, logs
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.migrate import migrate_for_tests
from gateway.settings import Settings
from gateway.vault import choose, files, holders, keyring
from gateway.vault.backend import KeyBackend
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Keyring
from gateway.vault.reseal import KEPT_S, SETTLE_S
from gateway.vault.rewrap import BATCH
from gateway.vault.tokens import TokenVault
from gateway.vault.watch import KeyringWatch
from tests import openbao
from tests.benchmarks import report
from tests.vault.rows import NOW, access_of, fill, place_of, refresh_of

REGION = "default"
READS_PER_S = 200
MEMORY = 2_000  # data keys that the reader keeps: most of its reads unwrap one
CHUNK = 20_000
ROW = "SELECT * FROM gateway.tokens WHERE connection_id = $1"


@dataclass
class Reader:
    """Reads random rows until it is told to stop, as one of the processes that serve."""

    database: Database
    keys: Keyring
    watch: KeyringWatch
    backend: KeyBackend
    connections: list[UUID]
    reads: int = 0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    async def run(self) -> None:
        vault = TokenVault(DataKeys(REGION, self.database, self.backend, SystemClock(), most=MEMORY))
        me, told, chance = ids.uuid7(SystemClock().now()), 0.0, random.Random(7)
        due = time.monotonic()
        while True:
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                self.watch.look()
                await holders.tell(self.database, me, "bench", self.keys)
            began = time.monotonic()
            await self._read(vault, chance.choice(self.connections))
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            due = max(due + 1 / READS_PER_S, time.monotonic() - 1)
            await asyncio.sleep(max(due - time.monotonic(), 0))

    async def _read(self, vault: TokenVault, connection: UUID) -> None:
        try:
            row = await self.database.fetchrow(ROW, connection)
            place, version = place_of(REGION, row), row["data_key_version"]
            access = await vault.open(place, "access_token", version, row["sealed_access"])
            refresh = await vault.open(place, "refresh_token", version, row["sealed_refresh"])
            if (access, refresh) != (access_of(connection), refresh_of(connection)):
                self.failures.append("another plaintext")
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        self.reads += 1


@runtime_checkable
class Retires(Protocol):
    """A key backend that keeps versions of its own."""

    async def retire(self, version: int) -> None: ...


@dataclass
class Rotated:
    """What a rotation did in its two lives."""

    killed_at: int
    done: int
    per_second: float


class Bench:
    """One deployment: a database, a keyring's file."""

    def __init__(
        self,
        dsn: str,
        home: Path,
        database: Database,
        *,
        batch: int,
        settle_s: float,
        vault: openbao.Tenancy | None = None,
    ) -> None:
        """`vault`: a place in an OpenBao whose Transit engine is the key backend; None: the local keyring is."""
        self.dsn, self.home, self.database, self.batch, self.settle_s = dsn, home, database, batch, settle_s
        self.settings = Settings(_env_file=None, database_url=SecretStr(dsn), home=home)
        if vault is not None:
            self.settings = vault.settings(self.settings, key_backend="transit")
        files.create(files.path(self.settings), keyring.generate().to_json())
        self.keys = keyring.load(self.settings)
        self.bao = choose.openbao(self.settings, SystemClock())
        self.backend = self.sealing(self.keys).backend

    def sealing(self, keys: Keyring) -> choose.Sealing:
        """As a process with these settings seals."""
        return choose.Sealing.of(REGION, self.database, keys, self.settings, SystemClock(), self.bao)

    async def __aenter__(self) -> Bench:
        if self.bao is not None:
            await self.bao.enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.bao is not None:
            await self.bao.close()

    @property
    def environment(self) -> dict[str, str]:
        """Of a command."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
        told = {"database_url": self.dsn, "home": str(self.home)}
        for name in (
            "key_backend",
            "vault_addr",
            "vault_namespace",
            "vault_role_id",
            "vault_secret_id",
            "vault_kv_mount",
        ):
            value = getattr(self.settings, name)
            if value is not None:
                told[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return inherited | {f"POSTHOUSE_{name.upper()}": value for name, value in told.items()}

    def data_keys(self, **more: int) -> DataKeys:
        return DataKeys(REGION, self.database, self.backend, SystemClock(), **more)

    async def add_data_keys(self, count: int) -> None:
        """Tenants that have a data key and nothing under it yet."""
        keys = self.data_keys(most=10)
        held = await self.database.fetchval("SELECT count(*) FROM gateway.data_keys")
        db = await asyncpg.connect(self.dsn, command_timeout=600)
        try:
            for at in range(held, count, CHUNK):
                made = await keys.make([f"idle-{n:07}" for n in range(at, min(at + CHUNK, count))])
                await db.copy_records_to_table(
                    "data_keys", schema_name="gateway",
                    columns=["tenant_id", "version", "wrapped", "wrapped_under", "created_at"],
                    records=[(*row, NOW) for row in zip(*made, strict=True)],
                )  # fmt: skip
            await db.execute("ANALYZE gateway.data_keys")
        finally:
            await db.close()

    async def command(self, *arguments: str) -> asyncio.subprocess.Process:
        """`posthouse keyring …`, started."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks._rotator", str(self.batch), str(self.settle_s), "keyring", *arguments,
            env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def done(self, *arguments: str) -> str:
        """What it said, at its end."""
        process = await self.command(*arguments)
        out, err = await process.communicate()
        if process.returncode:
            raise SystemExit(f"keyring {' '.join(arguments)}: {err.decode()}")
        return out.decode()

    async def rotated(self, kind: str, *arguments: str) -> Rotated:
        """Run it, kill it half-way, run it again to its end."""
        first = await self.command(*arguments)
        rows, seconds, killed_at = await self._follow(kind, first, kill=True)
        if first.returncode != -signal.SIGKILL:
            raise SystemExit(f"it ended before it could be killed: {await first.communicate()}")
        await first.communicate()
        second = await self.command(*arguments)
        more, more_s, done = await self._follow(kind, second, kill=False)
        out, err = await second.communicate()
        if second.returncode:
            raise SystemExit(f"keyring {' '.join(arguments)}: {err.decode()}")
        print("  " + out.decode().strip().replace("\n", "\n  "))
        return Rotated(killed_at, done, (rows + more) / (seconds + more_s))

    async def _follow(self, kind: str, process: asyncio.subprocess.Process, *, kill: bool) -> tuple[int, float, int]:
        """Rows and seconds between the first and the last step that was seen, and how far the rotation is then."""
        seen: list[tuple[float, int]] = []
        db = await asyncpg.connect(self.dsn)
        ending = asyncio.create_task(process.wait())
        try:
            while not ending.done():
                async with db.transaction():  # a step waits behind this look, so that one half-way cannot be missed
                    look = (
                        "SELECT done, total FROM gateway.key_rotations WHERE kind = $1 AND ended_at IS NULL FOR UPDATE"
                    )
                    row = await db.fetchrow(look, kind)
                    if row is not None and (not seen or row["done"] > seen[-1][1]):
                        seen.append((time.monotonic(), row["done"]))
                    if kill and row is not None and row["total"] > 0 and row["done"] * 2 >= row["total"]:
                        process.kill()
                        await ending
                await asyncio.wait({ending}, timeout=0.002)
            after = await db.fetchrow("SELECT done, total FROM gateway.key_rotations WHERE kind = $1", kind)
        finally:
            await db.close()
        if len(seen) < 2:
            raise SystemExit(f"{kind}: too few steps were seen")
        return seen[-1][1] - seen[0][1], seen[-1][0] - seen[0][0], after["done"] if after else 0


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


async def run(arguments: argparse.Namespace, vault: openbao.Tenancy | None = None) -> None:
    """On a database of its own."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-") as folder:
        postgres = await embedded.start(Path(folder) / "postgres")
        try:
            await migrate_for_tests(postgres.dsn)
            database = Database(postgres.dsn)
            await database.open()
            try:
                async with Bench(
                    postgres.dsn, Path(folder), database, batch=arguments.batch, settle_s=SETTLE_S, vault=vault
                ) as bench:
                    figures = await measure(
                        bench, tenants=arguments.tenants, rows=arguments.rows, data_keys=arguments.data_keys
                    )
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
    parser.add_argument("--backend", choices=["local", "transit"], default="local", help="what wraps data keys")
    parser.add_argument("--rows", type=int, help="sealed token sets; unset: 1,000,000 (transit: 20,000)")
    parser.add_argument("--data-keys", type=int, help="data keys to wrap anew; unset: as many as rows")
    parser.add_argument("--tenants", type=int, help="whose token sets they are; unset: a hundredth of the rows")
    parser.add_argument("--batch", type=int, default=BATCH)
    arguments = parser.parse_args()
    arguments.rows = arguments.rows or (1_000_000 if arguments.backend == "local" else 20_000)
    arguments.data_keys = arguments.data_keys or arguments.rows
    arguments.tenants = arguments.tenants or max(arguments.rows // 100, 1)
    logs.configure("json", "error")
    if arguments.backend == "local":
        asyncio.run(run(arguments))
        return
    try:
        with openbao.dev_server() as server:
            asyncio.run(run(arguments, server.tenancy()))
    except pytest.skip.Exception as why:
        print(f"bench-rotate --backend transit: skipped, {why}")


if __name__ == "__main__":
    main()
