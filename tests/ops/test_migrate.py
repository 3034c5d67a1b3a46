"""Schema versions: forward, once, under a lock, and only processes that fit."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex

import asyncpg
import pytest

from gateway import migrate
from gateway.errors import SetupError
from gateway.migrate import HEAD, LINES, check
from tests import postgres


@pytest.fixture
async def empty(template: postgres.Template) -> AsyncIterator[str]:
    """A database with nothing in it."""
    name = f"empty_{token_hex(4)}"
    dsn = await template.server.create(name)
    yield dsn
    await template.server.drop(name)


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The migrations of a release that has one revision more in the region's line."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    number = HEAD["region"] + 1
    (folder / "region" / f"{number:04}_more.sql").write_text(
        "ALTER TABLE gateway.consumers ADD COLUMN more text;\nCREATE TABLE gateway.more (id int);\n"
    )
    (folder / "region" / f"{number:04}_more.py").write_text(
        "from migrations import run_sql_beside\n"
        f"revision, down_revision = '{number:04}', '{number - 1:04}'\n"
        "def upgrade(bind):\n    run_sql_beside(__file__, bind)\n"
    )
    return folder


async def test_both_lines_go_into_an_empty_database_and_nothing_happens_the_second_time(empty: str) -> None:
    """control and region may share a database; each has its own version."""
    for line in LINES:
        assert await migrate.version(empty, line) is None
        done = await migrate.migrate(empty, line)
        assert done == [f"{line} {number:04}" for number in range(1, HEAD[line] + 1)]
        assert await migrate.version(empty, line) == HEAD[line]
        assert await migrate.migrate(empty, line) == []


async def test_processes_that_migrate_at_once_wait_for_each_other(empty: str) -> None:
    """One does the work, the others find it done."""
    done = await asyncio.gather(*(migrate.migrate(empty, line) for line in LINES for _ in range(4)))
    assert sorted(filter(None, done)) == [[f"{line} 0001", f"{line} 0002"] for line in LINES]


async def test_a_locked_table_stops_a_migration_instead_of_every_writer(empty: str, next_release: Path) -> None:
    """The revision is rolled back whole, one line says so, and the next try succeeds."""
    await migrate.migrate(empty, "region")
    reader = await asyncpg.connect(empty)
    try:
        async with reader.transaction():
            await reader.execute("SELECT FROM gateway.consumers")
            with pytest.raises(SetupError, match="stayed locked") as refused:
                await migrate.migrate(empty, "region", folder=next_release, lock_timeout_s=0.05)
            assert "\n" not in str(refused.value)
        assert await migrate.version(empty, "region") == HEAD["region"]
        assert await migrate.migrate(empty, "region", folder=next_release) == [f"region {HEAD['region'] + 1:04}"]
        assert await reader.fetchval("SELECT to_regclass('gateway.more') IS NOT NULL")
    finally:
        await reader.close()


async def test_a_revision_that_fails_leaves_nothing_of_itself(empty: str, next_release: Path) -> None:
    """Each revision is one transaction, however many statements it has."""
    await migrate.migrate(empty, "region")
    script = next(next_release.glob("region/*_more.sql"))
    script.write_text(script.read_text() + "SELECT 1/0;\n")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(empty, "region", folder=next_release)
    connection = await asyncpg.connect(empty)
    try:
        assert await connection.fetchval("SELECT to_regclass('gateway.more') IS NULL")
    finally:
        await connection.close()
    assert await migrate.version(empty, "region") == HEAD["region"]


async def test_this_release_runs_on_the_next_schema_and_leaves_it_alone(empty: str, next_release: Path) -> None:
    """The database is migrated before processes are replaced, so the old ones meet the next schema."""
    await migrate.migrate(empty, "region", folder=next_release)
    assert await migrate.migrate(empty, "region") == []
    found = await migrate.version(empty, "region")
    assert found == HEAD["region"] + 1
    check(found, HEAD["region"])


@pytest.mark.parametrize(
    ("found", "says"),
    [(None, "run `posthouse migrate`"), (4, "run `posthouse migrate`"), (7, "start the newer version")],
)
def test_a_schema_that_does_not_fit_is_refused_in_one_line(found: int | None, says: str) -> None:
    """Neither an older schema nor one two releases ahead."""
    with pytest.raises(SetupError, match=says) as refused:
        check(found, 5)
    assert "\n" not in str(refused.value)


def test_the_own_schema_and_the_next_one_fit() -> None:
    """Expand first, contract a release later."""
    check(5, 5)
    check(6, 5)
