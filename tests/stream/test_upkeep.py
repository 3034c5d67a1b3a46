"""Days made ahead and dropped behind, while others read and write; and the walk of the sweep."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Any, cast

import asyncpg
import pytest

from gateway.database import Database
from gateway.errors import CursorGone
from gateway.stream.append import append
from gateway.stream.cursor import parse
from gateway.stream.epoch import look
from gateway.stream.read import Filter, at_time, earliest, read
from gateway.stream.upkeep import AHEAD_DAYS, DAYS, TODAY, Upkeep, day_of
from tests.stream.making import event, everything, keep, shift, until, waiting_for_a_lock

DAY = timedelta(days=1)
KEEP_DAYS = 7


@pytest.fixture
def upkeep(database: Database) -> Upkeep:
    return Upkeep(database, KEEP_DAYS)


async def days(database: Database) -> list[date]:
    return [day_of(row["name"]) for row in await database.fetch(DAYS)]


async def today(database: Database) -> date:
    return cast(date, await database.fetchval(TODAY))


async def pass_days(database: Database, count: int) -> None:
    async with database.acquire() as db:
        await shift(db, count * DAY)


async def keep_on_the_first_day(database: Database, data: bytes) -> None:
    """An event on the oldest day there is, yesterday: that one is taken first."""
    await pass_days(database, -1)
    await keep(database, event(data))
    await pass_days(database, 1)


async def a_week(database: Database, upkeep: Upkeep, count: int) -> None:
    """An event a day, `d0` first; upkeep runs each day."""
    for number in range(count):
        await upkeep.run_once()
        await keep(database, event(b"d%d" % number))
        await pass_days(database, 1)


async def test_days_are_made_ahead_and_dropped_behind(database: Database, upkeep: Upkeep) -> None:
    """Each day its own partition; seven whole days and today are kept, seven are ahead."""
    await a_week(database, upkeep, 12)
    await upkeep.run_once()
    now = await today(database)
    assert await days(database) == [now + n * DAY for n in range(-KEEP_DAYS, AHEAD_DAYS + 1)]
    assert [one.data for one in await everything(database)] == [b"d%d" % n for n in range(5, 12)]
    async with database.acquire() as db:
        assert await upkeep.days_ahead(db) == AHEAD_DAYS
        await shift(db, 30 * DAY)
        assert await upkeep.days_ahead(db) < 1  # an alert
    loose = await database.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'events_2%' AND relkind = 'r'")
    assert loose == KEEP_DAYS + 1 + AHEAD_DAYS


async def test_a_clock_that_steps_back_over_midnight_finds_its_day(database: Database) -> None:
    """On the first day of a log too, when no upkeep has run: an event of yesterday, by the corrected clock, is kept."""
    await keep(database, event(b"before the step"))
    await pass_days(database, -1)
    await keep(database, event(b"after it"))
    assert [one.data for one in await everything(database)] == [b"before the step", b"after it"]


async def test_a_reader_behind_the_edge_is_told_and_goes_on(database: Database, upkeep: Upkeep) -> None:
    """410 with the earliest cursor, from which everything that is left is read. At the edge itself nothing is missing."""
    async with database.acquire() as db:
        start = await earliest(db)
    for number in range(10):
        await database.execute("SELECT gateway.make_partitions(7)")
        await keep(database, event(b"d%d" % number))
        await pass_days(database, 1)
    before = await everything(database)
    await upkeep.run_once()
    left = await everything(database)
    gone = [one for one in before if one not in left]
    assert [one.data for one in gone] == [b"d0", b"d1", b"d2"]
    async with database.acquire() as db:
        log = await look(db)
        edge, behind = gone[-1].cursor(log.epoch), gone[-2].cursor(log.epoch)
        assert log.dropped_through == edge.seq
        for cursor in (start, behind):
            with pytest.raises(CursorGone) as refused:
                await read(db, cursor, Filter(), 10)
            way_on = parse(str(refused.value.extra["earliest"]))
            assert await everything(database, after=way_on) == left
        assert (await read(db, edge, Filter(), 100)).events == left
        assert await earliest(db) == edge
        assert await at_time(db, gone[0].at) == edge


async def test_everything_is_dropped(database: Database, upkeep: Upkeep) -> None:
    """A log that has run empty: its last cursor stays good, and the next event follows it."""
    await keep(database, event(b"old"))
    [old] = await everything(database)
    await pass_days(database, 30)
    await upkeep.run_once()
    async with database.acquire() as db:
        cursor = old.cursor((await look(db)).epoch)
        page = await read(db, cursor, Filter(), 10)
        assert (page.events, page.at_end, page.next) == ((), True, cursor)
    await keep(database, event(b"new"))
    assert [one.data for one in await everything(database, after=cursor)] == [b"new"]


async def test_new_days_do_not_wait_for_writers_nor_they_for_them(database: Database) -> None:
    """CREATE then ATTACH: both go on while a transaction that has written to the log is open."""
    writer = await database.connect()
    try:
        transaction = writer.transaction()
        await transaction.start()
        await append(writer, [event(b"open")])
        assert await database.fetchval("SELECT gateway.make_partitions(20)") == 13
        await transaction.commit()
    finally:
        await writer.close()

    maker = await database.connect()
    try:
        transaction = maker.transaction()
        await transaction.start()
        assert await maker.fetchval("SELECT gateway.make_partitions(25)") == 5
        await keep(database, event(b"meanwhile"))
        assert len(await everything(database)) == 2
        await transaction.commit()
    finally:
        await maker.close()
    assert await database.fetchval("SELECT gateway.make_partitions(25)") == 0


async def test_two_make_the_same_days_at_once(database: Database) -> None:
    """One makes them, the other finds them made."""
    made = await asyncio.gather(*(database.fetchval("SELECT gateway.make_partitions(30)") for _ in range(4)))
    assert sorted(made) == [0, 0, 0, 23]


class LongReader:
    """A dump, say: a transaction that has looked at every day and stays open."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.connection: Any = None

    async def __aenter__(self) -> LongReader:
        self.connection = await self._database.connect()
        await self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await self.connection.fetch("SELECT seq FROM gateway.events")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()


