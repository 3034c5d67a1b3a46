"""The guard is released in the end, whatever is left waiting: else nothing of that provider's would ever be decided again."""

from __future__ import annotations

from gateway.connections import conditions
from gateway.connections.guard import LIMITS
from tests.checking.crowd import Crowd, crowd
from tests.checking.test_checks import REVOKED
from tests.checking.test_guard import condition
from tests.clock import FakeClock
from tests.follower.conftest import Street
from tests.follower.services import refused
from tests.web.conftest import problem

LEAST = LIMITS.least


async def tripped(street: Street, connections: int) -> Crowd:
    """By the token endpoint."""
    many = await crowd(street, connections, 10)
    street.github.how = refused
    await many.checked()
    street.github.how = None
    assert (await condition(street)).degraded_since is not None
    return many


async def test_by_the_last_that_waits(street: Street, clock: FakeClock) -> None:
    """One more than ever trips it: there are no three canaries to be had."""
    await tripped(street, LEAST + 1)
    await street.pass_s(clock, LIMITS.canary_s)
    assert await street.check() == 1
    assert (await condition(street)).degraded_since is None


async def test_by_others_while_all_that_waits_is_dead(street: Street, clock: FakeClock) -> None:
    """Canaries find nothing but grants that are over; refreshes of others succeed all the while."""
    many = await tripped(street, LEAST + 3)
    dead = [number for number, id in enumerate(many.ids) if await _waits(street, id)]
    street.github.dead.update(f"r{number}" for number in dead)
    for _ in dead:
        await street.pass_s(clock, LIMITS.canary_s)
        assert await street.check() == 1
    await street.pass_s(clock, LIMITS.canary_s)
    assert await street.check() == 0  # each was asked: not before ten minutes have gone by
    others = await street.connected("other", "acme", "github", ("user:1",), "user")
    for version in range(1, LIMITS.passes + 1):
        await street.pass_s(clock, LIMITS.canary_s)  # in the place of a canary
        name = (others, "user")
        await street.gateway.refresher.refresh(street.gateway.regions.home, *name, (1, version))
    assert (await condition(street)).degraded_since is None
    await street.pass_s(clock, 700)
    while await street.check():
        pass
    await street.pass_s(clock, 700)
    while await street.check():
        pass
    assert (await condition(street)).degraded_since is None
    assert (await many.states()) == {"active": LEAST + 1, "reauth_required": len(dead)}


async def test_dead_canaries_leave_turns_to_others(street: Street, clock: FakeClock) -> None:
    """As many as fill every turn until the first is due again: the longer they are dead, the seldomer they are asked."""
    await tripped(street, LEAST + 21)
    street.github.how = refused
    asked = []
    for _ in range(2 * 1200 // 30):  # one turn in six, so that they are as many as were asked
        await street.pass_s(clock, 30)
        asked.append(await street.check())
    assert asked.count(0) > len(asked) / 10


async def test_what_is_contested_waits_for_the_provider_to_be_well(street: Street, clock: FakeClock) -> None:
    """One that calls everybody's grants dead is no witness: no token leaves meanwhile, and nothing moves."""
    await street.connected("acme", "acme", "github", ("user:21031067",), "user")
    await tripped(street, 20)
    await street.deliver(REVOKED)
    await street.follow()
    street.github.dead.update({"acme user", "another"})
    assert await street.check() >= 1
    problem(await street.read("acme"), 409, "checking")
    assert await street.moved() == {}
    assert await conditions.released(street.db, "github", street.gateway.new_id())
    await street.pass_s(clock, 60)
    while await street.check():
        pass
    assert await street.moved() == {"acme": {"user": "revoked"}}


async def test_calls_of_the_api_do_not_release_a_token_endpoint(street: Street) -> None:
    """Else each report of a token that works would let some more grants be called dead."""
    await tripped(street, 20)
    db = street.db
    for renewed, well in ((False, False), (True, True)):
        for _ in range(LIMITS.passes):
            await conditions.well(db, "github", street.gateway.new_id, renewed=renewed)
        assert ((await condition(street)).degraded_since is None) is well


async def test_one_grant_that_fails_often_makes_nothing_usual(street: Street, clock: FakeClock) -> None:
    """A dead token that is reported every minute for a day is one connection of the week, not a thousand failures."""
    many = await crowd(street, 20, 10)
    new_id = street.gateway.new_id
    async with street.db.transaction() as tx:
        for _ in range(5000):
            await tx.execute(conditions.ADD, "github", "refused", "acme", many.ids[0])
    await street.pass_s(clock, 700)
    async with street.db.transaction() as tx:
        told = [
            (await conditions.failed(tx, "github", "refused", tenant, id, new_id())).guarded
            for id, tenant in zip(many.ids, many.tenants, strict=True)
        ]
    assert told == [False] * LEAST + [True] * 15


async def _waits(street: Street, connection: object) -> bool:
    sql = "SELECT EXISTS (SELECT FROM gateway.grant_checks WHERE connection_id = $1 AND waits)"
    return bool(await street.db.fetchval(sql, connection))
