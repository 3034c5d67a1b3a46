"""While process a waits for a refresh's answer, process b sees the connection change: reconnected, disconnected, revoked, suspended.

What happened meanwhile wins. The answer is stored only where it still belongs, it stands in nobody's way, and whoever waits is told
how things are by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.connections import transitions
from gateway.connections.fences import Fence
from gateway.connections.moves import Move
from gateway.connections.telling import Because
from gateway.ending import closing
from gateway.settings import Settings
from gateway.tokens import leases
from tests.clock import FakeClock
from tests.fakes.misbehaving import Gate, Turn
from tests.tokens.scene import Scene, consent, playing


@pytest.fixture
async def scene(settings: Settings, dsn: str, clock: FakeClock) -> AsyncIterator[Scene]:
    async with playing(settings, dsn, clock, "strict") as made:
        yield made


async def reconnected(scene: Scene) -> str:
    """Its user consents anew, at b; the refresh token that this brought."""
    await consent(scene.b, scene.provider, scene.integration, scene.connection, generation=2, version=2)
    return await scene.refresh_token()


async def waiting_at_b(scene: Scene) -> asyncio.Task[str]:
    """A reader of b's, who waits for a's refresh."""
    reading = asyncio.create_task(scene.read(scene.b))
    while not await scene.database.fetchval("SELECT waited FROM gateway.refreshes"):  # noqa: ASYNC110 - on a row
        await asyncio.sleep(0.005)
    return reading


async def test_a_reconnect_in_the_middle_is_what_everybody_gets(scene: Scene) -> None:
    """At once, from a process that is told nothing of it; and the answer of before changes nothing any more."""
    reading, other = await scene.asked_by_a("slow_answer"), await waiting_at_b(scene)
    brought = await reconnected(scene)
    assert await scene.read(scene.b) == "version 2"
    await scene.provider.gate.open()
    assert (await reading, await other) == ("version 2", "version 2")
    assert (await scene.state(), await scene.refresh_token(), scene.calls) == ("active - 2", brought, 1)
    assert await leases.look(scene.database, (scene.connection, "reader")) is None


async def test_an_old_answer_does_not_end_what_is_open_about_the_new_consent(scene: Scene) -> None:
    """b has sent the new refresh token when a's answer comes. That b has is still on record: nobody sends it a second time."""
    reading = await scene.asked_by_a("slow_answer")
    await reconnected(scene)
    await scene.run_out()
    gate = Gate()

    async def later(turn: Turn) -> None:
        made = await turn.proceed()
        await gate.wait()
        await turn.answer(*made)

    scene.provider.misbehave("refresh_token", later)
    other = asyncio.create_task(scene.read(scene.b))
    await gate.until(1)
    before = await leases.look(scene.database, (scene.connection, "reader"))
    await scene.provider.gate.open()
    assert await reading == "provider_unavailable"  # by now the new one has expired, too: come again
    again = asyncio.create_task(scene.read(scene.a))
    while await scene.database.fetchval("SELECT NOT waited FROM gateway.refreshes"):  # noqa: ASYNC110 - on a row
        await asyncio.sleep(0.005)
    after = await leases.look(scene.database, (scene.connection, "reader"))
    assert after is not None, "what b has open is on record"
    assert before is not None
    assert (before.phase, before.seen, before.fence) == ("sent", (2, 2), after.fence)
    await gate.open()
    assert (await again, await other) == ("version 3", "version 3")
    assert (await scene.state(), scene.calls) == ("active - 3", 2)


async def test_a_dead_process_stands_in_no_new_consents_way(scene: Scene) -> None:
    """What a has left open is about a token set that is gone: the new one is refreshed without waiting for any grace."""
    await scene.kill_a(await scene.asked_by_a("answer_hangs"))
    await reconnected(scene)
    await scene.run_out()
    assert (await scene.read(scene.b), await scene.state(), scene.calls) == ("version 3", "active - 3", 2)


async def test_what_lay_in_the_spool_is_not_written_over_a_new_consent(scene: Scene) -> None:
    """a has the answer and no database, dies, and comes back after the reconnect."""
    reading = await scene.asked_by_a("slow_answer")
    await scene.away_for_a()
    await scene.kill_a(reading)
    brought = await reconnected(scene)
    await scene.a_again()
    assert (await scene.state(), await scene.refresh_token(), scene.spooled) == ("active - 2", brought, 0)


async def test_a_disconnect_in_the_middle_revokes_what_comes(scene: Scene) -> None:
    """Nobody gets it, and at the provider nothing of the connection lives on."""
    reading, other = await scene.asked_by_a("slow_answer"), await waiting_at_b(scene)
    await closing.end(scene.b.regions.home, scene.b.catalog, scene.connection, scene.b.new_id)
    assert await scene.read(scene.b) == "connection_closed"
    await scene.provider.gate.open()
    assert (await reading, await other) == ("connection_closed", "connection_closed")
    assert not await scene.database.fetchval("SELECT count(*) FROM gateway.tokens")
    worker = scene.b.closing_worker(scene.b.regions.home)
    while await scene.database.fetchval("SELECT count(*) FROM gateway.closing_tasks"):
        await worker.run_once()
    assert scene.provider.grants() == []


async def test_a_revocation_in_the_middle_stands(scene: Scene) -> None:
    """The provider says that it is over, of this very generation: what its token endpoint still answered is no token of ours."""
    reading, other = await scene.asked_by_a("slow_answer"), await waiting_at_b(scene)
    because = Because(cause="uninstalled", source="delivery")
    move = Move(
        connection=scene.connection, access_profile="reader", signal="revoked", because=because, reason="uninstalled",
        fence=Fence(generation=1),
    )  # fmt: skip
    async with scene.database.transaction() as tx:
        await transitions.apply(tx, [move], scene.b.new_id)
    assert await scene.read(scene.b) == "connection_revoked"
    await scene.provider.gate.open()
    assert (await reading, await other) == ("connection_revoked", "connection_revoked")
    assert await scene.state() == "revoked uninstalled 1"
    assert not await scene.database.fetchval("SELECT count(*) FROM gateway.tokens")


async def test_a_suspension_in_the_middle_keeps_what_comes(scene: Scene) -> None:
    """It may be lifted, and then this is the token that works; until then nobody gets it."""
    reading, other = await scene.asked_by_a("slow_answer"), await waiting_at_b(scene)
    await scene.move("suspended")
    await scene.provider.gate.open()
    assert (await reading, await other) == ("connection_suspended", "connection_suspended")
    assert await scene.state() == "suspended a_reason 2"
    await scene.move("active")
    assert (await scene.read(scene.b), scene.calls) == ("version 2", 1)
