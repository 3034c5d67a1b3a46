"""One row that the database refuses, among others that it would take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.database import Database
from gateway.errors import Unavailable
from gateway.stream.append import Kept, NewEvent
from gateway.stream.appender import Unstorable
from tests.stream.making import appender, event, everything, fresh

MIB = 1024 * 1024
OFFENCES: dict[str, Callable[[NewEvent], NewEvent]] = {
    "a NUL in the content type": lambda e: replace(e, content_type="text/plain\0"),
    "a NUL in the type": lambda e: replace(e, type="posthouse.\0"),
    "half a surrogate pair": lambda e: replace(e, content_type="\ud800"),
    "JSON that is none": lambda e: replace(e, delivery=b'{"headers":'),
    "no UTF-8": lambda e: replace(e, delivery=b'{"x":"\xff"}'),
    "a NUL in the JSON": lambda e: replace(e, delivery=b'{"x":"\0"}'),
    "JSON too deep": lambda e: replace(e, delivery=b"[" * 100_000 + b"]" * 100_000),
    "a window beyond 32 bits": lambda e: replace(e, window_s=2**31),
}


async def test_one_bad_row_among_63_good_ones(database: Database) -> None:
    """The offender is told that it cannot be stored; the others are kept, in their order."""
    for name, offend in OFFENCES.items():
        good = [event(f"{name} {n}".encode()) for n in range(63)]
        bad = offend(event(b"bad"))
        sent = [*good[:40], bad, *good[40:]]
        before = len(await everything(database))
        async with appender(database.dsn) as log:
            outcomes = await asyncio.gather(*(log.keep([one]) for one in sent), return_exceptions=True)
        for one, outcome in zip(sent, outcomes, strict=True):
            if one is bad:
                assert isinstance(outcome, Unstorable), (name, outcome)
            else:
                assert isinstance(outcome, list), (name, outcome)
                assert outcome[0].seq is not None
        assert [one.data for one in (await everything(database))[before:]] == [one.data for one in good]


async def test_a_parcel_with_a_bad_row_is_not_kept_in_part(database: Database) -> None:
    """The items of one delivery are kept together or not at all; its keys are free again."""
    items = [event(b"1"), event(b"2", content_type="\0"), event(b"3")]
    async with appender(database.dsn) as log:
        with pytest.raises(Unstorable):
            await log.keep(items)
        assert await everything(database) == []
        kept = await log.keep([items[0], replace(items[1], content_type="text/plain"), items[2]])
        assert [one.duplicate for one in kept] == [False, False, False]


async def test_all_of_a_batch_may_be_bad(database: Database) -> None:
    """Halving ends, and the next delivery is kept."""
    async with appender(database.dsn) as log:
        outcomes = await asyncio.gather(
            *(log.keep([event(content_type="\0")]) for _ in range(9)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [Unstorable] * 9
        [kept] = await log.keep([event()])
        assert kept.seq is not None


async def test_a_day_without_a_partition_is_our_fault_not_the_deliverys(database: Database) -> None:
    """Where the log has no room for today, the answer makes the provider send again (503), and room mends it."""
    day = await database.fetchval("SELECT 'events_' || to_char(gateway.now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
    await database.execute(f"ALTER TABLE gateway.events DETACH PARTITION gateway.{day}")
    async with appender(database.dsn) as log:
        with pytest.raises(Unavailable):
            await log.keep([event(b"to be sent again")])
        await database.execute(f"DROP TABLE gateway.{day}")
        await database.execute("SELECT gateway.make_partitions(1)")
        [kept] = await log.keep([event(b"sent again")])
        assert kept.seq is not None


async def heavy(database: Database, count: int) -> None:
    body = bytes(range(256)) * (25 * MIB // 256)
    sent = [event(body) for _ in range(count)]
    async with appender(database.dsn, deadline_s=20) as log:
        outcomes = await asyncio.gather(*(log.keep([one]) for one in sent), return_exceptions=True)
        assert all(isinstance(one, list | Unavailable) for one in outcomes), outcomes
    kept = [one.id for one, outcome in zip(sent, outcomes, strict=True) if isinstance(outcome, list)]
    rows = await database.fetch(
        "SELECT id, length(data) AS size, sha256(data) = sha256($1) AS same FROM gateway.events", body
    )
    assert all(row["size"] == len(body) and row["same"] for row in rows)  # none half
    found = [row["id"] for row in rows]
    assert set(kept) <= set(found)  # one that was answered 503 may be there too: sent again, it counts once
    assert len(set(found)) == len(found)


async def test_bodies_of_25_mib_go_alone_and_whole(database: Database) -> None:
    """A body larger than a batch is a batch of its own."""
    await heavy(database, 3)


@pytest.mark.long
async def test_64_bodies_of_25_mib_at_once(database: Database) -> None:
    """Each is kept whole or answered Unavailable, none half."""
    await heavy(database, 64)


async def test_a_delivery_larger_than_a_batch_is_kept_whole(database: Database) -> None:
    """Graph may send 1,000 notifications in one request: they stay together and in order, whatever comes between."""
    many = [event(b"%d" % n) for n in range(1000)]
    async with appender(database.dsn) as log:
        outcomes = await asyncio.gather(log.keep([event(b"before")]), log.keep(many), log.keep([event(b"after")]))
    kept: list[Kept] = outcomes[1]
    seqs = [one.seq for one in kept if one.seq is not None]
    assert seqs == list(range(seqs[0], seqs[0] + 1000))
    assert [one.data for one in await everything(database)] == [b"before", *(one.data for one in many), b"after"]


async def test_an_event_of_a_stranger_is_told_from_a_twin_in_the_same_batch(database: Database) -> None:
    """Halving on account of an offender does not make its neighbours duplicates of themselves."""
    twin = fresh()
    async with appender(database.dsn) as log:
        one, bad, two = await asyncio.gather(
            log.keep([event(b"a", key=twin)]), log.keep([event(content_type="\0")]), log.keep([event(b"a", key=twin)]),
            return_exceptions=True,
        )  # fmt: skip
    assert isinstance(bad, Unstorable)
    assert isinstance(one, list)
    assert isinstance(two, list)
    assert [one[0].duplicate, two[0].duplicate] == [False, True]
    assert len(await everything(database)) == 1
