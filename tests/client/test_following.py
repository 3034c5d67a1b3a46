"""Following the stream without a consumer: everything once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway import metrics
from gateway.client import CursorGone, Forbidden, Invalid, Unauthenticated
from gateway.stream.cursor import Cursor, parse
from tests.client.town import Town, take, texts, until
from tests.stream.making import event, keep


async def test_what_was_there_and_what_comes(house: Town) -> None:
    """From the start of the stream, then live; an entry says whose it is and shows the bytes as they were sent."""
    connection = await house.connect(7, tenant="acme")
    await house.say("one", "two", connection=connection)
    async with house.client() as posthouse, posthouse.events() as events:
        first, second = await take(events, 2)
        await house.say("thrée")
        [third] = await take(events, 1)
    assert texts([first, second, third]) == ["one", "two", "thrée"]
    assert (first.partitions, first.tenants) == ((7,), ("acme",))
    assert first.connections == (first.event.subject,) == (f"conn_{connection.hex}",)
    assert (third.connections, third.event.subject) == ((), None)
    assert first.cursor < second.cursor < third.cursor
    assert first.event.time.tzinfo is not None
    assert "thr" not in repr(third), "what a provider sent belongs into no log"


async def test_events_of_our_own_have_json(house: Town) -> None:
    """`data` is bytes for every event; `json()` reads them."""
    await keep(house.database, event(b'{"state":"active"}', delivery=None, type="posthouse.connection.active"))
    async with house.client() as posthouse, posthouse.events() as events:
        [entry] = await take(events, 1)
    assert entry.event.json() == {"state": "active"}
    assert json.loads(entry.event.data) == {"state": "active"}
    assert entry.delivery is None


async def test_only_what_is_wanted(house: Town) -> None:
    """Types by dotted prefix, tenant, connection; what is filtered out is not asked for again."""
    mine, other = await house.connect(1, "acme"), await house.connect(2, "globex")
    await house.say("a", connection=mine, type="posthouse.delivery.slack.message")
    await house.say("b", connection=other, type="posthouse.delivery.slack.message")
    await house.say("c", connection=mine, type="posthouse.delivery.slackish.message")
    await house.say("d", connection=mine, type="posthouse.delivery.github.push")
    async with house.client() as posthouse:
        slack = posthouse.events(types=["posthouse.delivery.slack", "posthouse.delivery.github.push"], tenant="acme")
        assert texts(await take(slack, 2)) == ["a", "d"]
        assert texts(await take(posthouse.events(connection=f"conn_{other.hex}"), 1)) == ["b"]
        with pytest.raises(TypeError, match="list"):
            posthouse.events(types="posthouse.delivery")


@pytest.mark.parametrize("drained", [True, False])
async def test_a_restart_in_the_middle(house: Town, drained: bool) -> None:
    """A process that says good-bye and one that is cut off: the reader goes on at the next, nothing skipped or doubled."""
    await house.say(*(f"{n}" for n in range(300)))
    async with house.client() as posthouse, posthouse.events() as events:
        found = texts(await take(events, 100))
        coming = asyncio.create_task(take(events, 400))
        await house.stop(drained=drained)
        await house.start()
        await house.say(*(f"{n}" for n in range(300, 500)))
        found += texts(await coming)
    assert found == [f"{n}" for n in range(500)]


async def test_a_connection_that_is_cut_again_and_again(house: Town) -> None:
    """Wherever the cut falls, in a frame or between two, what was whole is not repeated and the rest comes."""
    async with house.client() as posthouse, posthouse.events() as events:
        found: list[str] = []
        for round in range(12):
            await house.say(*(f"{round}.{n}." + "x" * 20_000 for n in range(40)))
            found += texts(await take(events, 7))
            await house.line.cut()
            await house.line.mend()
        found += texts(await take(events, 12 * 33))
    assert [text.rstrip("x") for text in found] == [f"{round}.{n}." for round in range(12) for n in range(40)]


async def test_latest_means_the_moment_of_asking(house: Town) -> None:
    """A connection that breaks before the first event comes back to that moment, not to a later one."""
    await house.say("before")
    async with house.client() as posthouse, posthouse.events(after="latest") as events:
        coming = asyncio.create_task(take(events, 2))
        await until(_listening)
        await house.line.cut()
        await house.say("while cut off")
        await house.line.mend()
        await house.say("after")
        assert texts(await coming) == ["while cut off", "after"]


async def _listening() -> bool:
    return bool(metrics.SSE_CLIENTS._value.get())


async def test_a_place_that_retention_has_passed_is_told(house: Town) -> None:
    """CursorGone with the way on; going on there works."""
    await house.say("old", "new")
    async with house.client() as posthouse:
        [old, new] = await take(posthouse.events(), 2)
        await house.database.execute("UPDATE gateway.retention SET dropped_through = 1")
        await house.database.execute("DELETE FROM gateway.events WHERE seq = 1")
        await house.say("newest")
        with pytest.raises(CursorGone) as gone:
            await take(posthouse.events(after=_before(old.cursor)), 1)
        assert gone.value.status == 410
        assert gone.value.request_id
        assert texts(await take(posthouse.events(after=gone.value.earliest), 2)) == ["new", "newest"]
        assert texts(await take(posthouse.events(after=new.cursor), 1)) == ["newest"]


def _before(cursor: str) -> str:
    return str(Cursor(parse(cursor).epoch, 0))


async def test_who_may_not_is_told_at_once(house: Town) -> None:
    """A wrong key, a role without the action, a filter that names nothing: no endless trying."""
    await house.say("secret")
    wrong = house.key[:-1] + ("A" if house.key[-1] != "A" else "B")
    async with house.client(wrong) as posthouse:
        with pytest.raises(Unauthenticated) as refused:
            await take(posthouse.events(), 1)
        assert wrong not in repr(refused.value) + repr(posthouse)
    async with house.client(await house.key_for("reader")) as posthouse:
        assert texts(await take(posthouse.events(), 1)) == ["secret"]
        with pytest.raises(Forbidden):
            await take(posthouse.events(consumer="billing"), 1)
        with pytest.raises(Invalid):
            await take(posthouse.events(integration="no-such"), 1)


async def test_an_event_of_many_megabytes(house: Town) -> None:
    """One frame of one line, longer than any reader's line limit."""
    await house.say("x" * 6_000_000, "small")
    async with house.client() as posthouse, posthouse.events() as events:
        assert [len(text) for text in texts(await take(events, 2))] == [6_000_000, 5]
