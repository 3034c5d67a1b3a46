"""Consumers at the store: shares, handing over, fences, cursors that only go forward, lag."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gateway.database import Database
from gateway.errors import CursorGone, Invalid, NotFound, StaleFence
from gateway.stream import consumers
from gateway.stream.consumers import PARTITIONS, Commit, Leased
from gateway.stream.cursor import Cursor
from gateway.stream.read import Filter, earliest, latest, read
from tests.stream.making import event, everything, keep, shift, until, waiting_for_a_lock

NAME, TTL_S = "billing", 30.0


async def lease(database: Database, worker: str, release: list[int] | None = None, **more: str) -> list[Leased]:
    return await consumers.lease(database, NAME, worker, TTL_S, release or [], **more)


async def later(database: Database, seconds: float) -> None:
    async with database.acquire() as db:
        await shift(db, timedelta(seconds=seconds))


async def end(database: Database) -> Cursor:
    async with database.acquire() as db:
        return await latest(db)


def numbers(held: list[Leased]) -> set[int]:
    return {one.partition for one in held}


async def settle(database: Database, workers: list[str]) -> dict[str, set[int]]:
    """Let each worker lease in turn, giving back what it was asked for, until nobody is asked for more."""
    asked: dict[str, list[int]] = {}
    for _ in range(4):
        held = {worker: await lease(database, worker, asked.get(worker, [])) for worker in workers}
        asked = {worker: [one.partition for one in theirs if one.release] for worker, theirs in held.items()}
    assert not any(asked.values()), "still asked to release after four rounds"
    return {worker: numbers(theirs) for worker, theirs in held.items()}


@pytest.mark.parametrize("count", [1, 2, 4, 7, 23])
async def test_workers_that_come_one_by_one_end_with_equal_shares(database: Database, count: int) -> None:
    """The first has everything; each newcomer gets its share by the others' release, the shares differ by one at most."""
    workers: list[str] = []
    shares: dict[str, set[int]] = {}
    for number in range(count):
        workers.append(f"w{number}")
        if number in (0, count // 2, count - 1):
            shares = await settle(database, workers)
    assert sorted(p for theirs in shares.values() for p in theirs) == list(range(PARTITIONS))
    sizes = sorted(len(theirs) for theirs in shares.values())
    assert sizes[-1] - sizes[0] <= 1
    assert await settle(database, workers) == shares, "what is settled stays"


async def test_workers_that_come_at_once(database: Database) -> None:
    """Nobody is given what another holds; after a round all is given out."""
    held = await asyncio.gather(*(lease(database, f"w{n}") for n in range(4)))
    taken = [p for theirs in held for p in numbers(theirs)]
    assert len(taken) == len(set(taken))
    shares = await settle(database, [f"w{n}" for n in range(4)])
    assert {len(theirs) for theirs in shares.values()} == {16}


async def test_more_workers_than_partitions(database: Database) -> None:
    """Some have nothing, and wait; when one with a partition goes, a waiting one follows."""
    workers = [f"w{n:02}" for n in range(66)]
    for worker in workers:
        await lease(database, worker)
    first = await lease(database, workers[0])
    assert sum(not one.release for one in first) == 1
    await lease(database, workers[0], [one.partition for one in first if one.release])
    sizes = [len(await lease(database, worker)) for worker in workers]
    assert sorted(sizes) == [0, 0] + [1] * 64


async def test_partitions_are_handed_over_only_when_released(database: Database) -> None:
    """The old holder is asked, finishes, commits, and gives back; until then the new one has none of them."""
    kept = await keep(database, *(event(b"%d" % n) for n in range(5)))
    mine = await lease(database, "a")
    assert await lease(database, "b") == []
    mine = await lease(database, "a")
    asked = [one for one in mine if one.release]
    assert len(asked) == 32
    assert await lease(database, "b") == [], "not released yet"

    done = Cursor(asked[0].cursor.epoch, kept[2].seq or 0)
    await consumers.commit(database, NAME, [Commit(one.partition, one.fence, done) for one in asked])
    mine = await lease(database, "a", [one.partition for one in asked])
    assert numbers(mine) == set(range(PARTITIONS)) - numbers(asked)
    theirs = await lease(database, "b")
    assert numbers(theirs) == numbers(asked)
    assert {one.cursor for one in theirs} == {done}, "the new one goes on where the old one ended"
    assert all(new.fence > old.fence for new, old in zip(theirs, asked, strict=True))


async def test_a_worker_that_leaves_takes_nothing_back(database: Database) -> None:
    """Everything it held is free at once, and its share goes to the others; its fences are stale."""
    [*held] = await lease(database, "a")
    await lease(database, "b")
    await consumers.leave(database, NAME, "a")
    assert numbers(await lease(database, "b")) == set(range(PARTITIONS))
    with pytest.raises(StaleFence) as refused:
        await consumers.commit(database, NAME, [Commit(held[0].partition, held[0].fence, held[0].cursor)])
    assert refused.value.extra == {"partitions": [0]}
    await consumers.leave(database, NAME, "nobody")
    await consumers.leave(database, "no-such-consumer", "a")


async def test_a_worker_that_is_killed_is_replaced_when_its_lease_ends(database: Database) -> None:
    """Not before; then all its partitions are free, and what it still says is stale."""
    await settle(database, ["a", "b"])
    before = await lease(database, "a")
    await later(database, TTL_S - 1)
    assert len(await lease(database, "b")) == 32
    await later(database, 2)
    assert len(await lease(database, "b")) == 64
    with pytest.raises(StaleFence) as refused:
        await consumers.commit(database, NAME, [Commit(one.partition, one.fence, one.cursor) for one in before])
    assert refused.value.extra == {"partitions": sorted(numbers(before))}


async def test_a_lease_is_renewed_with_its_fences(database: Database) -> None:
    """As long as a worker comes in time nothing changes for it; when it comes late its fences are new."""
    first = await lease(database, "a")
    for _ in range(5):
        await later(database, TTL_S - 1)
        assert await lease(database, "a") == first
    await later(database, TTL_S + 1)
    again = await lease(database, "a")
    assert numbers(again) == numbers(first)
    assert all(new.fence > old.fence for new, old in zip(again, first, strict=True))


async def test_a_late_worker_may_still_commit_while_nobody_took_over(database: Database) -> None:
    """The fence decides, not the clock: its work is not thrown away for nothing."""
    await keep(database, event())
    [first, *_] = await lease(database, "a")
    await later(database, TTL_S + 1)
    await consumers.commit(database, NAME, [Commit(first.partition, first.fence, await end(database))])


async def test_what_is_valid_is_committed_though_the_rest_is_stale(database: Database) -> None:
    """The refusal lists the stale partitions, and only those."""
    await keep(database, event())
    held = await lease(database, "a")
    last = await end(database)
    done = [Commit(one.partition, one.fence - (one.partition % 2), last) for one in held]
    with pytest.raises(StaleFence) as refused:
        await consumers.commit(database, NAME, done)
    assert refused.value.extra == {"partitions": list(range(1, 64, 2))}
    held = await lease(database, "a")
    assert {one.partition for one in held if one.cursor == last} == set(range(0, 64, 2))


async def test_cursors_never_go_back(database: Database) -> None:
    """An older commit that comes late is accepted and changes nothing."""
    kept = await keep(database, *(event() for _ in range(9)))
    [one, *_] = await lease(database, "a")
    for place in (4, 2, 7, 0, 7):
        cursor = Cursor(one.cursor.epoch, kept[place].seq or 0)
        await consumers.commit(database, NAME, [Commit(one.partition, one.fence, cursor)])
    [one, *_] = await lease(database, "a")
    assert one.cursor.seq == kept[7].seq


async def test_the_same_partition_several_times_in_one_commit(database: Database) -> None:
    """The furthest counts, in whatever order they come; a stale fence beside a valid one is told."""
    kept = await keep(database, *(event() for _ in range(9)))
    [one, *_] = await lease(database, "a")
    places = [Cursor(one.cursor.epoch, kept[place].seq or 0) for place in (3, 8, 5)]
    stale = Commit(one.partition, one.fence - 1, places[0])
    with pytest.raises(StaleFence):
        await consumers.commit(database, NAME, [*(Commit(one.partition, one.fence, p) for p in places), stale])
    [one, *_] = await lease(database, "a")
    assert one.cursor.seq == kept[8].seq


async def test_cursors_of_no_use_are_refused_and_nothing_is_committed(database: Database) -> None:
    """Beyond the end: Invalid. Of another epoch, or of an event that is not the one there: CursorGone with a way on."""
    await keep(database, event(), event())
    one, two, *_ = await lease(database, "a")
    last = await end(database)
    good = Commit(two.partition, two.fence, last)
    for cursor, error in (
        (Cursor(last.epoch, last.seq + 1), Invalid),
        (Cursor(last.epoch ^ 1, last.seq), CursorGone),
        (Cursor(last.epoch, last.seq, b"\1\2\3"), CursorGone),
    ):
        with pytest.raises(error) as refused:
            await consumers.commit(database, NAME, [good, Commit(one.partition, one.fence, cursor)])
        assert error is Invalid or "earliest" in refused.value.extra
    assert {one.cursor.seq for one in await lease(database, "a")} == {0}


async def test_commits_and_leases_at_once_do_not_lock_each_other_out(database: Database) -> None:
    """A worker renews while it commits, in any order of partitions: neither becomes the victim of a deadlock."""
    await keep(database, *(event() for _ in range(40)))
    held = await lease(database, "a")
    last = await end(database)

    async def commits(step: int) -> None:
        for seq in range(1, 41):
            ordered = held if step > 0 else held[::-1]
            cursor = Cursor(last.epoch, seq)
            await consumers.commit(database, NAME, [Commit(p.partition, p.fence, cursor) for p in ordered])

    async def renews() -> None:
        for _ in range(40):
            assert len(await lease(database, "a")) == 64

    await asyncio.gather(commits(1), commits(-1), commits(1), renews(), renews())
    assert {one.cursor.seq for one in await lease(database, "a")} == {last.seq}


async def test_a_commit_waits_for_a_change_of_hands_and_then_knows_of_it(database: Database) -> None:
    """A partition that is being given away while its old holder commits: the commit is stale, not lost in between."""
    await keep(database, event())
    [one, *_] = await lease(database, "a")
    await later(database, TTL_S + 1)
    other = await database.connect()
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            "UPDATE gateway.consumer_partitions SET fence = fence + 1, worker = 'b' WHERE partition = 0"
        )
        late = asyncio.create_task(
            consumers.commit(database, NAME, [Commit(one.partition, one.fence, await end(database))])
        )
        await until(lambda: waiting_for_a_lock(database))
        await transaction.commit()
        with pytest.raises(StaleFence):
            await late
    finally:
        await other.close()
    assert await database.fetchval("SELECT max(cursor_seq) FROM gateway.consumer_partitions") == 0


