"""How a refresh ends where something goes wrong beside it: what was answered stays answered, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from gateway import exchange, processes, serve
from gateway.breakers import store
from gateway.breakers.ways import way_of
from gateway.connections import checks
from gateway.errors import Problem
from gateway.settings import Settings
from gateway.tokens import leases, refresh
from tests.clock import FakeClock
from tests.fakes.misbehaving import BY_NAME, rate_limited
from tests.tokens.scene import Scene, playing


@pytest.fixture
async def scene(settings: Settings, dsn: str, clock: FakeClock) -> AsyncIterator[Scene]:
    async with playing(settings, dsn, clock, "strict") as made:
        yield made


async def seen(scene: Scene) -> tuple[int, int]:
    grant = await scene.grant()
    return grant.generation, grant.token_version


def name(scene: Scene) -> tuple[Any, str]:
    return scene.connection, "reader"


async def test_a_refusal_that_cannot_be_written_is_no_lost_answer(scene: Scene) -> None:
    """Else the next refusal, moments later, would be taken for the proof that a lost answer asks for."""

    async def held(turn: Any) -> None:
        await turn.gate.wait()
        await BY_NAME["invalid_grant"](turn)

    scene.provider.misbehave("refresh_token", held)
    reading = asyncio.create_task(scene.read(scene.a))
    await scene.provider.gate.until(1)
    await scene.wire.close()
    await scene.provider.gate.open()
    await asyncio.wait({*scene.a.refresher._under_way.values()})
    await scene.wire.open()
    await asyncio.wait({*scene.a.refresher._endings.unwritten})
    await asyncio.gather(reading, return_exceptions=True)
    open = await leases.look(scene.database, name(scene))
    assert open is not None
    assert (open.phase, open.last_error, open.unanswered_s) == ("failed", "invalid_grant", None)
    await scene.pass_s(10, scene.a, scene.b)
    scene.provider.misbehave("refresh_token", "invalid_grant")
    await scene.read(scene.b)
    assert (await scene.state(), scene.calls) == ("suspect refresh_refused 1", 2)


async def test_what_our_own_code_cannot_read_is_lost_and_not_asked_for_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of a provider's module must not spend the refresh token with every read."""
    real = exchange._storable

    def broken(tokens: Any) -> Any:
        raise KeyError("a shape that nobody thought of")

    monkeypatch.setattr(exchange, "_storable", broken)
    assert await scene.read(scene.a) == "provider_unavailable"
    assert await scene.state() == "suspect answer_lost 1"
    monkeypatch.setattr(exchange, "_storable", real)
    assert [await scene.read(scene.a), await scene.read(scene.b)] == ["checking", "checking"]
    assert scene.calls == 1


async def test_an_end_that_is_not_written_yet_holds_its_own_process_too(scene: Scene) -> None:
    await scene.claimed_by_a()
    await scene.database.execute("UPDATE gateway.refreshes SET phase = 'sent'")
    assert (await scene.read(scene.a), scene.calls) == ("checking", 0)


async def test_a_reader_is_not_refused_what_the_scheduler_is(scene: Scene) -> None:
    """It joins a refresh ahead of time, which waits for nothing and nobody: then the reader asks for itself."""
    ahead = asyncio.create_task(
        scene.a.refresher.renew(scene.a.regions.home, name(scene), await seen(scene)), name="scheduler"
    )
    lent = scene.a.breakers["default"]._places
    places = [lent.one(way, waits=False) for way in [_scope(scene)] * scene.settings.calls_at_once]
    for place in places:
        await place.__aenter__()
    reading = asyncio.create_task(scene.read(scene.a))
    while not ahead.done():  # noqa: ASYNC110 - on a result, not on time
        await asyncio.sleep(0)
    assert ahead.exception() is not None
    for place in places:
        await place.__aexit__(None, None, None)
    assert (await reading, scene.calls) == ("version 2", 1)


def _scope(scene: Scene) -> str:
    integration = scene.a.catalog.integration_by_id(scene.integration)
    assert integration is not None
    return way_of(integration, "token").failing


