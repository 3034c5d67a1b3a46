"""Two gateways over one embedded PostgreSQL, durability on: killed at will, started again by itself at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import asyncpg

from gateway import embedded
from gateway.access import keys
from gateway.database import Database
from gateway.integrations import store
from gateway.migrate import migrate_for_tests
from gateway.vault.keyring import Keyring, generate
from tests.faults.mail import NAMES
from tests.flows.house import wanted
from tests.ops.processes import environment, free_port
from tests.signers import SIGNERS

PATIENCE_S = 60
LOOK_S = 0.05
PUBLIC_URL = "https://hooks.example.com"

Victim = Literal["a gateway", "both gateways", "the postmaster", "a process of PostgreSQL", "everything"]
VICTIMS: tuple[Victim, ...] = get_args(Victim)


class Gateway:
    """One `posthouse serve`, always at the same two ports."""

    def __init__(self, settings: Mapping[str, str], log: Path) -> None:
        public, private = free_port(), free_port()
        self.public, self.private = f"http://127.0.0.1:{public}", f"http://127.0.0.1:{private}"
        self._environment = environment(
            {**settings, "public_listen": f"127.0.0.1:{public}", "private_listen": f"127.0.0.1:{private}"}
        )
        self._log = log.open("ab")
        self.process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start it, and again whenever it ends."""
        started = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep(started))
        await started.wait()

    async def stop(self) -> int:
        """Ask it to end; its status."""
        self._stopping = True
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        try:
            return await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        finally:
            if self._keeping is not None:
                self._keeping.cancel()
                await asyncio.gather(self._keeping, return_exceptions=True)
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            self._log.close()

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    async def _keep(self, started: asyncio.Event) -> None:
        while not self._stopping:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", "serve", env=self._environment, start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            )  # fmt: skip
            started.set()
            await self.process.wait()


class Fleet:
    """The gateways and their database."""

    def __init__(self, postgres: embedded.EmbeddedPostgres, gateways: list[Gateway], key: str) -> None:
        self.postgres, self.gateways, self.key = postgres, gateways, key
        self._reviving = asyncio.create_task(self._revive())

    def kill(self, victim: Victim, chance: random.Random) -> None:
        """SIGKILL, without a warning to anybody."""
        if victim == "a gateway":
            chance.choice(self.gateways).kill()
        elif victim == "a process of PostgreSQL" and (children := _children(self.postgres.pid)):
            _kill(chance.choice(children))
        elif victim in ("the postmaster", "a process of PostgreSQL"):
            _kill(self.postgres.pid)
        if victim in ("both gateways", "everything"):
            for gateway in self.gateways:
                gateway.kill()
        if victim == "everything":
            for pid in (self.postgres.pid, *_children(self.postgres.pid)):
                _kill(pid)

    async def stop(self) -> list[int]:
        """An orderly end; the gateways' statuses."""
        try:
            return await asyncio.gather(*(gateway.stop() for gateway in self.gateways))
        finally:
            self._reviving.cancel()
            await asyncio.gather(self._reviving, return_exceptions=True)
            await self.postgres.stop()

    async def _revive(self) -> None:
        while True:
            try:
                await self.postgres.revive()
            except embedded.EmbeddedUnavailable as error:
                print(f"  PostgreSQL does not start yet: {error}")
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def running(folder: Path, count: int = 2) -> AsyncIterator[Fleet]:
    """A fleet with an integration for each of `NAMES`, and an API key."""
    postgres = await embedded.start(folder / "postgres", settings={"shared_buffers": "64MB", "max_wal_size": "512MB"})
    gateways: list[Gateway] = []
    try:
        assert await durable(postgres.dsn)
        await migrate_for_tests(postgres.dsn)
        keyring = generate()
        key = await declare(postgres.dsn, keyring)
        settings = {
            "database_url": postgres.dsn, "keyring": keyring.to_json(), "home": str(folder), "public_url": PUBLIC_URL,
            "drain_pause_s": "0", "log_level": "warning",
        }  # fmt: skip
        for number in range(count):
            gateways.append(Gateway(settings, folder / f"gateway-{number}.log"))
            await gateways[-1].start()
    except BaseException:
        await asyncio.gather(*(gateway.stop() for gateway in gateways), return_exceptions=True)
        await postgres.stop()
        raise
    fleet = Fleet(postgres, gateways, key)
    try:
        yield fleet
    finally:
        await fleet.stop()


async def durable(dsn: str) -> bool:
    """Whether what is committed is on disk there."""
    db = await asyncpg.connect(dsn)
    try:
        return {await db.fetchval(f"SHOW {n}") for n in ("fsync", "synchronous_commit", "full_page_writes")} == {"on"}
    finally:
        await db.close()


async def declare(dsn: str, keyring: Keyring) -> str:
    """The integrations; the token of an admin's key."""
    database, now = Database(dsn), datetime.now(UTC)
    await database.open()
    try:
        async with database.transaction() as tx:
            for name in NAMES:
                await store.create(tx, keyring, wanted(name, SIGNERS[name]), now, by="file")
            return (await keys.create(tx, keyring, now, name="chaos")).token
    finally:
        await database.close()


async def until(holds: Callable[[], bool], what: str) -> None:
    """Look until it holds.    Raises: AssertionError, it does not come to that."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_S
    while not holds():
        assert loop.time() < end, f"{what}: not within {PATIENCE_S} s"
        await asyncio.sleep(LOOK_S)


def last_words(folder: Path) -> str:
    """The ends of the processes' logs."""
    logs = [*sorted(folder.glob("gateway-*.log")), folder / "postgres" / "postgres.log"]
    return "\n".join(f"{log.name}:\n" + "\n".join(log.read_text().splitlines()[-10:]) for log in logs if log.exists())


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
