"""What counts as a database that is away."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg
import pytest

from gateway.database import AWAY, Database
from gateway.errors import Unavailable


async def test_a_database_that_is_put_back_is_away_meanwhile(dsn: str) -> None:
    """It does not exist for a moment. That is a 503 and a dependency that is down, not a fault of ours."""
    name = urlsplit(dsn).path.removeprefix("/")
    database = Database(dsn)
    await database.open()
    other = await asyncpg.connect(dsn, database="postgres")
    try:
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        await other.execute(f"ALTER DATABASE {name} RENAME TO {name}_old")
        for _ in range(2):  # the connection that was there, then a new one
            with pytest.raises(Unavailable):
                await database.fetchval("SELECT 1")
        with pytest.raises(AWAY):
            await Database(dsn).open()
        await other.execute(f"ALTER DATABASE {name}_old RENAME TO {name}")
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert await database.fetchval("SELECT 1") == 1
    finally:
        await other.close()
        await database.close()


async def test_a_login_that_is_refused_is_away(dsn: str) -> None:
    """A password is changed in two places, one after the other."""
    stranger = dsn.replace("posthouse@", "nobody@", 1)
    assert stranger != dsn
    with pytest.raises(AWAY):
        await Database(stranger).open()


async def test_a_connection_goes_back_to_the_pool_as_it_is(dsn: str) -> None:
    """What is left open is rolled back, and nothing else is sent: it would be a round trip for every statement."""
    database = Database(dsn, size=1)
    await database.open()
    watching = await asyncpg.connect(dsn)
    try:
        async with database.acquire() as connection:
            await connection.execute("BEGIN")
            await connection.execute("CREATE TABLE left_open ()")
        assert await database.fetchval("SELECT to_regclass('left_open')") is None
        last = (
            "SELECT query FROM pg_stat_activity WHERE application_name = 'posthouse' AND datname = current_database()"
        )
        assert await watching.fetchval(last) == "SELECT to_regclass('left_open')"
    finally:
        await watching.close()
        await database.close()
