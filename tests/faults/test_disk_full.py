"""The disk of the log is full: 503, no half event, and in again by itself when there is room.

PostgreSQL runs where today's part of the log lies on a file system of 32 MiB, which needs a mount namespace of our
own (root or not); where the machine permits none, the test is skipped and says so.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from gateway.clock import Clock
from gateway.migrate import migrate_for_tests
from gateway.service import Gateway
from gateway.settings import MIB, Settings
from gateway.vault.keyring import Keyring
from tests.embedded import processes
from tests.flows.house import House, declare, opened
from tests.stream.making import until

ON_A_SMALL_DISK = ("unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=32m tmpfs "$0" && exec "$@"')
BODY = b'{"action":"opened","filler":"' + b"x" * MIB + b'"}'


@pytest.fixture
def folder() -> Iterator[Path]:
    """Directly under /tmp: a socket's path must be short."""
    made = Path(tempfile.mkdtemp(prefix="posthouse-full-", dir="/tmp"))
    (made / "disk").mkdir()
    yield made
    processes.end_all()
    shutil.rmtree(made)


@pytest.fixture
async def disk(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """A DSN, and the way to the small disk on which that database's log of today lies; half of it is taken."""
    prefix = (*ON_A_SMALL_DISK, str(folder / "disk"))
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace can be had here: {tried.stderr.strip()}")
    server = await processes.gateway(folder / "data", {"shared_buffers": "16MB", "fsync": "off"}, *prefix)
    assert isinstance(server, processes.Gateway), server
    there = Path(f"/proc/{server.process.pid}/root{folder}/disk")
    (there / "ballast").write_bytes(bytes(16 * MIB))
    (there / "log").mkdir(mode=0o700)
    await migrate_for_tests(server.dsn)
    db = await asyncpg.connect(server.dsn)
    await db.execute(f"CREATE TABLESPACE small LOCATION '{folder}/disk/log'")
    today = await db.fetchval("SELECT 'gateway.events_' || to_char(gateway.now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
    await db.execute(f"ALTER TABLE {today} SET TABLESPACE small")
    await db.close()
    yield server.dsn, there
    await server.stop()


@pytest.fixture
async def house(disk: tuple[str, Path], keyring: Keyring, tmp_path: Path, clock: Clock) -> AsyncIterator[House]:
    """The public listener of a gateway on it."""
    settings = Settings(
        _env_file=None, database_url=SecretStr(disk[0]), home=tmp_path, keyring=SecretStr(keyring.to_json()),
        commit_deadline_s=0.9,
    )  # fmt: skip
    gateway = await Gateway.open(settings, clock)
    async with opened(gateway) as made:
        await declare(made, "github")
        yield made
    await gateway.close()


async def test_a_full_disk_is_a_503_and_comes_back_when_there_is_room(house: House, disk: tuple[str, Path]) -> None:
    """Whatever was acknowledged is there once and whole; what was put off is taken later, under its own id."""
    acknowledged: list[str] = []
    while (answer := await house.deliver("github", BODY, delivery_id=f"d-{len(acknowledged)}")).status == 200:
        acknowledged.append(f"d-{len(acknowledged)}")
        assert len(acknowledged) < 32, "the disk never became full"
    assert len(acknowledged) > 5
    assert (answer.status, answer.body, answer.header("retry-after")) == (503, b"unavailable", "2")
    assert (await house.deliver("github", BODY, secret=b"a secret of another app")).status == 401
    full = [event.delivery["headers"]["x-github-delivery"] for event in await house.kept()]
    assert full == acknowledged

    (disk[1] / "ballast").unlink()

    async def taken() -> bool:
        return (await house.deliver("github", BODY, delivery_id=f"d-{len(acknowledged)}")).status == 200

    await until(taken)
    kept = await house.kept()
    assert {event.data for event in kept} == {BODY}
    assert [event.delivery["headers"]["x-github-delivery"] for event in kept] == [
        *acknowledged, f"d-{len(acknowledged)}",
    ]  # fmt: skip