async def test_where_a_new_consumer_begins(database: Database) -> None:
    """At the earliest event unless it says "latest"; a consumer that exists is left where it is."""
    await keep(database, event(), event())
    assert {one.cursor.seq for one in await lease(database, "a", start="latest")} == {2}
    assert {one.cursor.seq for one in await lease(database, "a", start="earliest")} == {2}
    held = await consumers.lease(database, "other", "a", TTL_S)
    assert {one.cursor.seq for one in held} == {0}


async def test_reset_puts_every_partition_there_and_ends_all_leases(database: Database) -> None:
    """To a time, to the earliest, to the latest: every old fence is stale, and reading goes on from there."""
    await keep(database, event(b"old"))
    moment = await database.fetchval("SELECT gateway.now()")
    await later(database, 5)
    await keep(database, event(b"new"))
    for to, seq in (
        (moment, 1),
        ("latest", 2),
        ("earliest", 0),
        (moment + timedelta(days=1), 2),
        (datetime(2000, 1, 1, tzinfo=UTC), 0),
    ):
        held = await lease(database, "a")
        cursor = await consumers.reset(database, NAME, to)
        assert cursor.seq == seq
        with pytest.raises(StaleFence):
            await consumers.commit(database, NAME, [Commit(p.partition, p.fence, p.cursor) for p in held])
        again = await lease(database, "a")
        assert {one.cursor for one in again} == {cursor}
        assert len(await everything(database, after=again[0].cursor)) == 2 - seq
    with pytest.raises(NotFound):
        await consumers.reset(database, "no-such", "latest")