async def test_nobody_waits_for_ever(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came and cannot be written is kept at; a check and the scheduler come again meanwhile."""
    monkeypatch.setattr(refresh, "MOST_WAIT_S", 0.0)
    reading = await scene.asked_by_a("slow_answer")
    region = scene.a.regions.home
    with pytest.raises(Problem, match="under way"):
        await scene.a.refresher.renew(region, name(scene), await seen(scene))
    await scene.provider.gate.open()
    assert await reading == "version 2"


async def test_a_provider_that_says_to_come_in_years_is_asked_within_the_hour(scene: Scene) -> None:
    scene.provider.misbehave("refresh_token", rate_limited(90_000_000))
    assert await scene.read(scene.a) == "provider_unavailable"
    open = await leases.look(scene.database, name(scene))
    assert open is not None
    assert 3500 < open.again_in_s <= 3600


async def test_a_process_that_drains_lets_its_calls_end_and_begins_no_checks(scene: Scene) -> None:
    """A call that is cut may have been the end of its grant; whoever asked for it may be gone."""
    process = serve.Process(scene.settings.model_copy(update={"drain_pause_s": 0.0}), only="worker")
    process.gateway = scene.a
    reading = await scene.asked_by_a("slow_answer")
    drained = asyncio.create_task(process._drain([]))
    await scene.a.draining.wait()
    async with scene.database.transaction() as tx:
        ask = checks.Ask(connection_id=scene.connection, access_profile="reader", provider="theirs", why="refused")
        await checks.ask(tx, [ask])
    await scene.a.begin_checks(scene.a.checkers["default"])
    assert (drained.done(), scene.a.checkers["default"]._tasks, scene.calls) == (False, {}, 1)
    await scene.provider.gate.open()
    await drained
    assert (await reading, scene.a.refresher._under_way) == ("version 2", {})
    for bound in process._sockets:
        bound.close()


async def test_what_lies_in_the_spool_outlives_a_database_that_is_put_back(scene: Scene) -> None:
    """It is newer than what the backup holds, and the only one that still works."""
    await scene.read(scene.b)
    await scene.run_out()
    reading = await scene.asked_by_a("slow_answer")
    await scene.away_for_a()
    await scene.kill_a(reading)
    for table in ("grants", "tokens"):
        await scene.database.execute(f"UPDATE gateway.{table} SET token_version = 1")  # noqa: S608 - a test's own words
    await scene.database.execute("DELETE FROM gateway.refreshes")
    await scene.database.execute("DELETE FROM gateway.rotations WHERE token_version > 1")
    await scene.b.drain_spool()
    assert (await scene.state(), scene.spooled, scene.calls) == ("active - 2", 0, 2)
    assert await scene.read(scene.b) == "version 2"
    await scene.run_out()
    assert (await scene.read(scene.b), scene.calls) == ("version 3", 3)


async def test_the_dead_have_no_share_of_what_a_provider_allows(scene: Scene) -> None:
    """Whoever has their spool speaks for them, for as long as an entry waits; they make no calls."""
    before = (await store.look(scene.database)).live
    await processes.vouch(scene.database, [uuid4()])
    assert await scene.database.fetchval("SELECT count(*) FROM gateway.processes") == before + 1
    assert ((await store.look(scene.database)).live, await processes.live(scene.database)) == (before, before)


async def test_a_vault_that_is_slower_than_a_lease_is_no_endless_loop(
    scene: Scene, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = leases.sent, 0

    async def late(db: Any, lease: Any) -> bool:
        nonlocal opened
        opened += 1
        clock.move(16)
        await scene.pass_s(leases.LEASE_S + 1, scene.a, scene.b)
        return await real(db, lease)

    monkeypatch.setattr(leases, "sent", late)
    async with asyncio.timeout(20):
        assert await scene.read(scene.a) == "provider_unavailable"
    assert (opened, scene.calls) == (2, 0)
