"""One PostgreSQL for a test session, and a database of its own for each test, cloned from a migrated template.

In conftest (session fixtures are plain functions: each step here runs its own event loop):

    @pytest.fixture(scope="session")
    def template() -> Iterator[postgres.Template]:
        with postgres.server() as server, postgres.template_database(server, migrate) as template:
            yield template

    @pytest.fixture
    async def dsn(template: postgres.Template) -> AsyncIterator[str]:
        async with template.cloned() as dsn:
            yield dsn

`POSTHOUSE_TEST_DATABASE_URL` names a server to use instead (its user must be allowed to create databases).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from gateway.embedded import EmbeddedUnavailable, start

OTHER_SERVER = "POSTHOUSE_TEST_DATABASE_URL"
FAST = {  # a test's data need not outlive the machine
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
}
RAM = Path("/dev/shm")
ROOMY = 4 * 1024**3  # bytes: what two sessions hold at the most is a good deal less
_PREFIX = "posthouse-tests-"
_LEFT_BEHIND_S = 60  # younger folders may belong to a session that is just starting


@dataclass(frozen=True)
class Server:
    """A running server; `dsn` names a database for maintenance, which tests leave alone."""

    dsn: str

    async def create(self, name: str, template: str = "template0") -> str:
        """Make a database, and return its DSN."""
        # Copying files beats writing them to the log, by measure: a small template, and nothing waits for the disk.
        await self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return database_of(self.dsn, name)

    async def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected to it."""
        await self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def execute(self, statement: str) -> None:
        """Run one statement in the database for maintenance."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class Template:
    """A migrated database that nobody connects to, and its clones."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self._numbers = count(1)
        self._clones: set[str] = set()

    async def clone(self) -> str:
        """The DSN of a new database like the template. It lives until `drop`, or the end of the session."""
        name = f"{self.name}_{next(self._numbers)}"
        dsn = await self.server.create(name, self.name)
        self._clones.add(name)
        return dsn

    async def drop(self, dsn: str) -> None:
        """Drop a clone, whoever is still connected to it."""
        name = urlsplit(dsn).path.lstrip("/")
        await self.server.drop(name)
        self._clones.discard(name)

    @asynccontextmanager
    async def cloned(self) -> AsyncIterator[str]:
        """A clone for as long as the block runs."""
        dsn = await self.clone()
        try:
            yield dsn
        finally:
            await self.drop(dsn)

    async def drop_all(self) -> None:
        for name in list(self._clones):
            await self.server.drop(name)
        await self.server.execute(f'ALTER DATABASE "{self.name}" IS_TEMPLATE false')
        await self.server.drop(self.name)


@contextmanager
def server() -> Iterator[Server]:
    """The session's server: the one that the environment names, or our own in a folder that goes with it."""
    other = os.environ.get(OTHER_SERVER)
    if other:
        yield Server(other)
        return
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_place()))
    try:
        ours = asyncio.run(start(folder, settings=FAST))
        try:
            yield Server(ours.dsn)
        finally:
            asyncio.run(ours.stop())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def template_database(server: Server, migrate: Callable[[str], Awaitable[None]]) -> Iterator[Template]:
    """Make a database, let `migrate(dsn)` fill it, and close it to everyone; it goes, clones and all, at the end."""
    template = Template(server, f"posthouse_test_{token_hex(4)}")
    asyncio.run(_fill(template, migrate))
    try:
        yield template
    finally:
        asyncio.run(template.drop_all())


def database_of(dsn: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


async def _fill(template: Template, migrate: Callable[[str], Awaitable[None]]) -> None:
    dsn = await template.server.create(template.name)
    try:
        await migrate(dsn)
        await template.server.execute(f'ALTER DATABASE "{template.name}" IS_TEMPLATE true ALLOW_CONNECTIONS false')
    except BaseException:
        await template.server.drop(template.name)
        raise


def _place() -> str:
    """Where sessions work: in memory where that has room, because a clone is 500 small files and each costs a disk time.

    By measure 17 ms a clone instead of 400. Not where programs may not run: root's may have to be copied there.
    """
    try:
        there = os.statvfs(RAM)
    except OSError:
        return tempfile.gettempdir()
    roomy = there.f_bavail * there.f_frsize >= ROOMY
    usable = os.access(RAM, os.W_OK | os.X_OK) and not there.f_flag & getattr(os, "ST_NOEXEC", 0)
    return str(RAM) if roomy and usable else tempfile.gettempdir()


def _sweep() -> None:
    """End what a killed session left running (our own launcher adopts it), and remove its folder."""
    for folder in (found for place in {_place(), tempfile.gettempdir()} for found in Path(place).glob(f"{_PREFIX}*")):
        try:
            if folder.stat().st_uid == os.geteuid() and time.time() - folder.stat().st_mtime > _LEFT_BEHIND_S:
                asyncio.run(_end(folder))
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, EmbeddedUnavailable):
            continue  # in use, or another session sweeps it


async def _end(folder: Path) -> None:
    left = await start(folder, settings=FAST)
    await left.stop()
