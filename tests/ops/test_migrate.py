"""Schema versions: forward, once, under a lock, and only processes that fit."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from uuid import UUID, uuid4

import asyncpg
import pytest

from gateway import migrate
from gateway.errors import SetupError
from gateway.migrate import HEAD, LINES, check
from gateway.stream.append import NewEvent, append
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
    assert sorted(filter(None, done)) == [[f"{line} {n:04}" for n in range(1, HEAD[line] + 1)] for line in LINES]


# Whoever runs a release has its revisions behind him: what is changed in one of them never reaches his database.
PUBLISHED = {
    "control/0001_start.sql": "b9d625a3052a8fbbfbaed7ea487cad0c204ebccc2c3b237bf73f8736e07121e5",
    "region/0001_start.sql": "4755d6744877a63f471d27b333da3f55f381c49946efaddbe79ae213db4cc8ef",
    "control/0002_connect.sql": "c240f9b143e748cb2c266958914a6f1a6b49fd733eff53a43328eebe757d9159",
    "region/0002_vault.sql": "f7a495a9d1c7fe518733b4bded1ecebb630102794762b0a52f4d179873b5894c",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_revision_is_never_changed(name: str) -> None:
    """Forward only: a change of it is a revision of its own."""
    assert hashlib.sha256((migrate.FOLDER / name).read_bytes()).hexdigest() == PUBLISHED[name]


async def test_a_database_of_the_first_release_with_data_comes_along(empty: str, tmp_path: Path) -> None:
    """What was there is there; the log is written by the new `append`, and the old one is gone."""
    first = tmp_path / "first"
    shutil.copytree(migrate.FOLDER, first, ignore=shutil.ignore_patterns("__pycache__", "000[2-9]_*"))
    for line in LINES:
        assert await migrate.migrate(empty, line, folder=first) == [f"{line} 0001"]
    db = await asyncpg.connect(empty)
    try:
        await db.execute(
            """INSERT INTO gateway.connections (id, tenant_id, integration_id, labels, state, created_at, updated_at)
               VALUES ('00000000-0000-7000-8000-000000000001', 'acme', '00000000-0000-7000-8000-000000000002', '{}', 'active',
                       now(), now())"""
        )
        for line in LINES:
            assert await migrate.migrate(empty, line) == [f"{line} {n:04}" for n in range(2, HEAD[line] + 1)]
        assert await db.fetchval("SELECT reason IS NULL AND subject_hash IS NULL FROM gateway.connections")
        assert await db.fetchval("SELECT tokens_epoch = epoch FROM gateway.epoch")
        await db.execute("SELECT gateway.make_partitions(1)")
        connection = UUID("00000000-0000-7000-8000-000000000001")
        event = NewEvent(
            id=uuid4(), key=uuid4(), window_s=60, type="posthouse.connection.active", time=datetime.now(UTC),
            integration=UUID("00000000-0000-7000-8000-000000000002"), connection=connection, accounts=(),
            drop_unmatched=False, signal=False, content_type="application/json", delivery=None, data=b"{}",
        )  # fmt: skip
        await append(db, [event])
        assert await db.fetchval("SELECT connections FROM gateway.events") == [connection]
        names = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'gateway'::regnamespace AND proname = 'append'"
        assert await db.fetchval(names) == 1
    finally:
        await db.close()


async def test_a_grant_of_the_second_release_is_fenced_by_its_token_set(empty: str, tmp_path: Path) -> None:
    """That it lived when its tokens came is known; where there are none any more, that it did when it was given."""
    second = tmp_path / "second"
    shutil.copytree(migrate.FOLDER, second, ignore=shutil.ignore_patterns("__pycache__", "000[3-9]_*"))
    assert await migrate.migrate(empty, "region", folder=second) == ["region 0001", "region 0002"]
    db = await asyncpg.connect(empty)
    try:
        await db.execute(
            """INSERT INTO gateway.connections (id, tenant_id, integration_id, labels, state, created_at, updated_at)
               VALUES ('00000000-0000-7000-8000-000000000001', 'acme', '00000000-0000-7000-8000-000000000002', '{}', 'active',
                       now(), now());
               INSERT INTO gateway.grants (connection_id, access_profile, state, generation, token_version, granted_at)
               SELECT id, profile, 'active', 1, 1, '2026-01-01' FROM gateway.connections, unnest('{with,without}'::text[]) AS profile;
               INSERT INTO gateway.data_keys VALUES ('acme', 1, 'x', 1, now());
               INSERT INTO gateway.tokens (connection_id, access_profile, tenant_id, generation, token_version, data_key_version,
                                           sealed_access, has_refresh, issued_at)
               SELECT id, 'with', 'acme', 1, 1, 1, 'x', false, '2026-02-02' FROM gateway.connections"""
        )
        assert await migrate.migrate(empty, "region") == [f"region {n:04}" for n in range(3, HEAD["region"] + 1)]
        rows = await db.fetch(
            "SELECT alive_at::date::text, contested, marks FROM gateway.grants ORDER BY access_profile"
        )
        assert [tuple(row) for row in rows] == [("2026-02-02", False, []), ("2026-01-01", False, [])]
    finally:
        await db.close()


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
