"""The database that every other test gets: its own, cloned, and gone afterwards."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest

from tests import postgres
from tests.embedded.processes import Gateway, gateway, gone


async def migrate(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE words (word text)")
    await connection.close()


async def write_and_count(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("INSERT INTO words VALUES ('one')")
        return int(await connection.fetchval("SELECT count(*) FROM words"))
    finally:
        await connection.close()


def test_each_clone_is_its_own_and_all_are_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in one, not seen in the next; dropped under an open connection; and any server can be used."""

    async def use(template: postgres.Template) -> None:
        first, second = await asyncio.gather(template.clone(), template.clone())
        assert [await write_and_count(dsn) for dsn in (first, second)] == [1, 1]
        async with template.cloned() as third:
            open_still = await asyncpg.connect(third)
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await asyncpg.connect(third)
        open_still.terminate()

    async def names(server: postgres.Server) -> set[str]:
        connection = await asyncpg.connect(server.dsn)
        rows = await connection.fetch("SELECT datname FROM pg_database")
        await connection.close()
        return {row["datname"] for row in rows}

    monkeypatch.delenv(postgres.OTHER_SERVER, raising=False)
    with postgres.server() as ours:
        monkeypatch.setenv(postgres.OTHER_SERVER, ours.dsn)
        with postgres.server() as other, postgres.template_database(other, migrate) as template:
            assert other == ours
            asyncio.run(use(template))
        assert asyncio.run(names(ours)) == {"postgres", "posthouse", "template0", "template1"}
    assert not Path(ours.dsn.partition("host=")[2].partition("&")[0]).exists()


async def test_what_a_killed_session_left_behind_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server is ended and its folder removed by the next session; a session that lives is left alone."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    old = time.time() - 3600
    dead, living = tmp_path / "posthouse-tests-dead", tmp_path / "posthouse-tests-living"
    killed = await gateway(dead, postgres.FAST)
    alive = await gateway(living, postgres.FAST)
    assert isinstance(killed, Gateway)
    assert isinstance(alive, Gateway)
    killed.process.kill()
    await killed.process.wait()
    for folder in (dead, living):
        os.utime(folder, (old, old))
    await asyncio.to_thread(postgres._sweep)
    await gone(killed.pid)
    assert not dead.exists()
    assert living.exists()
    await alive.stop()
