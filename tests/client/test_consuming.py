"""Workers of a consumer: leases, commits, handing over, and what happens when the gateway is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest

from gateway.client import Client, CursorGone, Entry, Events, Unauthenticated
from gateway.client.http import Pace
from gateway.client.working import Batching
from gateway.stream import consumers
from gateway.stream.consumers import ConsumerState
from tests.client.town import PATIENCE_S, Town, brief, take, texts, until
from tests.stream.making import event, keep

NAME = "billing"
AT_ONCE = Batching(events=1)
NEVER = Batching(events=10**6, seconds=10**6)


@asynccontextmanager
async def worker(house: Town, **more: object) -> AsyncIterator[Events]:
    """A worker in a process of its own, as far as the gateway can tell."""
    async with house.client() as posthouse:
        yield posthouse.events(NAME, **more)  # type: ignore[arg-type]  # keywords of events()


class Mortal:
    """A worker that can be killed: from then on it renews nothing, and says no good-bye while anybody looks."""

    def __init__(self, house: Town, name: str, batching: Batching = AT_ONCE) -> None:
        self._house, self._name, self._batching = house, name, batching
        self._dying, self._dead = asyncio.Event(), asyncio.Event()
        self.now = 1000.0
        self._client = house.client(pace=Pace(sleep=self._sleep, clock=lambda: self.now))

    async def _sleep(self, seconds: float) -> None:
        if self._dying.is_set():
            self._dead.set()
            await asyncio.sleep(3600)
        await brief(seconds)

    async def __aenter__(self) -> Mortal:
        await self._client.__aenter__()
        self.events = self._client.events(NAME, worker=self._name, batching=self._batching)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def kill(self) -> None:
        self._dying.set()
        await self._dead.wait()  # its last renewal is over
        await an_hour_passes_for(self._house, self._name)


async def state(house: Town) -> ConsumerState:
    async with house.database.acquire() as db:
        [found] = await consumers.states(db, NAME)
    return found


async def an_hour_passes_for(house: Town, name: str) -> None:
    """The leases of one worker end; nobody else's."""
    await house.database.execute(
        "UPDATE gateway.consumer_partitions SET lease_until = '-infinity' WHERE worker = $1", name
    )
    await house.database.execute("DELETE FROM gateway.consumer_workers WHERE worker = $1", name)


async def test_a_worker_alone_reads_everything_and_another_goes_on_after_it(house: Town) -> None:
    """What was finished is committed when it ends; what was in hand comes again."""
    await house.say(*(f"{n}" for n in range(10)))
    async with worker(house) as events:
        assert texts(await take(events, 6)) == ["0", "1", "2", "3", "4", "5"]
    async with worker(house) as events:
        assert texts(await take(events, 5)) == ["5", "6", "7", "8", "9"]
        await events.commit()
    assert (await state(house)).lag_events == 0
    assert (await state(house)).leased == 0, "given back, not left to run out"


async def test_all_partitions_move_with_what_they_did_not_get(house: Town) -> None:
    """A quiet partition is not left behind at the retention edge: after one event all cursors are at the end."""
    connection = await house.connect(3)
    async with worker(house, batching=AT_ONCE) as events:
        await house.say("a", "b", connection=connection)
        await take(events, 2)
        await events.commit()
        coming = asyncio.create_task(take(events, 1))
        await until(lambda: _lag_is_gone(house))
        await house.say("c", connection=connection)
        assert texts(await coming) == ["c"]


async def _lag_is_gone(house: Town) -> bool:
    return (await state(house)).lag_events == 0


async def test_a_new_consumer_may_begin_at_the_end(house: Town) -> None:
    """`after="latest"` is where a consumer that is new begins; one that exists goes on where it was."""
    await house.say("old")
    async with worker(house, after="latest") as events:
        coming = asyncio.create_task(take(events, 1))
        await until(lambda: _leased(house, 64))
        await house.say("new")
        assert texts(await coming) == ["new"]
    async with worker(house, after="latest") as events:
        assert texts(await take(events, 1)) == ["new"], "it was in hand, not finished"


async def _leased(house: Town, count: int) -> bool:
    async with house.database.acquire() as db:
        found = await consumers.states(db, NAME)
    return bool(found) and found[0].leased == count


async def test_a_consumer_keeps_its_own_place(house: Town) -> None:
    """A cursor for a consumer is a mistake that is told before anything is asked."""
    async with house.client() as posthouse:
        with pytest.raises(ValueError, match="keeps its own cursors"):
            posthouse.events(NAME, after="000000000000")


