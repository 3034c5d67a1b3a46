"""Schema versions: two lines (`control`, `region`), each with a number in its own `schema_version` table.

`posthouse migrate` moves a database forward; nothing else does. A process runs on its own schema and on the next one,
because a release expands first and contracts a release later: so the database is migrated before the processes are
replaced, and the old ones go on meanwhile.

The version table lies in the schema that it speaks of (`control.schema_version`, `gateway.schema_version`), so both
lines fit into one database. `migrate` makes the two schemas itself, because Alembic wants its table before revision 1.
Alembic and SQLAlchemy are imported only where a revision is really run: a start that finds its schema pays nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import asyncpg

import migrations
from gateway import reach
from gateway.errors import SetupError
from gateway.settings import Settings

Line = Literal["control", "region"]

LINES: tuple[Line, ...] = ("control", "region")
SCHEMA: dict[Line, str] = {"control": "control", "region": "gateway"}
FOLDER = Path(migrations.__path__[0])
LEAST_POSTGRES = 15


def head_of(line: Line, folder: Path = FOLDER) -> int:
    """The number of the newest revision."""
    numbers = [int(m[1]) for path in (folder / line).iterdir() if (m := re.fullmatch(r"(\d{4})_\w+\.py", path.name))]
    return max(numbers)


HEAD: dict[Line, int] = {line: head_of(line) for line in LINES}


def check(found: int | None, head: int, line: Line = "region") -> None:
    """May a process of schema `head` run on a database of schema `found`?    Raises: SetupError, saying what to do."""
    if found is None:
        raise SetupError(f"the {line} database has no schema yet: run `posthouse migrate`")
    if found < head:
        raise SetupError(f"the {line} database has schema {found}, this version needs {head}: run `posthouse migrate`")
    if found > head + 1:
        raise SetupError(
            f"the {line} database has schema {found}, too new for this version (it runs on {head} and {head + 1}): "
            "start the newer version of posthouse"
        )


async def version(db: Any, line: Line) -> int | None:
    """The schema's number in a database (a `Db` or a DSN), or None where there is none.    Raises: reach.Unreached."""
    if isinstance(db, str):
        connection = await reach.connect(db, f"the {line} database")
        try:
            return await version(connection, line)
        finally:
            await connection.close(timeout=2)
    table = f"{SCHEMA[line]}.schema_version"
    if await db.fetchval("SELECT to_regclass($1) IS NULL", table):
        return None
    found = await db.fetchval(f"SELECT max(version_num::integer) FROM {table}")  # noqa: S608  (a constant of ours)
    return None if found is None else int(found)


async def migrate(dsn: str, line: Line, *, lock_timeout_s: float = 5.0, folder: Path = FOLDER) -> list[str]:
    """Move one database's line forward to the newest revision in `folder`; the names of the revisions that ran, each in its own transaction.

    Others who migrate the same database wait their turn. No statement waits longer than `lock_timeout_s` for a table,
    since every writer would queue up behind it.    Raises: SetupError; asyncpg's errors
    of the SQL, as they come.
    """
    connection = await reach.connect(
        dsn, f"the {line} database", application_name="posthouse-migrate", timezone="UTC", statement_timeout="0"
    )
    try:
        if connection.get_server_version().major < LEAST_POSTGRES:
            raise SetupError(
                f"PostgreSQL {LEAST_POSTGRES} or newer is needed; this is {connection.get_server_version().major}"
            )
        # A lock of the session: it outlives each revision's commit, and dies with us.
        await connection.fetchval("SELECT pg_advisory_lock(hashtext($1))", f"posthouse.migrate.{line}")
        await connection.execute(f"SET lock_timeout = '{int(lock_timeout_s * 1000)}ms'")
        found, head = await version(connection, line), head_of(line, folder)
        if found is not None and found >= head:
            check(found, head, line)
            return []
        if await connection.fetchval("SELECT to_regnamespace($1) IS NULL", SCHEMA[line]):
            await connection.execute(f"CREATE SCHEMA {SCHEMA[line]}")
        try:
            return await _upgrade(connection, line, folder / line)
        except asyncpg.LockNotAvailableError as error:
            raise SetupError(
                f"{line}: a table stayed locked by another session for {lock_timeout_s:g} s; the revision was rolled "
                "back, nothing is half done: run `posthouse migrate` again"
            ) from error
    finally:
        await connection.close(timeout=5)


async def migrate_all(settings: Settings) -> list[str]:
    """Control first, then each region; the names of what ran.    Raises: as `migrate`."""
    return [name for line, dsn in _lines(settings) for name in await migrate(dsn, line)]


async def check_all(settings: Settings) -> None:
    """May this version run on these databases?    Raises: SetupError (reach.Unreached where one is away)."""
    for line, dsn in _lines(settings):
        check(await version(dsn, line), HEAD[line], line)


async def migrate_for_tests(dsn: str) -> None:
    """Both lines into one database."""
    for line in LINES:
        await migrate(dsn, line)


def _lines(settings: Settings) -> list[tuple[Line, str]]:
    control, region = settings.control_url, settings.database_url
    if control is None or region is None:
        raise SetupError("POSTHOUSE_DATABASE_URL is not set (`posthouse up` brings its own database and migrates it)")
    return [("control", control.get_secret_value()), ("region", region.get_secret_value())]


async def _upgrade(connection: Any, line: Line, scripts: Path) -> list[str]:
    """Run what is missing, over the connection that holds the lock."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    script = ScriptDirectory(str(scripts), version_locations=[str(scripts)])
    done: list[str] = []

    def run(bind: Any) -> None:
        context = MigrationContext.configure(
            bind,
            opts={
                "version_table": "schema_version",
                "version_table_schema": SCHEMA[line],
                "transaction_per_migration": True,
                "fn": lambda current, _: script._upgrade_revs("head", current),
                "on_version_apply": (lambda step, **_: done.append(f"{line} {step.up_revision_id}"),),
            },
        )
        context.run_migrations(bind=bind)

    async def ours() -> Any:
        return connection

    engine = create_async_engine("postgresql+asyncpg://", async_creator=ours, poolclass=NullPool)
    try:
        async with engine.connect() as bind:
            await bind.run_sync(run)
    except DBAPIError as error:  # SQLAlchemy's wrapping quotes whole statements; the driver's own error is one line
        driver_error = getattr(error.orig, "__cause__", None)
        raise (driver_error or error) from None
    finally:
        await engine.dispose()
    return done
