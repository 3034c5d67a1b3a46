"""Whose event is it? Looked up under the append lock, so that an activation and a delivery never miss each other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import combinations
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from gateway.database import Database
from gateway.stream.append import append
from gateway.stream.consumers import partition_of
from tests.stream.making import (
    INTEGRATION,
    OTHER_INTEGRATION,
    connect,
    event,
    everything,
    fresh,
    keep,
    until,
    waiting_for_a_lock,
)


async def test_before_and_after_a_connection_is_known(database: Database) -> None:
    """An event that matches nobody is kept with nobody; from the connection's registration on it is the connection's."""
    account = fresh()
    [before] = await keep(database, event(b"before", accounts=(account,)))
    connection = await connect(database, accounts=(account,))
    [after] = await keep(database, event(b"after", accounts=(account,)))
    assert (before.matched, after.matched) == (False, True)
    lonely, found = await everything(database)
    assert (lonely.connections, lonely.tenants) == ((), ())
    assert lonely.partitions == (partition_of(account),)
    assert (found.connections, found.tenants) == ((connection,), ("acme",))
    assert found.partitions == (partition_of(connection),)


async def test_one_account_of_several_connections_of_two_tenants(database: Database) -> None:
    """All of them are named, tenant by tenant in the order of the connections; one partition for each, none twice."""
    account, other = fresh(), fresh()
    acme = [await connect(database, tenant="acme", accounts=(account, other)) for _ in range(2)]
    globex = await connect(database, tenant="globex", accounts=(account,))
    await keep(database, event(accounts=(account, other)), event(accounts=(other,)))
    both, one = await everything(database)
    tenant_of = {acme[0]: "acme", acme[1]: "acme", globex: "globex"}
    assert both.connections == tuple(sorted(tenant_of))
    assert both.tenants == tuple(tenant_of[connection] for connection in both.connections)
    assert both.partitions == tuple(sorted({partition_of(connection) for connection in tenant_of}))
    assert one.connections == tuple(sorted(acme))
    assert one.tenants == ("acme", "acme")


async def test_connections_of_one_partition_are_one_entry(database: Database) -> None:
    """A worker that has the partition sees the event once."""
    account = fresh()
    twins = [UUID(bytes=fresh().bytes[:15] + bytes([value])) for value in (7, 7 + 64)]
    for twin in twins:
        await connect(database, id=twin, accounts=(account,))
    await keep(database, event(accounts=(account,)))
    [one] = await everything(database)
    assert set(one.connections) == set(twins)
    assert one.partitions == (7,)


async def test_the_same_account_at_another_integration_is_another_account(database: Database) -> None:
    """Hashes are looked up within the integration that the delivery came to."""
    account = fresh()
    here = await connect(database, accounts=(account,))
    there = await connect(database, integration=OTHER_INTEGRATION, accounts=(account,))
    sent = [event(accounts=(account,), integration=i) for i in (INTEGRATION, OTHER_INTEGRATION, None)]
    await keep(database, *sent)
    assert [one.connections for one in await everything(database)] == [(here,), (there,), ()]


async def test_a_connection_in_trouble_still_gets_its_deliveries(database: Database) -> None:
    """Trouble is the platform's to know; only a connection that is not yet or no more has none."""
    for state in ("active", "suspect", "suspended", "reauth_required", "revoked"):
        account = fresh()
        connection = await connect(database, state=state, accounts=(account,))
        await keep(database, event(accounts=(account,)), event(connection=connection))
        assert [one.connections for one in await everything(database)][-2:] == [(connection,)] * 2, state


async def test_a_connection_that_is_not_yet_or_no_more_gets_none(database: Database) -> None:
    """Neither by account nor by its hook endpoint; but what we say ourselves about its end is its own."""
    for state in ("pending", "closed"):
        account = fresh()
        connection = await connect(database, state=state, accounts=(account,))
        kept = await keep(
            database,
            event(accounts=(account,)),
            event(connection=connection),
            event(connection=connection, delivery=None, type="posthouse.connection.closed"),
        )
        assert [one.matched for one in kept] == [False, False, True], state
        assert [one.connections for one in await everything(database)][-3:] == [(), (), (connection,)], state


async def test_an_endpoint_decides_alone(database: Database) -> None:
    """Where the URL is one connection's, accounts in the body name nobody else; one that is gone gets nothing."""
    account = fresh()
    mine, other = await connect(database), await connect(database, tenant="globex", accounts=(account,))
    await keep(database, event(connection=mine, accounts=(account,)), event(connection=fresh(), accounts=(account,)))
    named, nobody = await everything(database)
    assert named.connections == (mine,)
    assert nobody.connections == ()
    assert other not in named.connections


async def test_what_nobody_wants_is_dropped_where_it_is_said_so(database: Database) -> None:
    """Unmatched and `drop`: not on the log, not a duplicate either, and counted; its neighbours keep their places."""
    account = fresh()
    await connect(database, accounts=(account,))
    sent = [
        event(b"0", drop=True, accounts=(account,)),
        event(b"1", drop=True, accounts=(fresh(),)),
        event(b"2", accounts=(fresh(),)),
        event(b"3", drop=True),
        event(b"4", drop=True, accounts=(fresh(), account)),
    ]
    kept = await keep(database, *sent)
    assert [(one.seq is not None, one.matched, one.duplicate) for one in kept] == [
        (True, True, False), (False, False, False), (True, False, False), (False, False, False), (True, True, False),
    ]  # fmt: skip
    assert [one.data for one in await everything(database)] == [b"0", b"2", b"4"]
    again = await keep(database, sent[1], event(b"5", drop=True), event(b"6"))
    assert [(one.seq is not None, one.duplicate) for one in again] == [(False, True), (False, False), (True, False)]


