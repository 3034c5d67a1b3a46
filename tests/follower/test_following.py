"""Following: shared, killed anywhere, overtaken, started again. A batch happens whole or not at all, and once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from gateway.errors import Unavailable
from gateway.follower.follower import NAME, Follower
from gateway.service import Gateway
from gateway.stream import consumers
from tests.clock import FakeClock
from tests.follower.conftest import Street, follower_of
from tests.follower.test_payload_to_event import at_github
from tests.providers.signal_samples import github_installation

PLACES = "SELECT partition, cursor_seq FROM gateway.consumer_partitions WHERE consumer = $1 ORDER BY partition"
ROWS = """SELECT array_agg(xmin::text || ctid::text ORDER BY partition) FROM gateway.consumer_partitions
           WHERE consumer = $1"""
REFUSE = """
CREATE FUNCTION gateway.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE 'no' USING ERRCODE = 'disk_full'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON gateway.events FOR EACH ROW
  WHEN (NEW.type = 'posthouse.connection.revoked') EXECUTE FUNCTION gateway.refuse()"""


@pytest.fixture
async def holder(street: Street, dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else at the database."""
    made = await asyncpg.connect(dsn)
    yield made
    await made.close()


@asynccontextmanager
async def stuck(holder: Any, follower: Follower, lock: str, *arguments: object) -> AsyncIterator[asyncio.Task[int]]:
    """The follower in the middle of its batch: it has read, and waits for what `lock` has locked."""
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(lock, *arguments)
    task = asyncio.create_task(follower.run_once())
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    while not await holder.fetchval(waiting):  # noqa: ASYNC110 - on a result
        await asyncio.sleep(0)
    try:
        yield task
    finally:
        await transaction.commit()
        await asyncio.gather(task, return_exceptions=True)


async def places(street: Street) -> list[tuple[int, int]]:
    return [tuple(row) for row in await street.db.fetch(PLACES, NAME)]


async def revoked_once(street: Street) -> None:
    """Told whole, and once."""
    assert (await street.moved())["globex"] == {"installation": "revoked"}
    assert [kind for kind, _ in await street.events("globex")] == ["revoked"]
    assert [one for one in await street.outcomes("globex") if one[0] == "revoked"] == [("revoked", "moved")]


async def test_killed_between_reading_and_commit(street: Street, holder: asyncpg.Connection) -> None:
    """Nothing of the batch has happened; whoever comes next does it, and the one of before cannot do it again."""
    await at_github(street)
    await street.follow()
    await street.deliver(github_installation("deleted"))
    before = await places(street)
    lock = "SELECT FROM gateway.connections WHERE id = $1 FOR UPDATE"
    async with stuck(holder, street.follower, lock, street.known["globex"]) as task:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await street.moved(), await places(street)) == ({}, before)
    await street.town.pass_s(60)  # its lease is over
    other = follower_of(street.gateway, "another")
    while await other.run_once():
        pass
    await revoked_once(street)
    await street.follow()
    await revoked_once(street)


async def test_killed_after_the_commit_and_started_again(street: Street) -> None:
    """It goes on where it was: what was done is not read a second time."""
    await at_github(street)
    await street.deliver(github_installation("deleted"))
    await street.follow()
    await street.follower.leave()
    after = follower_of(street.gateway, "the next")
    assert await after.run_once() == 0
    await revoked_once(street)
    await street.deliver(github_installation("deleted", id=7), delivery_id="2")
    assert await after.run_once() > 0
    assert "initech" in await street.moved()


async def test_a_slow_one_that_has_lost_its_lease_does_nothing(street: Street, holder: asyncpg.Connection) -> None:
    """Its partitions were given to another while it worked: its fences are stale, and its effects with them."""
    await at_github(street)
    await street.follow()
    await street.deliver(github_installation("deleted"))
    taken = """UPDATE gateway.consumer_partitions SET worker = 'another', fence = nextval('gateway.fences')
                WHERE consumer = $1"""
    before = await places(street)
    async with stuck(holder, street.follower, taken, NAME) as task:
        pass
    assert task.exception() is None
    assert (await street.moved(), await places(street)) == ({}, before)
    await street.town.pass_s(60)
    await street.follow()
    await revoked_once(street)


async def test_a_revocation_does_not_wait_behind_requests(street: Street) -> None:
    """However many requests hold a connection each: the follower has its own, where plans are made once."""
    await at_github(street)
    await street.follow()
    await street.deliver(github_installation("deleted"))
    region = street.gateway.regions.home
    async with AsyncExitStack() as requests:
        for _ in range(10):
            await requests.enter_async_context(region.database.acquire())
        await street.follow()
    await revoked_once(street)
    plans = [await database.fetchval("SHOW plan_cache_mode") for database in (region.database, region.following)]
    assert plans == ["auto", "force_generic_plan"]


async def test_cursor_and_effects_are_one_commit(street: Street, holder: asyncpg.Connection) -> None:
    """The event cannot be appended: then the state has not moved, the token is there, and the cursor is where it was."""
    await at_github(street)
    await street.follow()
    await street.deliver(github_installation("deleted"))
    before = await places(street)
    await holder.execute(REFUSE)
    with pytest.raises(Unavailable):
        await street.follower.run_once()
    assert (await street.moved(), await places(street)) == ({}, before)
    assert await street.tokens("globex") == {"installation"}
    await holder.execute("DROP TRIGGER refuse ON gateway.events")
    await street.follow()
    await revoked_once(street)


async def test_two_processes_share_the_work(street: Street, second: Gateway, clock: FakeClock) -> None:
    """Each has half of the partitions; every event is one's, and told once."""
    for number in range(24):
        await street.registered(f"c{number}", "acme", "github", f"installation:{number + 1}")
    await street.follow()
    other = follower_of(second, "another")
    for _ in range(2):  # asked for its surplus, the first gives it up at its next lease
        await other.run_once()
        clock.move(3)
        await street.follower.run_once()
        clock.move(3)
    await other.run_once()
    [state] = await consumers.states(street.db, NAME)
    assert len(state.workers) == 2
    for number in range(24):
        await street.deliver(github_installation("deleted", id=number + 1), delivery_id=str(number))
    shares = (await street.follower.run_once(), await other.run_once())
    assert min(shares) > 0
    await street.follow()
    while await other.run_once():
        pass
    assert len(await street.moved()) == 24
    for name in street.known:
        assert [kind for kind, _ in await street.events(name)] == ["revoked"]


async def test_it_writes_nothing_while_there_is_nothing(street: Street, clock: FakeClock) -> None:
    """A poll reads; cursors are moved past what is not marked every few seconds, not with each of them."""
    await at_github(street)
    await street.follow()
    rows = await street.db.fetchval(ROWS, NAME)
    for _ in range(10):
        await street.follower.run_once()
    assert await street.db.fetchval(ROWS, NAME) == rows
    before = await places(street)
    await street.deliver(github_installation("created"))  # nothing for it
    await street.follower.run_once()
    assert await places(street) == before
    clock.move(6)
    await street.follower.run_once()
    assert min(after[1] for after in await places(street)) > max(seq for _, seq in before)
