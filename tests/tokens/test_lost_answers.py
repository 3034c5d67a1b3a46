"""The matrix of lost answers: how far the call of process a had come when it was cut, times how the provider rotates.

Each cell says what becomes of the grant, and how often the provider was asked. Losses are in one column: strict, and the
provider had acted, and nobody has the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.ending import closing
from gateway.settings import Settings
from tests.clock import FakeClock
from tests.tokens.making import granted
from tests.tokens.scene import GRACE_S, Rotation, Scene, playing

ROTATIONS: tuple[Rotation, ...] = ("strict", "grace", "none")
LEASE_OVER_S = 31.0
GRACE_OVER_S = 36 + 900.0


@pytest.fixture
async def scene(settings: Settings, dsn: str, clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with playing(settings, dsn, clock, request.param) as made:
        yield made


every = pytest.mark.parametrize("scene", ROTATIONS, indirect=True)
strict = pytest.mark.parametrize("scene", ["strict"], indirect=True)
forgiving = pytest.mark.parametrize("scene", ["grace", "none"], indirect=True)


# Before the send: nothing has left, whatever the provider does with tokens.


@every
async def test_before_it_was_sent_nothing_is_lost(scene: Scene) -> None:
    """The lease was a dead process's, and no byte had left: as soon as it is over the next one goes on."""
    await scene.claimed_by_a()
    await scene.kill_a()
    await scene.pass_s(LEASE_OVER_S, scene.b)
    assert (await scene.read(scene.b), await scene.state(), scene.calls) == ("version 2", "active - 2", 1)


# After the send, and the provider has not acted: one more try rescues it everywhere.


@strict
async def test_sent_and_not_acted_on_is_rescued_after_the_grace(scene: Scene) -> None:
    """Nobody may know that it was not acted on: until the grace is over the token is left alone."""
    await scene.kill_a(await scene.asked_by_a("hang"))
    await scene.pass_s(LEASE_OVER_S, scene.b)
    assert (await scene.read(scene.b), await scene.state(), scene.calls) == ("checking", "suspect answer_lost 1", 1)
    await scene.pass_s(GRACE_OVER_S, scene.b)
    assert (await scene.read(scene.b), await scene.state(), scene.calls) == ("version 2", "active - 2", 2)
    assert await scene.told() == ["suspect", "repaired"]


@forgiving
async def test_sent_and_not_acted_on_is_asked_again_at_once(scene: Scene) -> None:
    await scene.kill_a(await scene.asked_by_a("hang"))
    await scene.pass_s(LEASE_OVER_S, scene.b)
    assert (await scene.read(scene.b), await scene.state(), scene.calls) == ("version 2", "active - 2", 2)
    assert await scene.told() == []


# After the send, and the provider has acted: the one loss that there is.


@strict
async def test_acted_on_and_nobody_has_the_answer_is_the_loss(scene: Scene) -> None:
    """One try after the grace, refused; and never another one."""
    await scene.kill_a(await scene.asked_by_a("answer_hangs"))
    await lost(scene)


@forgiving
async def test_acted_on_and_nobody_has_the_answer_is_asked_again_at_once(scene: Scene) -> None:
    """The provider lets the old token live."""
    await scene.kill_a(await scene.asked_by_a("answer_hangs"))
    await rescued(scene)


@pytest.mark.parametrize("scene", ["grace"], indirect=True)
async def test_a_grace_that_has_run_out_is_none(scene: Scene) -> None:
    """Then it is like a strict provider: the dead one's spool is waited for, and one try is the last."""
    await scene.kill_a(await scene.asked_by_a("answer_hangs"))
    scene.clock.move(GRACE_S + 1)
    await scene.pass_s(GRACE_S + 1, scene.b)
    assert (await scene.read(scene.b), scene.calls) == ("checking", 1)
    await scene.pass_s(GRACE_OVER_S, scene.b)
    assert (await scene.read(scene.b), await scene.state()) == ("reauth_required", "reauth_required answer_lost 1")
    assert scene.calls == 2


async def lost(scene: Scene) -> None:
    await scene.pass_s(GRACE_OVER_S, scene.b)
    assert (await scene.read(scene.b), scene.calls) == ("reauth_required", 2)
    assert await scene.state() == "reauth_required answer_lost 1"
    await scene.pass_s(GRACE_OVER_S, scene.b)
    assert (await scene.read(scene.b), scene.calls) == ("reauth_required", 2)
    assert (await scene.told())[-1] == "reauth_required"


async def rescued(scene: Scene) -> None:
    await scene.pass_s(LEASE_OVER_S, scene.b)
    assert (await scene.read(scene.b), await scene.state(), scene.calls) == ("version 2", "active - 2", 2)
    assert await scene.told() == []


# After the receipt, before the commit.