async def test_many_accounts_of_one_item(database: Database) -> None:
    """A Slack message in a shared channel names every workspace it is in."""
    accounts = [fresh() for _ in range(200)]
    connections = [await connect(database, accounts=(account,)) for account in accounts[::20]]
    await keep(database, event(accounts=tuple(accounts)))
    [one] = await everything(database)
    assert one.connections == tuple(sorted(connections))
    hashes = await database.fetchval("SELECT accounts FROM gateway.events")
    assert hashes == accounts


Step = Callable[[], Awaitable[Any]]


async def _interleaved(database: Database, turns: tuple[str, ...], scripts: dict[str, list[Step]]) -> None:
    """Run each script's steps in the order of `turns`; a step that waits for a lock is left waiting meanwhile."""
    last: dict[str, asyncio.Task[Any]] = {}

    async def then(before: asyncio.Task[Any] | None, step: Step) -> None:
        if before is not None:
            await before
        await step()

    async def settled() -> bool:
        blocked = sum(not task.done() for task in last.values())
        return blocked == 0 or await waiting_for_a_lock(database)

    for turn in turns:
        last[turn] = asyncio.create_task(then(last.get(turn), scripts[turn].pop(0)))
        await until(settled)
    await asyncio.gather(*last.values())


ORDERS = [
    tuple("D" if place in delivery else "A" for place in range(5)) for delivery in combinations(range(5), 2)
]  # activation: register, append, commit; delivery: append, commit


async def test_every_interleaving_of_activation_and_delivery(database: Database) -> None:
    """A delivery with a higher number than the activation's event is the connection's; one with a lower is not."""
    for turns in ORDERS:
        before = len(await everything(database))
        connection = await _activation_and_delivery(database, turns)
        first, second = (await everything(database))[before:]
        assert {first.data, second.data} == {b"activated", b"delivery"}
        arrived = first if first.data == b"delivery" else second
        assert arrived.connections == ((connection,) if arrived is second else ()), turns


async def _activation_and_delivery(database: Database, turns: tuple[str, ...]) -> UUID:
    """Both, in the order of `turns`; the id of the connection that was activated."""
    account, connection = fresh(), fresh()
    a, d = await database.connect(), await database.connect()
    try:
        activation, delivery = a.transaction(), d.transaction()
        await activation.start()
        await delivery.start()
        news = event(b"activated", connection=connection, delivery=None)
        scripts: dict[str, list[Step]] = {
            "A": [
                lambda: connect(a, id=connection, accounts=(account,)),
                lambda: append(a, [news]),
                activation.commit,
            ],
            "D": [lambda: append(d, [event(b"delivery", accounts=(account,))]), delivery.commit],
        }
        await _interleaved(database, turns, scripts)
    finally:
        await a.close()
        await d.close()
    return connection


async def test_a_transaction_with_an_older_snapshot_cannot_append(database: Database) -> None:
    """It would not see the connections of an activation with a lower number: refused, rather than wrong now and then."""
    for isolation in ("repeatable_read", "serializable"):
        with pytest.raises(asyncpg.InvalidTransactionStateError):
            async with database.transaction(isolation) as db:
                await append(db, [event()])
    assert await everything(database) == []


async def test_activations_and_ends_amid_deliveries(database: Database) -> None:
    """Accounts are connected and closed while deliveries pour in: each is attributed exactly between the two events."""
    accounts = [fresh() for _ in range(8)]
    chance = random.Random(4)
    over = asyncio.Event()

    async def lives(account: UUID) -> None:
        db = await database.connect()
        try:
            for _ in range(6):
                async with db.transaction():
                    connection = await connect(db, accounts=(account,))
                    await append(db, [event(b"begins", connection=connection, delivery=None, accounts=(account,))])
                async with db.transaction():
                    await db.execute("UPDATE gateway.connections SET state = 'closed' WHERE id = $1", connection)
                    await append(db, [event(b"ends", connection=connection, delivery=None, accounts=(account,))])
        finally:
            await db.close()

    async def deliver() -> None:
        db = await database.connect()
        try:
            while not over.is_set():
                await append(db, [event(b"delivery", accounts=(chance.choice(accounts),)) for _ in range(3)])
        finally:
            await db.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(deliver())
        await asyncio.gather(*(lives(account) for account in accounts))
        over.set()

    living: dict[UUID, UUID] = {}
    seen = {True: 0, False: 0}
    hashes = {r["seq"]: r["accounts"][0] for r in await database.fetch("SELECT seq, accounts FROM gateway.events")}
    for one in await everything(database):
        account = hashes[one.seq]
        if one.data == b"begins":
            [living[account]] = one.connections
        elif one.data == b"ends":
            assert one.connections == (living.pop(account),)
        else:
            expected = (living[account],) if account in living else ()
            assert one.connections == expected
            seen[bool(expected)] += 1
    assert seen[True]
    assert seen[False]