async def test_dropping_a_day_waits_for_old_readers_and_stops_nobody(database: Database, upkeep: Upkeep) -> None:
    """While DETACH CONCURRENTLY waits for a long reader, events are kept and read; then the day goes."""
    await keep_on_the_first_day(database, b"old")
    await pass_days(database, 10)
    await database.execute("SELECT gateway.make_partitions(7)")
    await keep(database, event(b"new"))
    async with LongReader(database) as reader, database.acquire() as db:
        dropping = asyncio.create_task(upkeep.drop_old_days(db))
        await until(lambda: waiting_for_a_lock(database))
        await keep(database, event(b"meanwhile"))
        assert [one.data for one in await everything(database)] == [b"new", b"meanwhile"]
        assert len(await reader.connection.fetch("SELECT seq FROM gateway.events")) == 2  # its snapshot: old and new
        await reader.connection.execute("COMMIT")
        assert len(await dropping) >= 1
    assert min(await days(database)) >= await today(database) - KEEP_DAYS * DAY


async def cut_short(database: Database, dropping: asyncio.Task[Any]) -> None:
    """Cancel the DETACH when it waits, as a lock timeout does."""
    await until(lambda: waiting_for_a_lock(database))
    await database.fetch(
        """SELECT pg_cancel_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND query LIKE 'ALTER TABLE gateway.events DETACH%'"""
    )
    await asyncio.wait([dropping])


async def test_a_detach_that_was_cut_short_is_finished_by_the_next_run(database: Database, upkeep: Upkeep) -> None:
    """Cancelled half-way the day is neither here nor gone; the next run finalizes and drops it, once nobody reads."""
    await keep_on_the_first_day(database, b"old")
    oldest = (await days(database))[0]
    await pass_days(database, 10)
    async with LongReader(database):
        async with database.acquire() as db:
            dropping = asyncio.create_task(upkeep.drop_old_days(db))
            await cut_short(database, dropping)
            assert isinstance(dropping.exception(), asyncpg.QueryCanceledError)
        [first, *_] = await database.fetch(DAYS)
        assert first["pending"]
        await keep_going(database)
    await upkeep.run_once()
    assert oldest not in await days(database)
    assert await database.fetchval("SELECT to_regclass($1)", f"gateway.events_{oldest:%Y%m%d}") is None
    assert [one.data for one in await everything(database)] == [b"new"]


async def keep_going(database: Database) -> None:
    """A half detached day stops neither new days nor events."""
    await database.execute("SELECT gateway.make_partitions(7)")
    [kept] = await keep(database, event(b"new"))
    assert kept.seq is not None
    assert [one.data for one in await everything(database)] == [b"new"]


