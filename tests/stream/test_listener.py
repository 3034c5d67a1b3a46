"""Being told of news: by notice, by a poll behind it, and again after the line was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from gateway import loop
from gateway.database import Database, Listener
from gateway.stream.cursor import Cursor
from gateway.stream.read import Event, Filter, earliest, read
from tests.stream.lossy import lossy
from tests.stream.making import event, keep, until

CHANNEL = "posthouse_events"
NEVER_S, SOON_S = 3600.0, 0.05


@asynccontextmanager
async def listening(dsn: str, poll_s: float) -> AsyncIterator[Listener]:
    made = Listener(Database(dsn), CHANNEL, poll_s)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def listeners(database: Database) -> int:
    found = await database.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = $1", f'LISTEN "{CHANNEL}"'
    )
    return int(found)


def heard(database: Database, count: int = 1) -> Callable[[], Awaitable[bool]]:
    """Whether so many listeners have said LISTEN."""

    async def ask() -> bool:
        return await listeners(database) == count

    return ask


async def follow(database: Database, news: Listener, count: int) -> list[Event]:
    """Read as the stream's routes do, until `count` events have come."""
    events: list[Event] = []
    woken = news.subscribe()
    try:
        async with database.acquire() as db:
            cursor: Cursor = await earliest(db)
            while len(events) < count:
                woken.clear()
                page = await read(db, cursor, Filter(), 10)
                events += page.events
                cursor = page.next
                if page.at_end and len(events) < count:
                    await news.wait(woken)
        return events
    finally:
        news.unsubscribe(woken)


async def test_every_commit_wakes_every_reader(database: Database) -> None:
    """With a poll that never comes: all is read by notices alone."""
    async with listening(database.dsn, NEVER_S) as news:
        await until(heard(database))
        readers = [asyncio.create_task(follow(database, news, 20)) for _ in range(3)]
        for number in range(20):
            await keep(database, event(b"%d" % number))
        for reader in readers:
            assert [one.data for one in await reader] == [b"%d" % n for n in range(20)]


async def test_a_rolled_back_append_wakes_nobody(database: Database) -> None:
    """Notices are part of the transaction."""
    async with listening(database.dsn, NEVER_S) as news:
        await until(heard(database))
        woken = news.subscribe()
        await until(lambda: _set(woken))
        woken.clear()
        await database.execute(
            "DO $$ BEGIN PERFORM pg_notify('posthouse_events', ''); RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END $$"
        )
        assert not woken.is_set()
        await keep(database, event())
        await until(lambda: _set(woken))


async def _set(woken: asyncio.Event) -> bool:
    return woken.is_set()


async def test_a_lost_line_is_made_again_and_nothing_is_missed(database: Database) -> None:
    """Its connection is ended by the server; what was committed until the new one listens wakes it once."""
    async with listening(database.dsn, SOON_S) as news:
        for turn in range(3):
            await until(heard(database))
            woken = news.subscribe()
            woken.clear()
            ended = await database.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = $1 AND datname = current_database()",
                f'LISTEN "{CHANNEL}"',
            )
            assert len(ended) == 1
            await keep(database, event(b"%d" % turn))
            await until(lambda: _set(woken))  # noqa: B023 awaited within the turn
            news.unsubscribe(woken)
        assert len(await follow(database, news, 3)) == 3
        await until(heard(database))


async def test_a_lost_notice_costs_a_poll(database: Database) -> None:
    """The line has gone silent and nobody knows: readers look by themselves."""
    async with lossy(database.dsn) as wire:
        news = Listener(Database(wire.dsn), CHANNEL, SOON_S)
        await news.start()
        await until(heard(database))
        wire.mute()
        reader = asyncio.create_task(follow(database, news, 2))
        await keep(database, event(b"1"))
        await keep(database, event(b"2"))
        assert [one.data for one in await reader] == [b"1", b"2"]
        await wire.close()
        await news.stop()


async def test_the_database_is_away_at_first(database: Database) -> None:
    """A listener starts without it, and listens when it comes."""
    async with lossy(database.dsn) as wire:
        await wire.close()
        async with listening(wire.dsn, SOON_S) as news:
            woken = news.subscribe()
            woken.clear()
            await wire.open()
            await until(heard(database))
            await keep(database, event())
            await until(lambda: _set(woken))


async def test_waiting_no_longer_than_asked(database: Database) -> None:
    """A long poll's end comes before the poll's; none, or a past one, does not wait."""
    async with listening(database.dsn, NEVER_S) as news:
        woken = news.subscribe()
        await until(lambda: _set(woken))
        woken.clear()
        async with asyncio.timeout(30):
            for timeout_s in (0.01, 0, -1):
                await news.wait(woken, timeout_s)


async def test_stopping_wakes_who_waits(database: Database) -> None:
    """A draining process's readers do not sit out their poll."""
    news = Listener(Database(database.dsn), CHANNEL, NEVER_S)
    await news.start()
    await until(heard(database))
    woken = news.subscribe()
    woken.clear()
    waiting = asyncio.create_task(news.wait(woken))
    await asyncio.sleep(0)
    await news.stop()
    async with asyncio.timeout(30):
        await waiting


async def test_stopping_on_a_silent_line(database: Database) -> None:
    """The farewell is not heard, and the process ends all the same."""
    async with lossy(database.dsn) as wire:
        news = Listener(Database(wire.dsn), CHANNEL, SOON_S)
        await news.start()
        await until(heard(database))
        wire.mute()
        try:
            async with asyncio.timeout(3):
                await news.stop()
        finally:
            await wire.close()


async def test_the_database_is_replaced(database: Database) -> None:
    """While a restore puts another in its place there is none of that name for a moment; the listener outlives that."""
    place = urlsplit(database.dsn)
    name = place.path.lstrip("/")
    admin = await asyncpg.connect(urlunsplit(place._replace(path="/postgres")))
    try:
        async with listening(database.dsn, SOON_S):
            await until(heard(database))
            await database.close()
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            await admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{name}_away"')
            await asyncio.sleep(SOON_S * 4)  # it tries meanwhile and finds nothing; how often does not matter
            await admin.execute(f'ALTER DATABASE "{name}_away" RENAME TO "{name}"')
            await database.open()
            await until(heard(database), patience_s=3)
    finally:
        await admin.close()


async def test_an_end_in_the_same_breath_as_a_notice_is_an_end(dsn: str) -> None:
    """`asyncio.wait_for` of Python 3.11 swallows it, and whoever follows the stream would go on for ever."""
    listener = Listener(Database(dsn), CHANNEL, NEVER_S)
    waiting = asyncio.create_task(listener.wait(news := asyncio.Event()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    news.set()
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()


async def test_an_end_that_is_swallowed_is_said_until_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library makes of it on its way."""
    monkeypatch.setattr(loop, "AGAIN_S", 0.001)
    swallowed = 0

    async def deaf() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if (swallowed := swallowed + 1) == 3:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await loop.ended([task])
    assert task.cancelled()
    await loop.ended([])