async def test_a_consumer_made_anew_knows_no_fence_of_the_old_one(database: Database) -> None:
    """Removed and made again under the same name: a worker of the first life cannot commit in the second."""
    await keep(database, event())
    [old, *_] = await lease(database, "a")
    async with database.acquire() as db:
        await consumers.remove(db, NAME)
        with pytest.raises(NotFound):
            await consumers.remove(db, NAME)
    await lease(database, "b")
    with pytest.raises(StaleFence):
        await consumers.commit(database, NAME, [Commit(old.partition, old.fence, await end(database))])


async def test_lag_is_told_by_the_partition_that_is_furthest_behind(database: Database) -> None:
    """In events (an upper bound) and in the age of the oldest one not done; nothing behind, no lag."""
    await lease(database, "a")
    async with database.acquire() as db:
        [state] = await consumers.states(db)
        assert (state.name, state.lag_events, state.lag_s, state.leased, state.workers) == (NAME, 0, 0, 64, ("a",))
    await keep(database, *(event() for _ in range(10)))
    await later(database, 100)
    await keep(database, event())
    held = await lease(database, "a")
    last = await end(database)
    async with database.acquire() as db:
        await consumers.commit(database, NAME, [Commit(p.partition, p.fence, last) for p in held[1:]])
        [state] = await consumers.states(db, NAME)
        assert state.lag_events == 11
        assert 100 <= state.lag_s < 160
        assert state.cursor.seq == 0
        await consumers.commit(database, NAME, [Commit(held[0].partition, held[0].fence, last)])
        [state] = await consumers.states(db, NAME)
        assert (state.lag_events, state.lag_s, state.cursor) == (0, 0, last)
        await later(database, TTL_S + 1)
        [state] = await consumers.states(db, NAME)
        assert (state.leased, state.workers) == (0, ())
        assert await consumers.states(db, "nobody") == []


async def test_the_workers_of_a_consumer_read_everything_between_them(database: Database) -> None:
    """Four workers, each reading its partitions: together all events, each in exactly one pair of hands."""
    await keep(database, *(event(b"%d" % n) for n in range(500)))
    shares = await settle(database, [f"w{n}" for n in range(4)])
    async with database.acquire() as db:
        start = await earliest(db)
        pages = [await read(db, start, Filter(partitions=tuple(theirs)), 1000) for theirs in shares.values()]
    seen = sorted(int(one.data) for page in pages for one in page.events)
    assert seen == list(range(500))