class Crew:
    """Several workers at once, and who did what in which order."""

    def __init__(self) -> None:
        self.did: list[tuple[str, Entry]] = []

    async def work(self, name: str, events: Events) -> None:
        async for entry in events:
            self.did.append((name, entry))

    def of(self, connection: UUID) -> list[str]:
        wanted = f"conn_{connection.hex}"
        return [entry.event.data.decode() for _, entry in self.did if wanted in entry.connections]


async def test_a_second_worker_gets_half_and_nothing_is_done_twice(house: Town) -> None:
    """The first is asked, finishes, commits and hands over while events flow; when one ends the other has everything."""
    connections = [await house.connect(partition) for partition in range(0, 64, 2)]
    crew = Crew()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(worker(house, worker="first"))
        tasks = [asyncio.create_task(crew.work("first", first))]
        for round in range(30):
            if round == 10:
                second = await stack.enter_async_context(worker(house, worker="second"))
                tasks.append(asyncio.create_task(crew.work("second", second)))
                await until(lambda: _shared(house, 2))
            if round == 20:
                tasks[0].cancel()
                await asyncio.wait(tasks[:1])
                await until(lambda: _shared(house, 1))
            for connection in connections:
                await house.say(f"{round}", connection=connection)
        await until(lambda: _count(crew, 30 * len(connections)))
        tasks[1].cancel()
        await asyncio.wait(tasks[1:])
    names = [name for name, _ in crew.did]
    assert names.count("second") >= 10 * len(connections) / 2
    for connection in connections:
        done = crew.of(connection)
        assert list(dict.fromkeys(done)) == [f"{round}" for round in range(30)]
        # A worker that is cancelled has one event in hand, which counts as not finished.
        assert len(done) <= 31


async def _shared(house: Town, workers: int) -> bool:
    found = await state(house)
    return found.leased == 64 and len(found.workers) == workers


async def _count(crew: Crew, count: int) -> bool:
    return len({entry.cursor for _, entry in crew.did}) >= count


async def test_partitions_at_different_places_are_joined_where_they_meet(house: Town) -> None:
    """Two workers are killed, one further than the other; their successor does each connection's rest, once."""
    low, high = await house.connect(0), await house.connect(63)
    async with Mortal(house, "one") as one, Mortal(house, "two") as two:
        await house.say("0", connection=low)
        assert texts(await take(one.events, 1)) == ["0"]
        first, second = asyncio.create_task(take(one.events, 1)), asyncio.create_task(take(two.events, 1))
        await until(lambda: _shared(house, 2))
        holder = (
            "SELECT worker FROM gateway.consumer_partitions WHERE partition = $1 AND consumer NOT LIKE 'posthouse.%'"
        )
        assert [await house.database.fetchval(holder, p) for p in (0, 63)] == ["one", "two"]
        for n in range(1, 6):
            await house.say(f"{n}", connection=low)
            await house.say(f"{n}", connection=high)
        await _say_to_both(house, low, high)
        await house.say("end", connection=low)
        await house.say("end", connection=high)
        assert texts(await first + await take(one.events, 1)) == ["1", "2"]
        assert texts(await second + await take(two.events, 4)) == ["1", "2", "3", "4", "5"]
        await one.events.commit()  # up to 2
        await two.events.commit()  # up to 5
        await one.kill()
        await two.kill()

        async with worker(house, worker="three") as three:
            rest = await take(three, 7)
            await _say_to_both(house)
            [joined] = await take(three, 1)
    seen = [(entry.event.data.decode(), {low: "low", high: "high"}[c]) for entry in rest for c in _connections(entry)]
    lows = [text for text, whose in seen if whose == "low"]
    highs = [text for text, whose in seen if whose == "high"]
    assert lows == ["3", "4", "5", "both", "end"]
    assert highs == ["both", "end"]
    assert len(joined.connections) == 2, "one entry for both: the two places have met"


async def _say_to_both(house: Town, *connections: UUID) -> None:
    """One event of two connections, in different partitions."""
    shared = event(b"both", accounts=(UUID(int=1),))
    await house.database.execute(
        "INSERT INTO gateway.connection_accounts SELECT $1, $2, unnest($3::uuid[])",
        shared.integration, UUID(int=1), list(connections),
    )  # fmt: skip
    await keep(house.database, shared)


def _connections(entry: Entry) -> list[UUID]:
    return [UUID(hex=text.removeprefix("conn_")) for text in entry.connections]


