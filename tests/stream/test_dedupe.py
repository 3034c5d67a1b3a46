"""Once on the log, whatever comes twice: in one batch, at the same time, after a lost answer, after its window."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from gateway.database import Database
from gateway.stream.append import append
from gateway.stream.appender import Appender
from gateway.stream.upkeep import Upkeep
from tests.stream.lossy import Loss, lossy
from tests.stream.making import WINDOW_S, appender, event, everything, fresh, keep, shift, until, waiting_for_a_lock


async def test_the_same_key_twice_in_one_batch(database: Database) -> None:
    """The first counts, in one delivery and in two that share a commit; the answers stay in order."""
    key = fresh()
    kept = await keep(database, event(b"1"), event(b"2", key=key), event(b"again", key=key), event(b"3"))
    assert [one.duplicate for one in kept] == [False, False, True, False]
    async with appender(database.dsn) as log:
        other = fresh()
        answers = await asyncio.gather(*(log.keep([event(b"4", key=other)]) for _ in range(5)))
        assert sorted(one.duplicate for [one] in answers) == [False, True, True, True, True]
    assert [one.data for one in await everything(database)] == [b"1", b"2", b"3", b"4"]


async def test_only_a_key_makes_two_deliveries_one(database: Database) -> None:
    """A thin notification is the same bytes each time; without a key none of them is swallowed."""
    async with appender(database.dsn) as log:
        for _ in range(3):
            answers = await asyncio.gather(*(log.keep([event(b"changed")]) for _ in range(20)))
            assert not any(one.duplicate for [one] in answers)
    assert len(await everything(database)) == 60


async def _second_while_first_is_open(database: Database, key: UUID, *, first_commits: bool) -> tuple[Any, Any]:
    """Two transactions with one key: the first is open when the second comes, and then ends."""
    one, two = await database.connect(), await database.connect()
    try:
        transaction = one.transaction()
        await transaction.start()
        first = await append(one, [event(b"first", key=key)])
        waiting = asyncio.create_task(append(two, [event(b"second", key=key), event(b"bystander")]))
        await until(lambda: waiting_for_a_lock(database))
        assert not waiting.done()
        await (transaction.commit() if first_commits else transaction.rollback())
        return first, await waiting
    finally:
        await one.close()
        await two.close()


async def test_the_loser_waits_for_the_winners_fate_which_is_to_be_kept(database: Database) -> None:
    """The word "duplicate" means kept, never maybe."""
    _, [second, bystander] = await _second_while_first_is_open(database, fresh(), first_commits=True)
    assert second.duplicate
    assert not bystander.duplicate
    assert [one.data for one in await everything(database)] == [b"first", b"bystander"]


async def test_the_loser_waits_for_the_winners_fate_which_is_to_roll_back(database: Database) -> None:
    """Then the second is kept: it was promised to its sender."""
    _, [second, bystander] = await _second_while_first_is_open(database, fresh(), first_commits=False)
    assert not second.duplicate
    assert not bystander.duplicate
    assert [one.data for one in await everything(database)] == [b"second", b"bystander"]


async def test_concurrent_batches_with_the_same_keys_in_any_order(database: Database) -> None:
    """Keys are taken in their own order, so crossing batches never deadlock, and each key is kept once."""
    keys = [fresh() for _ in range(40)]

    async def writer(log: Appender, turn: int) -> int:
        ordered = keys[turn:] + keys[:turn] if turn % 2 else list(reversed(keys[turn:] + keys[:turn]))
        kept = await log.keep([event(key.bytes, key=key) for key in ordered])
        return sum(not one.duplicate for one in kept)

    async with appender(database.dsn) as a, appender(database.dsn) as b, appender(database.dsn) as c:
        fresh_ones = await asyncio.gather(*(writer(log, turn) for turn in range(30) for log in (a, b, c)))
    assert sum(fresh_ones) == len(keys)
    assert sorted(one.data for one in await everything(database)) == sorted(key.bytes for key in keys)


async def test_after_its_window_and_a_sweep_a_key_is_new(database: Database) -> None:
    """Inside the window it is a duplicate; afterwards the sweep forgets it and nothing else."""
    short, long = fresh(), fresh()
    await keep(database, event(b"short", key=short), event(b"long", key=long, window_s=30 * 86400))
    upkeep = Upkeep(database, retention_days=365)
    async with database.acquire() as db:
        await shift(db, timedelta(seconds=WINDOW_S - 60))
        assert await upkeep.sweep(db) == 0
        await db.execute("SELECT gateway.make_partitions(7)")
    assert [one.duplicate for one in await keep(database, event(key=short), event(key=long))] == [True, True]
    async with database.acquire() as db:
        await shift(db, timedelta(seconds=120))
        assert await upkeep.sweep(db) == 1
    assert [one.duplicate for one in await keep(database, event(b"short", key=short), event(key=long))] == [False, True]


async def test_a_sweep_and_a_resend_at_the_same_time(database: Database) -> None:
    """A resend that meets its key while the sweep deletes it waits, and is kept: the key is gone then."""
    key = fresh()
    await keep(database, event(b"1", key=key, window_s=1))
    one, two = await database.connect(), await database.connect()
    try:
        transaction = one.transaction()
        await transaction.start()
        await shift(one, timedelta(seconds=60))
        assert await one.execute("DELETE FROM gateway.dedupe WHERE expires_at < gateway.now()") == "DELETE 1"
        again = asyncio.create_task(append(two, [event(b"2", key=key)]))
        await until(lambda: waiting_for_a_lock(database))
        await transaction.commit()
        assert [one.duplicate for one in await again] == [False]
    finally:
        await one.close()
        await two.close()


async def test_a_lost_answer_is_asked_for_again(database: Database) -> None:
    """Whether COMMIT happened or not, the batch is sent again, is on the log once, and counts as kept."""
    losses: list[Loss] = ["request", "half of the request", "answer", "last word"]
    sent: list[bytes] = []
    async with lossy(database.dsn) as wire, appender(wire.dsn) as log:
        await log.keep([event(b"warm")])
        for loss in losses:
            batch = [f"{loss} {n}".encode() for n in range(10)]
            wire.lose(loss)
            answers = await asyncio.gather(*(log.keep([event(data)]) for data in batch))
            assert wire.lost.is_set(), loss
            assert not any(one.duplicate for [one] in answers), loss
            sent += batch
    assert [one.data for one in await everything(database)] == [b"warm", *sent]


async def test_an_answer_is_lost_several_times(database: Database) -> None:
    """A bad line: the same batch, four times; once on the log."""
    async with lossy(database.dsn) as wire, appender(wire.dsn) as log:
        wire.lose("answer", "request", "last word", "half of the request", "answer")
        answers = await asyncio.gather(*(log.keep([event(b"%d" % n)]) for n in range(3)))
        assert wire.lost.is_set()
        assert not any(one.duplicate for [one] in answers)
        [after] = await log.keep([event(b"after")])
        assert after.seq is not None
    assert len(await everything(database)) == 4


async def test_a_twin_in_a_batch_whose_answer_was_lost(database: Database) -> None:
    """Both halves of a doubled delivery are told "kept", and it is there once."""
    key = fresh()
    async with lossy(database.dsn) as wire, appender(wire.dsn) as log:
        wire.lose("answer")
        await asyncio.gather(*(log.keep([event(b"twin", key=key)]) for _ in range(2)))
    assert [one.data for one in await everything(database)] == [b"twin"]


async def test_the_sender_gave_up_and_sends_again_through_another_process(database: Database) -> None:
    """The first process's statement is still under way there: the second's waits for its fate and is a duplicate."""
    key = fresh()
    holder = await database.connect()
    try:
        held = holder.transaction()
        await held.start()
        await append(holder, [event(b"in the way")])  # holds the append lock
        async with appender(database.dsn) as one, appender(database.dsn) as two:
            first = asyncio.create_task(one.keep([event(b"first", key=key)]))
            await until(lambda: waiting_for_a_lock(database))
            second = asyncio.create_task(two.keep([event(b"second", key=key)]))
            await until(lambda: waiting_for_a_lock(database, 2))
            await held.commit()
            assert [(await first)[0].duplicate, (await second)[0].duplicate] == [False, True]
    finally:
        await holder.close()
    assert [one.data for one in await everything(database)] == [b"in the way", b"first"]