async def test_a_dump_does_not_stop_upkeep(database: Database, upkeep: Upkeep) -> None:
    """While somebody reads for hours old days stay; new ones are made and the sweep walks, and a start does not fail."""
    await keep(database, event(b"old", window_s=60))
    await pass_days(database, 10)
    async with LongReader(database):
        for _ in range(2):  # the second finds the day half detached
            running = asyncio.create_task(upkeep.run_once())
            await cut_short(database, running)
            assert running.exception() is None
            assert max(await days(database)) == await today(database) + AHEAD_DAYS * DAY
            assert await database.fetchval("SELECT count(*) FROM gateway.dedupe") == 0
    await upkeep.run_once()
    assert min(await days(database)) >= await today(database) - KEEP_DAYS * DAY


async def test_a_process_died_between_detach_and_drop(database: Database, upkeep: Upkeep) -> None:
    """The loose table is found by its name and dropped; one that only looks alike is left alone."""
    await pass_days(database, 10)
    [first, *_] = [row["name"] for row in await database.fetch(DAYS)]
    await database.execute(f"ALTER TABLE gateway.events DETACH PARTITION gateway.{first}")
    await database.execute("CREATE TABLE gateway.events_19990101x (); CREATE TABLE gateway.events_backup ()")
    async with database.acquire() as db:
        assert day_of(first) in await upkeep.drop_old_days(db)
    assert await database.fetchval("SELECT to_regclass($1)", f"gateway.{first}") is None
    assert await database.fetchval("SELECT to_regclass('gateway.events_backup')") is not None


async def test_a_start_makes_days_and_leaves_the_rest_for_later(database: Database, upkeep: Upkeep) -> None:
    """No old day is dropped and no key swept before the first delivery; nor is another's long upkeep waited for."""
    await keep(database, event(b"old", window_s=60))
    await pass_days(database, 30)
    other = await database.connect()
    try:
        await other.execute("SELECT pg_advisory_lock(hashtext('posthouse.upkeep'))")
        await upkeep.ready()
    finally:
        await other.close()
    assert max(await days(database)) == await today(database) + AHEAD_DAYS * DAY
    assert [one.data for one in await everything(database)] == [b"old"]
    assert await database.fetchval("SELECT count(*) FROM gateway.dedupe") == 1
    await keep(database, event(b"new"))


async def test_one_at_a_time(database: Database, upkeep: Upkeep) -> None:
    """While another process does it, this one leaves it to that."""
    await database.execute("SELECT gateway.make_partitions(0)")
    await pass_days(database, 1)
    other = await database.connect()
    try:
        await other.execute("SELECT pg_advisory_lock(hashtext('posthouse.upkeep'))")
        await upkeep.run_once()
        assert max(await days(database)) < await today(database) + AHEAD_DAYS * DAY
    finally:
        await other.close()
    await until(lambda: _free(database))
    await upkeep.run_once()
    assert max(await days(database)) == await today(database) + AHEAD_DAYS * DAY


async def _free(database: Database) -> bool:
    return not await database.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")


KEYS = """INSERT INTO gateway.dedupe SELECT gen_random_uuid(), gateway.now() + CASE WHEN g % 2 = 0 THEN interval '-1 s'
                                                              ELSE interval '1 hour' END FROM generate_series(1, $1) g"""


async def test_the_sweep_walks_the_whole_table_whoever_does_it(database: Database) -> None:
    """Each run takes a stretch, the next goes on there, in another process too; only what has expired goes."""
    await database.execute(KEYS, 80_000)
    pages = await database.fetchval("SELECT pg_relation_size('gateway.dedupe') / 8192")
    swept = []
    async with database.acquire() as db:
        for _ in range(-(-pages // 250)):
            swept.append(await Upkeep(database, KEEP_DAYS, sweep_pages=250).sweep(db))
            assert swept[-1] > 0, "the walk does not stand still"
        assert len(swept) > 1
        assert sum(swept) == 40_000
        assert await db.fetchval("SELECT count(*) FROM gateway.dedupe WHERE expires_at > gateway.now()") == 40_000
        assert await db.fetchval("SELECT count(*) FROM gateway.dedupe") == 40_000


async def test_a_large_table_is_walked_in_a_day(database: Database) -> None:
    """However large it is: 24 passes, an hour apart, see all of it; so keys cannot come faster than they go."""
    await database.execute(KEYS, 20_000)
    async with database.acquire() as db:
        swept = [await Upkeep(database, KEEP_DAYS, sweep_pages=1).sweep(db) for _ in range(24)]
    assert sum(swept) == 10_000
