"""The appender when its database is away, silent, slow or back again, and when it is told to stop."""

from __future__ import annotations

import asyncio

import pytest

from gateway.clock import SystemClock
from gateway.database import Database
from gateway.errors import Unavailable
from gateway.stream.appender import Appender
from tests.stream.lossy import LossyWire, lossy
from tests.stream.making import appender, event, everything, until

SOON_S, LATE_S = 0.2, 0.5


async def kept(log: Appender, data: bytes) -> bool:
    """Send until it is kept, as a provider does; never more than one at a time."""
    try:
        [one] = await log.keep([event(data)])
    except Unavailable:
        return False
    assert one.seq is not None
    return True


async def away(wire: LossyWire, how: str) -> None:
    await (wire.close() if how == "refused" else asyncio.sleep(0))
    if how == "silent":
        wire.mute()


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_away_and_in_again_by_itself(database: Database, how: str) -> None:
    """Every delivery is answered at its deadline; when the database is back, the next is kept, without a restart."""
    async with lossy(database.dsn) as wire, appender(wire.dsn, deadline_s=SOON_S, late_s=LATE_S) as log:
        assert await kept(log, b"before")
        await away(wire, how)
        began = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(*(log.keep([event(b"away")]) for _ in range(5)), return_exceptions=True)
        took_s = asyncio.get_running_loop().time() - began
        assert [type(one) for one in outcomes] == [Unavailable] * 5
        assert SOON_S * 0.9 < took_s < 2  # the promise is 2 s
        await wire.open()
        await until(lambda: kept(log, b"after"))
    found = [one.data for one in await everything(database)]
    assert found[0] == b"before"
    assert found[-1] == b"after"


async def test_the_database_was_never_there(dsn: str) -> None:
    """An appender starts without its database, and finds it when it comes."""
    async with lossy(dsn) as wire:
        await wire.close()
        async with appender(wire.dsn, deadline_s=SOON_S, late_s=LATE_S) as log:
            with pytest.raises(Unavailable):
                await log.keep([event()])
            await wire.open()
            await until(lambda: kept(log, b"first"))


async def test_a_short_absence_is_not_noticed(database: Database) -> None:
    """What arrived while the database was away is kept when it is back before the deadline."""
    async with lossy(database.dsn) as wire, appender(wire.dsn) as log:
        assert await kept(log, b"before")
        await wire.close()
        waiting = [asyncio.create_task(log.keep([event(b"%d" % n)])) for n in range(100)]
        await asyncio.sleep(0)
        await wire.open()
        await asyncio.gather(*waiting)
    assert [one.data for one in await everything(database)] == [b"before", *(b"%d" % n for n in range(100))]


async def test_the_server_ends_our_connection(database: Database) -> None:
    """An administrator's or a failover's doing; nothing is lost and nobody is told."""
    async with appender(database.dsn) as log:
        for turn in range(3):
            assert await kept(log, b"%d" % turn)
            ended = await database.fetchval(
                """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE datname = current_database() AND query LIKE '%FROM gateway.append(%' AND pid <> pg_backend_pid()"""
            )
            assert ended == 1
    assert len(await everything(database)) == 3


async def test_somebody_holds_the_append_lock_too_long(database: Database) -> None:
    """Those who wait are told at their deadline; afterwards it goes on."""
    holder = await database.connect()
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT pg_advisory_xact_lock(hashtext('posthouse.append'))")
        async with appender(database.dsn, deadline_s=SOON_S, late_s=LATE_S) as log:
            with pytest.raises(Unavailable):
                await log.keep([event(b"waits")])
            await transaction.rollback()
            await until(lambda: kept(log, b"goes on"))
    finally:
        await holder.close()


async def test_stopping_finishes_what_is_queued(database: Database) -> None:
    """Accepted requests get their answer: whatever was given before `stop` is kept."""
    log = Appender(Database(database.dsn), SystemClock(), 60)
    await log.start()
    waiting = [asyncio.create_task(log.keep([event(bytes(100_000))])) for _ in range(300)]
    await asyncio.sleep(0)
    await log.stop()
    assert all(one.result()[0].seq is not None for one in waiting)
    assert len(await everything(database)) == 300


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_stopping_while_the_database_is_away(database: Database, how: str) -> None:
    """The queue is answered at its deadline, and the process can go: out within 25 s."""
    async with lossy(database.dsn) as wire:
        log = Appender(Database(wire.dsn), SystemClock(), SOON_S, LATE_S)
        await log.start()
        assert await kept(log, b"before")
        await away(wire, how)
        waiting = [asyncio.create_task(log.keep([event()])) for _ in range(3)]
        await asyncio.sleep(0)
        async with asyncio.timeout(15):
            await log.stop()
        assert [type(one.exception()) for one in waiting] == [Unavailable] * 3


async def test_a_request_that_is_cancelled_leaves_the_others_alone(database: Database) -> None:
    """A client that went away before its turn is not written; the batch it was in is answered."""
    async with appender(database.dsn) as log:
        waiting = [asyncio.create_task(log.keep([event(b"%d" % n)])) for n in range(10)]
        await asyncio.sleep(0)
        waiting[3].cancel()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers[3], asyncio.CancelledError)
        assert all(isinstance(one, list) for number, one in enumerate(answers) if number != 3)
        assert await kept(log, b"after")


async def test_a_lone_delivery_waits_for_nobody_and_many_share_a_commit(database: Database) -> None:
    """Group commit: what comes while a batch is under way is one batch, in the order of its coming."""
    async with appender(database.dsn) as log:
        await log.keep([event(b"alone")])
        sent = [[event(b"%d.%d" % (n, i)) for i in range(1 + n % 3)] for n in range(64)]
        await asyncio.gather(*(log.keep(parcel) for parcel in sent))
    found = [one.data for one in await everything(database)]
    assert found == [b"alone", *(one.data for parcel in sent for one in parcel)]
    commits = await database.fetchval("SELECT count(DISTINCT at) FROM gateway.events")
    assert commits <= 3  # `at` is one instant a batch