@every
async def test_received_and_not_committed_is_kept_in_memory(scene: Scene) -> None:
    """The database comes back before the process is gone: written, asked for once, and the spool is empty again."""
    reading = await scene.asked_by_a("slow_answer")
    await scene.away_for_a()
    await scene.pass_s(60, scene.b)
    await scene.wire.open()
    assert await reading in ("version 2", "unavailable")  # who waited may have been told to come again
    while scene.spooled:  # noqa: ASYNC110 - on a result, not on time
        await asyncio.sleep(0.01)
    assert (await scene.read(scene.a), await scene.read(scene.b)) == ("version 2", "version 2")
    assert (await scene.state(), scene.calls, await scene.sources()) == ("active - 2", 1, ["refresh", "consent"])


@strict
async def test_received_while_the_database_says_nothing_at_all(scene: Scene) -> None:
    """Nothing fails, and nothing comes: killed in that moment, it is in the spool already."""
    scene.a.refresher._endings.silent_s = 0.0  # as soon as it waits
    reading = await scene.asked_by_a("slow_answer")
    scene.wire.mute()
    await scene.provider.gate.open()
    while not scene.spooled:  # noqa: ASYNC110 - on a result, not on time
        await asyncio.sleep(0.005)
    await scene.kill_a(reading)
    await scene.a_again()
    assert (await scene.state(), scene.calls, await scene.sources()) == ("active - 2", 1, ["spool", "consent"])


@strict
async def test_received_and_gone_with_its_process_is_the_loss(scene: Scene) -> None:
    """The spool's disk is broken as well: as if the answer had never come."""
    reading = await scene.asked_by_a("slow_answer")
    await scene.away_for_a(spool=False)
    await scene.kill_a(reading)
    await lost(scene)


@forgiving
async def test_received_and_gone_with_its_process_is_asked_again(scene: Scene) -> None:
    reading = await scene.asked_by_a("slow_answer")
    await scene.away_for_a(spool=False)
    await scene.kill_a(reading)
    await rescued(scene)


# The database is away: the spool.


@every
async def test_spooled_it_outlives_its_process(scene: Scene) -> None:
    """Written when it starts again, before it is ready, with the life that it has left; asked for once."""
    await in_the_spool(scene)
    await scene.pass_s(100)
    again = await scene.a_again()
    assert (await scene.state(), scene.calls, scene.spooled) == ("active - 2", 1, 0)
    assert (await scene.read(again), await scene.read(scene.b), scene.calls) == ("version 2", "version 2", 1)
    assert await scene.sources() == ["spool", "consent"]
    grant = await scene.grant()
    assert grant.expires_at is not None
    assert grant.issued_at is not None
    assert 3480 < (grant.expires_at - grant.issued_at).total_seconds() <= 3500
    assert await scene.told() == []


@strict
async def test_spool_on_a_then_b_then_a_is_back(scene: Scene) -> None:
    """B leaves the token alone, since a may have the answer; and it has."""
    await in_the_spool(scene)
    await scene.pass_s(LEASE_OVER_S, scene.b)
    assert (await scene.read(scene.b), scene.calls) == ("checking", 1)
    await scene.a_again()
    assert (await scene.read(scene.b), await scene.state(), scene.calls) == ("version 2", "active - 2", 1)
    assert (await scene.told(), scene.spooled) == (["suspect", "repaired"], 0)


@forgiving
async def test_spool_on_a_then_b_has_gone_on_then_a_is_back(scene: Scene) -> None:
    """B's is the newer one: it stands, and a's is dropped."""
    await in_the_spool(scene)
    await rescued(scene)
    kept = await scene.refresh_token()
    await scene.a_again()
    assert (await scene.refresh_token(), await scene.state(), scene.spooled) == (kept, "active - 2", 0)
    assert (await scene.sources(), scene.calls) == (["refresh", "consent"], 2)


@strict
async def test_spool_on_a_then_the_grace_is_over_then_a_is_back(scene: Scene) -> None:
    """B has sent the old token, which ended the family: what a brings is dead too, and nobody is told that all is well."""
    await in_the_spool(scene)
    await lost(scene)
    again = await scene.a_again()
    assert (await scene.state(), scene.spooled) == ("suspect answer_lost 2", 0)
    assert await again.checkers["default"].run_once() == 1
    assert scene.calls == 3
    await scene.pass_s(601, scene.b)
    assert await again.checkers["default"].run_once() == 1
    assert (await scene.grant()).state == "reauth_required"
    assert (await scene.told(), scene.calls) == (["reauth_required", "suspect", "reauth_required"], 4)


@strict
async def test_spool_on_a_and_the_family_outlives_the_second_try(scene: Scene) -> None:
    """A provider that refuses an old token and ends nothing: what a brings works, and a check says so at once."""
    await in_the_spool(scene)
    scene.provider.misbehave("refresh_token", "invalid_grant")
    await lost(scene)
    again = await scene.a_again()
    assert await again.checkers["default"].run_once() == 1
    assert (await scene.state(), await scene.read(scene.b)) == ("active - 3", "version 3")
    assert (await scene.told())[-2:] == ["suspect", "repaired"]


