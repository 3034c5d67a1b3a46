"""What bench-rotate works on: a deployment whose rotations are started, killed and resumed, and a reader beside them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

import asyncpg
from pydantic import SecretStr

from gateway import ids
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.settings import Settings
from gateway.vault import choose, files, holders, keyring
from gateway.vault.backend import KeyBackend
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Keyring
from gateway.vault.tokens import TokenVault
from gateway.vault.watch import KeyringWatch
from tests import openbao
from tests.vault.rows import NOW, access_of, place_of, refresh_of

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
            row: Any = await self.database.fetchrow(ROW, connection)
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