async def test_a_reset_under_way(house: Town) -> None:
    """The fences are stale: the worker drops what it has in its hands and goes on from the new place."""
    await house.say(*(f"{n}" for n in range(5)))
    async with house.client() as posthouse, worker(house, batching=AT_ONCE) as events:
        assert texts(await take(events, 5)) == ["0", "1", "2", "3", "4"]
        await posthouse.reset_consumer(NAME, "earliest")
        assert texts(await take(events, 5)) == ["0", "1", "2", "3", "4"]


async def test_a_reset_while_it_waits(house: Town) -> None:
    """Nothing is left to commit, so no refusal tells it: the next renewal does."""
    await house.say("0", "1")
    async with house.client() as posthouse, worker(house) as events:
        await take(events, 2)
        await events.commit()
        again = asyncio.create_task(take(events, 2))
        await until(lambda: _leased(house, 64))
        await posthouse.reset_consumer(NAME, "earliest")
        assert texts(await again) == ["0", "1"]


async def test_a_consumer_that_retention_has_passed_is_told_and_may_go_on(house: Town) -> None:
    """Never silently moved: CursorGone; after a reset it works again."""
    await house.say("a", "b", "c")
    async with worker(house) as events:
        await take(events, 1)
    await house.database.execute("UPDATE gateway.retention SET dropped_through = 2")
    await house.database.execute("DELETE FROM gateway.events WHERE seq <= 2")
    async with house.client() as posthouse:
        with pytest.raises(CursorGone):
            await take(posthouse.events(NAME), 1)
        await posthouse.reset_consumer(NAME, "earliest")
        assert texts(await take(posthouse.events(NAME), 1)) == ["c"]


@pytest.mark.parametrize("drained", [True, False])
async def test_the_gateway_goes_and_comes_back(house: Town, drained: bool) -> None:
    """Waiting, or in the middle of a page: the worker comes back by itself, nothing missed, nothing doubled."""
    await house.say(*(f"{n}" for n in range(50)))
    async with worker(house, batching=Batching(events=7)) as events:
        found = texts(await take(events, 20))
        coming = asyncio.create_task(take(events, 60))
        await house.stop(drained=drained)
        await house.start()
        await house.say(*(f"{n}" for n in range(50, 80)))
        found += texts(await coming)
    assert found == [f"{n}" for n in range(80)]


async def test_cut_again_and_again_while_it_works(house: Town) -> None:
    """Reads, renewals and commits fail and are made good; commits that were lost on the way back too."""
    connection = await house.connect(5)
    async with worker(house, batching=Batching(events=3)) as events:
        found: list[str] = []
        for round in range(10):
            await house.say(*(f"{round}.{n}" for n in range(10)), connection=connection)
            found += texts(await take(events, 9))
            await house.line.cut()
            await house.line.mend()
        found += texts(await take(events, 10))
        await events.commit()
    assert found == [f"{round}.{n}" for round in range(10) for n in range(10)]
    assert (await state(house)).lag_events == 0


async def test_a_worker_whose_own_clock_says_so_stops_in_time(house: Town) -> None:
    """Cut off for longer than its lease it yields nothing more, though it has a page in memory: another may work on it."""
    await house.say(*(f"{n}" for n in range(20)), connection=await house.connect(9))
    async with Mortal(house, "slow", NEVER) as slow:
        assert texts(await take(slow.events, 5)) == ["0", "1", "2", "3", "4"]
        await slow.kill()
        slow.now += 31
        nothing = asyncio.create_task(take(slow.events, 1))
        async with worker(house, worker="quick") as quick:
            assert texts(await take(quick, 20)) == [f"{n}" for n in range(20)]
        assert not nothing.done()
        nothing.cancel()
        await asyncio.wait([nothing])


async def test_a_key_that_is_revoked_ends_it(house: Town) -> None:
    """Also while it waits: what cannot be mended is raised where the caller iterates."""
    key = await house.key_for("consumer")
    async with Client(house.url, key, pace=Pace(sleep=brief)) as posthouse:
        waiting = asyncio.create_task(take(posthouse.events(NAME), 1))
        await until(lambda: _leased(house, 64))
        await house.database.execute("UPDATE control.api_keys SET revoked_at = now() WHERE role = 'consumer'")
        await house.gateway.catalog.refresh()
        with pytest.raises(Unauthenticated):
            async with asyncio.timeout(PATIENCE_S):
                await waiting