# What else may have happened when a is back.


@forgiving
async def test_what_another_process_has_asked_for_meanwhile_is_waited_for(scene: Scene) -> None:
    """B's call is out when a starts: its answer is the newer one, and ours stays in the spool until it is known."""
    await in_the_spool(scene)
    await scene.pass_s(LEASE_OVER_S, scene.b)
    scene.provider.misbehave("refresh_token", "slow_answer")
    reading = asyncio.create_task(scene.read(scene.b))
    await scene.provider.gate.until(1)
    again = await scene.a_again()
    assert (scene.spooled, await scene.state()) == (1, "active - 1")
    await scene.provider.gate.open()
    assert await reading == "version 2"
    assert (await again.drain_spool(), scene.spooled, await scene.sources()) == (0, 0, ["refresh", "consent"])


@forgiving
async def test_what_another_process_has_lost_too_is_made_good(scene: Scene) -> None:
    """B's answer never comes: ours is the one there is."""
    await in_the_spool(scene)
    await scene.pass_s(LEASE_OVER_S, scene.b)
    scene.provider.misbehave("refresh_token", "close")
    assert await scene.read(scene.b) == "provider_unavailable"
    await scene.a_again()
    assert (await scene.read(scene.b), await scene.sources(), scene.spooled) == ("version 2", ["spool", "consent"], 0)


@strict
async def test_a_connection_that_was_closed_meanwhile_is_revoked_with_what_came(scene: Scene) -> None:
    """The end took the token of before; the one in the spool must not live on."""
    await in_the_spool(scene)
    await closing.end(scene.b.regions.home, scene.b.catalog, scene.connection, scene.b.new_id)
    await scene.a_again()
    assert scene.spooled == 0
    await scene.b.closing_worker(scene.b.regions.home).run_once()
    brought = [token for token in scene.provider.sandbox.tokens.values() if token.kind == "refresh_token"]
    assert [token.ended for token in brought] == [True, True]


@strict
async def test_a_consent_that_came_meanwhile_stands(scene: Scene) -> None:
    """The user has connected again while the old answer lay in the spool."""
    await in_the_spool(scene)
    await granted(scene.b.regions.home, scene.connection, "acme", generation=2, access="theirs", refresh="newer")
    await scene.a_again()
    assert (await scene.refresh_token(), await scene.state(), scene.spooled) == ("newer", "active - 2", 0)


@strict
async def test_one_that_was_written_and_not_removed_changes_nothing(scene: Scene) -> None:
    """Killed between the two: it is found again, and is overtaken by itself."""
    await in_the_spool(scene)
    [file] = scene.settings.spool_folder.glob("*.spool")
    data = file.read_bytes()
    again = await scene.a_again()
    file.write_bytes(data)
    before = await history_of(scene)
    assert (await again.drain_spool(), scene.spooled, await scene.state()) == (0, 0, "active - 2")
    assert await history_of(scene) == before


@strict
async def test_one_that_cannot_be_sealed_stays(scene: Scene) -> None:
    """Another keyring's file is set aside, an integration that is gone may come back: neither is lost, nobody stumbles."""
    await in_the_spool(scene)
    await scene.database.execute("DELETE FROM control.integrations")
    again = await scene.a_again()
    assert (await again.drain_spool(), scene.spooled) == (1, 1)


@strict
async def test_while_it_cannot_be_written_nobody_sends_the_old_token(scene: Scene) -> None:
    """The grace is over, and a is back, and the write fails. It speaks for its former self until it succeeds."""
    await in_the_spool(scene)
    await scene.database.execute("ALTER TABLE gateway.rotations ADD CONSTRAINT odd CHECK (source <> 'spool') NOT VALID")
    await scene.pass_s(GRACE_OVER_S, scene.b)
    again = await scene.a_again()
    assert (scene.spooled, await scene.read(scene.b), scene.calls) == (1, "checking", 1)
    await scene.database.execute("ALTER TABLE gateway.rotations DROP CONSTRAINT odd")
    assert (await again.drain_spool(), scene.spooled) == (0, 0)
    assert (await scene.read(scene.b), scene.calls) == ("version 2", 1)


async def in_the_spool(scene: Scene) -> None:
    """A has the answer on its disk, and is dead."""
    reading = await scene.asked_by_a("slow_answer")
    await scene.away_for_a()
    await scene.kill_a(reading)
    assert (scene.spooled, await scene.state()) == (1, "active - 1")


async def history_of(scene: Scene) -> int:
    return int(await scene.database.fetchval("SELECT count(*) FROM gateway.history"))
