"""A claim is fair, is shared by any number of processes without doubles, and loses nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID, uuid4

import pytest

from gateway.connections import renewals
from gateway.database import Database
from subscriptions import store
from subscriptions.shares import quotas, shares
from subscriptions.store import LEASE_S, Settled
from tests.subscriptions.rows import Rows


@pytest.fixture
def rows(database: Database) -> Rows:
    return Rows(database)


async def test_a_large_tenant_does_not_hold_up_a_small_one(rows: Rows) -> None:
    """3,000 of one tenant were due first: the other's 3 are served with the next claim all the same."""
    at = uuid4()
    await rows.put(at, "large", 3000, due_in_s=-3600)
    await rows.claim(32, at)
    await rows.put(at, "small", 3)
    [*next_ones] = await rows.claim(32, at)
    served = Counter(one.tenant for one in next_ones)
    assert served["small"] == 3
    assert served["large"] == 16  # its share, no less
    assert await rows.late_turns() == 0


async def test_turns_go_round(rows: Rows) -> None:
    """Of ten tenants with plenty, none is served a third time before all are served twice."""
    at = uuid4()
    for number in range(10):
        await rows.put(at, f"tenant-{number}", 50)
    for _ in range(10):
        await rows.claim(6, at)
    served = Counter(one.tenant for one in rows.served)
    assert sum(served.values()) == 60
    assert set(served.values()) == {6}


async def test_integrations_share_what_is_free(rows: Rows) -> None:
    """One with a lot and one with little: both get theirs, and nobody gets more than its room."""
    much, little = uuid4(), uuid4()
    for number in range(8):
        await rows.put(much, f"tenant-{number}", 40)
    await rows.put(little, "tenant-0", 5)
    claimed = Counter(one.integration for one in await rows.claim(20, much, little, free=24))
    assert claimed == {much: 12, little: 5}


async def test_a_claim_is_shared_without_doubles(rows: Rows) -> None:
    """Eight processes claim at the same time until nothing is left: each connection once."""
    ats = [uuid4(), uuid4()]
    for at in ats:
        for number in range(6):
            await rows.put(at, f"tenant-{number}", 40)

    async def process() -> int:
        empty = took = 0
        while empty < 3:
            some = await rows.claim(10, *ats)
            await rows.end(*some)
            empty = 0 if some else empty + 1
            took += len(some)
        return took

    took = await asyncio.gather(*(process() for _ in range(8)))
    times = Counter(one.connection for one in rows.served)
    while rest := await rows.claim(100, *ats):  # what was locked by another at the wrong moment
        times.update(one.connection for one in rest)
        await rows.end(*rest)
    assert set(times.values()) == {1}
    assert len(times) == 480
    assert sum(1 for number in took if number) >= 2  # it was shared
    assert await rows.late_turns() == 0


async def test_a_dead_processs_rows_come_again(rows: Rows) -> None:
    """Not before its lease ends; and what the dead one still says then changes nothing."""
    at = uuid4()
    await rows.put(at, "acme", 4)
    first = await rows.claim(10, at)
    assert len(first) == 4
    assert await rows.claim(10, at) == []
    await rows.shift(LEASE_S - 2)
    assert await rows.claim(10, at) == []
    await rows.shift(4)
    again = await rows.claim(10, at)
    assert {one.connection for one in again} == {one.connection for one in first}
    assert await rows.end(*first) == set()
    assert await rows.end(*again) == {one.connection for one in again}
    assert await rows.late_turns() == 0


async def test_what_is_asked_meanwhile_is_looked_at(rows: Rows) -> None:
    """A change of a connection whose renewal is under way: due again as soon as that ends, and not before."""
    at = uuid4()
    await rows.put(at, "acme", 2)
    touched, other = await rows.claim(10, at)
    asked = {
        row["connection_id"]: row["asked_at"] for row in await rows.database.fetch("SELECT * FROM gateway.renewals")
    }
    async with rows.database.transaction() as tx:
        await renewals.touch(tx, [touched.connection])
    assert await rows.claim(10, at) == []  # the lease is respected
    done = [
        Settled(one.connection, one.fence, asked[one.connection], float("inf"), "look", "unused")
        for one in (touched, other)
    ]
    await store.settle(rows.database, done)
    [again] = await rows.claim(10, at)
    assert again.connection == touched.connection
    assert await rows.late_turns() == 0


async def test_a_row_that_is_being_written_is_left_to_its_writer(rows: Rows) -> None:
    """It is neither waited for nor lost, also where its writer changes its mind."""
    at = uuid4()
    await rows.put(at, "acme", 3)
    one = await rows.database.fetchval("SELECT connection_id FROM gateway.renewals LIMIT 1")
    writer = await rows.database.connect()
    try:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("UPDATE gateway.renewals SET due_at = 'infinity' WHERE connection_id = $1", one)
        taken = await asyncio.wait_for(rows.claim(10, at), 5)
        assert len(taken) == 2
        assert one not in {each.connection for each in taken}
        await rows.end(*taken)
        await transaction.rollback()
    finally:
        await writer.close()
    assert await rows.late_turns() == 0 or await rows.claim(10, at) == []
    await rows.shift(2)
    [left] = await rows.claim(10, at)
    assert left.connection == one


async def test_what_falls_due_later_waits(rows: Rows) -> None:
    """The tenant's turn is when the first falls due, and the scheduler knows how long it may sleep."""
    at, other = uuid4(), uuid4()
    await rows.put(at, "acme", 3, due_in_s=600)
    assert await rows.claim(10, at) == []
    told = await store.next_turns(rows.database, [at, other])
    assert set(told) == {at}
    assert 590 < told[at] <= 600
    await rows.shift(601)
    assert len(await rows.claim(10, at)) == 3


async def test_a_claim_before_its_time_costs_a_look(rows: Rows) -> None:
    """A turn that came too early is put where it belongs."""
    at = uuid4()
    await rows.put(at, "acme", 1, due_in_s=600)
    await rows.put(at, "done", 1)
    await rows.end(*await rows.claim(10, at))
    await rows.database.execute("UPDATE gateway.renewal_queues SET turn_at = gateway.now() - interval '1 hour'")
    assert await rows.claim(10, at) == []
    told = await rows.database.fetch("SELECT tenant_id, turn_at = 'infinity' AS never FROM gateway.renewal_queues")
    assert {row["tenant_id"]: row["never"] for row in told} == {"acme": False, "done": True}
    assert await rows.late_turns() == 0


def test_quotas() -> None:
    """Equal, whole, all of it, and the first go first where it is not enough for all."""
    assert quotas({"a": 1, "b": 50, "c": 50}, 20) == {"a": 1, "b": 10, "c": 9}
    assert quotas({"a": 5, "b": 5, "c": 5}, 2) == {"a": 1, "b": 1, "c": 0}
    assert quotas({"a": 5, "b": 0}, 100) == {"a": 5, "b": 0}
    assert quotas({}, 5) == {}


def test_tenants_beyond_the_quota_keep_their_turn() -> None:
    """Whoever gets nothing is left out."""
    at = UUID(int=1)
    turns = [(at, f"t{number}") for number in range(5)]
    assert shares(turns, {at: 3}, 10, 4) == {(at, "t0"): 1, (at, "t1"): 1, (at, "t2"): 1}
    assert shares(turns[:1], {at: 30}, 10, 4) == {(at, "t0"): 4}
