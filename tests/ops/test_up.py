"""`posthouse up`: the whole gateway on one machine, across starts, kills and a second one beside it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.embedded import start
from gateway.embedded.folder import Folder
from tests.ops.processes import Command, posthouse


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """A home folder; what a failed test leaves running on it is stopped."""
    folder = tmp_path / "home"
    yield folder
    if folder.exists() and Folder(folder).postgres_lives():
        await (await start(folder)).stop()


def settings(home: Path) -> dict[str, str]:
    return {"home": str(home), "public_listen": "127.0.0.1:0", "private_listen": "127.0.0.1:0"}


async def ready(command: Command) -> str:
    """All that it says when it is ready."""
    await command.until("posthouse is ready")
    await command.until("home ")
    return "".join(command.out)


async def answers(said: str, key: str) -> int:
    """The status of a call to the management API."""
    found = re.search(r"private +(http://\S+)", said)
    assert found
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session,
        session.get(f"{found[1]}/v1/integrations") as answer,
    ):
        return answer.status


async def test_it_shows_its_first_key_once_survives_sigkill_and_refuses_a_second_one(home: Path) -> None:
    """Data, keyring and key outlive the processes; PostgreSQL left behind by SIGKILL is adopted."""
    async with posthouse("up", settings=settings(home)) as first:
        said = await ready(first)
        key = (await first.until("API key")).split(": ")[1].strip()
        assert key.startswith("ph_")
        assert await answers(said, key) == 200
        assert (home / "keyring.json").stat().st_mode & 0o777 == 0o600

        async with posthouse("up", settings=settings(home)) as second:
            assert await second.ended() == 1
            assert re.fullmatch(r"posthouse: another posthouse \(pid \d+\) is running on .*\n", await second.errors())

        first.process.kill()
        assert await first.ended() == -signal.SIGKILL
    orphan = Folder(home).postmaster()
    assert orphan is not None

    async with posthouse("up", settings=settings(home)) as third:
        said = await ready(third)
        adopted = Folder(home).postmaster()
        assert adopted is not None
        assert adopted.pid == orphan.pid
        assert await answers(said, key) == 200
        third.process.send_signal(signal.SIGINT)
        assert await third.ended() == 0
        assert "API key" not in said + await third.rest()
    assert not Folder(home).postgres_lives(), "nothing is left running"

    async with posthouse("up", settings=settings(home)) as fourth:
        assert await answers(await ready(fourth), key) == 200
        fourth.process.terminate()
        assert await fourth.ended() == 0


async def test_commands_find_the_database_of_an_up_that_is_running(home: Path) -> None:
    """Nobody has to copy a socket's path; without one they say what to do."""
    async with posthouse("keys", "list", settings=settings(home)) as nowhere:
        assert await nowhere.ended() == 1
        assert "start `posthouse up`" in await nowhere.errors()
    async with posthouse("up", settings=settings(home)) as up:
        await ready(up)
        async with posthouse("keys", "list", settings=settings(home)) as keys:
            assert await keys.ended() == 0
            assert " admin " in await keys.rest()
        up.process.terminate()
        assert await up.ended() == 0


async def test_with_a_database_of_ones_own_it_starts_none(dsn: str, home: Path) -> None:
    """POSTHOUSE_DATABASE_URL replaces the embedded one; keyring and spool are still made in the home folder."""
    async with posthouse("up", settings={**settings(home), "database_url": dsn}) as up:
        assert "POSTHOUSE_DATABASE_URL" in await ready(up)
        assert sorted(os.listdir(home)) == ["keyring.json", "spool"]
        up.process.terminate()
        assert await up.ended() == 0
