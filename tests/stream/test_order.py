"""Issue 2, "done when" 4: sixteen writers of every kind, and readers at their heels."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable

import pytest

from gateway.database import Database
from gateway.stream.append import append
from gateway.stream.read import Event, Filter, earliest, read
from tests.stream.making import event, everything
from tests.stream.traffic import TENANTS, Traffic

EVEN, ODD = Filter(partitions=tuple(range(0, 64, 2))), Filter(partitions=tuple(range(1, 64, 2)))


async def follow(database: Database, traffic: Traffic, wanted: Filter, most: int) -> list[Event]:
    """Read from the beginning, at the writers' heels, until they are done; pages of 1 to `most` events."""
    chance = random.Random(most)
    seen: list[Event] = []
    async with database.acquire() as db:
        cursor = await earliest(db)
        while True:
            over = traffic.over  # before reading: what was committed before it is in this page or a later one
            page = await read(db, cursor, wanted, chance.randint(1, most))
            seen += page.events
            cursor = page.next
            if page.at_end:
                if over:
                    return seen
                await asyncio.sleep(0)


def in_order(events: Iterable[Event]) -> bool:
    """Whether each line (see `traffic`) counts up by one without a gap, and `seq` goes up."""
    places: Counter[str] = Counter()
    last = 0
    for one in events:
        line, place = one.data.decode().split(":")
        if int(place) != places[line] + 1 or one.seq <= last:
            return False
        places[line], last = int(place), one.seq
    return True


async def prove(dsn: str, total: int, seed: int) -> None:
    """Writers and readers at once; then the log, the writers' word, and what each reader saw are compared."""
    database = Database(dsn, size=10)
    await database.open()
    try:
        traffic = Traffic(database, total, seed)
        await traffic.set_up()
        wishes = [Filter(), Filter(), EVEN, ODD, *(Filter(tenant=tenant) for tenant in TENANTS)]
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.run())
            readers = [
                group.create_task(follow(database, traffic, wish, most))
                for wish, most in zip(wishes, (40, 700, 300, 300, 100, 100, 100), strict=True)
            ]
        log = await everything(database)
        seen = [reader.result() for reader in readers]

        assert traffic.rolled_back > 0
        assert Counter(one.data.decode() for one in log) == traffic.committed  # nothing lost, nothing twice
        assert in_order(log)
        assert seen[0] == log
        assert seen[1] == log
        assert seen[2] == [one for one in log if any(p % 2 == 0 for p in one.partitions)]
        assert seen[3] == [one for one in log if any(p % 2 == 1 for p in one.partitions)]
        for tenant, theirs in zip(TENANTS, seen[4:], strict=True):
            assert theirs == [one for one in log if tenant in one.tenants]
    finally:
        await database.close()


async def test_readers_skip_nothing_and_see_nothing_twice(dsn: str) -> None:
    """10,000 events by 16 writers, 7 readers: order of seq is order of commit, for every connection and every reader."""
    await prove(dsn, 10_000, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
async def test_readers_skip_nothing_over_100000_events(dsn: str, seed: int) -> None:
    """The same over 100,000 events."""
    await prove(dsn, 100_000, seed)


async def test_the_second_writer_waits_for_the_first_ones_commit(dsn: str, database: Database) -> None:
    """The append lock is held until COMMIT: whoever comes later draws the later numbers, whoever wrote first elsewhere."""
    one, two = await database.connect(), await database.connect()
    try:
        first = one.transaction()
        await first.start()
        [held] = await append(one, [event(b"first")])
        later = asyncio.create_task(append(two, [event(b"second")]))
        while not await database.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            assert not later.done()
        assert await everything(database) == []
        await first.commit()
        [after] = await later
        assert held.seq is not None
        assert after.seq is not None
        assert held.seq < after.seq
        assert after.waited_s > 0
        assert [one.data for one in await everything(database)] == [b"first", b"second"]
    finally:
        await one.close()
        await two.close()
