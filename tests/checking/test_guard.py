"""Outage is not revocation: on the real store, with the real follower, checker and provider over HTTP.

The short form has 120 connections of 10 tenants, the long one 5,000 of 50 (`.ci/run`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from starlette.responses import Response

from gateway.connections import conditions
from gateway.connections.guard import LIMITS
from gateway.stream.append import append
from tests.checking.crowd import Crowd, crowd
from tests.clock import FakeClock
from tests.follower.conftest import Street
from tests.follower.services import page, refused, unwell
from tests.providers.signal_samples import github_installation

QUIET = {"connection.active", "connection.suspect", "connection.repaired"}  # of these nobody is mailed
TOLD = {"provider.degraded": 1, "provider.recovered": 1}


async def recovers(street: Street, clock: FakeClock) -> None:
    """Canaries, one in 30 s, until the provider counts as well; not one of them more than is needed."""
    street.github.how = None
    for passed in range(LIMITS.passes):
        assert (await condition(street)).degraded_since is not None, passed
        await street.pass_s(clock, LIMITS.canary_s)
        assert await street.check() == 1
        if passed < LIMITS.passes - 1:
            assert await street.check() == 0
    assert (await condition(street)).degraded_since is None


async def all_checked(street: Street, clock: FakeClock) -> None:
    """Whatever waited, within 300 s; and what was suspect before, when its second answer is due."""
    await street.pass_s(clock, 700)
    while await street.check():
        pass
    assert await street.checks() == 0


async def condition(street: Street) -> conditions.Condition:
    [found] = await conditions.all_of(street.db)
    assert found.provider == "github"
    return found


async def burst(
    many: Crowd, clock: FakeClock, how: Callable[[], Response], strike: Callable[[], object], left: dict[str, int]
) -> list[str]:
    """Everything fails at once. `left`: the grants' states then; what each was told."""
    many.street.github.how = how
    told: list[str] = await strike()  # type: ignore[misc]  # a coroutine of list[str]
    assert await many.states() == left
    assert (await condition(many.street)).degraded_since is not None
    await recovers(many.street, clock)
    await all_checked(many.street, clock)
    assert await many.states() == {"active": len(many.ids)}
    return told


async def story(street: Street, clock: FakeClock, connections: int, tenants: int) -> None:
    """A page in the provider's place, then `bad_refresh_token` for everybody, then 401 for everybody."""
    many = await crowd(street, connections, tenants)
    tripping = LIMITS.least  # connections that fail before it trips: more than these are an outage
    told = await burst(many, clock, page, many.read, {"active": connections})
    assert set(told) <= {"provider_unavailable", "checking"}
    assert await many.said() == TOLD
    versions = await street.db.fetch("SELECT token_version, count(*) AS n FROM gateway.grants GROUP BY 1")
    assert {row["token_version"]: row["n"] for row in versions} == {1: tripping, 2: connections - tripping}

    await many.expire()
    spoiled = {"suspect": tripping, "active": connections - tripping}
    told = await burst(many, clock, refused, many.read, spoiled)
    assert set(told) == {"checking"}
    said = await many.said()
    assert {name: said[name] for name in TOLD} == {"provider.degraded": 2, "provider.recovered": 2}
    assert set(said) - set(TOLD) == {"connection.suspect", "connection.repaired"}
    assert said["connection.suspect"] == said["connection.repaired"] == tripping

    await many.cannot_be_refreshed()
    usual = (await condition(street)).failures
    assert usual
    told = await burst(many, clock, unwell(401), many.report, spoiled)
    assert Counter(told) == {"suspect": tripping, "unchecked": connections - tripping}
    said = await many.said()
    assert {name: said[name] for name in TOLD} == {"provider.degraded": 3, "provider.recovered": 3}
    assert not {name for name in said if name.startswith("connection.")} - QUIET
    assert set(await many.read()) == {"served"}


async def test_an_outage_moves_nobody_beyond_suspect_and_tells_no_user(street: Street, clock: FakeClock) -> None:
    """One `provider.degraded` and one `provider.recovered` each time; everything is checked again."""
    await story(street, clock, 120, 10)


@pytest.mark.long
async def test_an_outage_over_5000_connections_of_50_tenants(street: Street, clock: FakeClock) -> None:
    """The same, at length."""
    await story(street, clock, 5000, 50)


async def test_real_revocations_go_through_meanwhile(street: Street, clock: FakeClock) -> None:
    """A verified message is no failure: five of one tenant's, in the minute of the outage."""
    many = await crowd(street, 60, 10)
    street.github.how = refused
    await many.read()
    gone = [many.ids[number] for number in (0, 10, 20, 30, 40)]
    assert len({many.tenants[number] for number in (0, 10, 20, 30, 40)}) == 1
    for number in (0, 10, 20, 30, 40):
        await street.deliver(github_installation("deleted", id=number))
    await street.follow()
    assert set(await many.read(gone)) == {"connection_revoked"}
    assert (await many.states())["revoked"] == 5
    assert (await many.said())["connection.revoked"] == 5
    await recovers(street, clock)
    await all_checked(street, clock)
    assert await many.states() == {"active": 55, "revoked": 5}


async def test_one_tenants_dead_tokens_are_no_outage(street: Street, clock: FakeClock) -> None:
    """A customer disconnects everything: it trips nothing, and each is confirmed by a second answer."""
    many = await crowd(street, 120, 10)
    mine = [id for id, tenant in zip(many.ids, many.tenants, strict=True) if tenant == "tenant-3"]
    street.github.dead.update(f"r{many.ids.index(id)}" for id in mine)
    assert set(await many.read(mine)) == {"checking"}
    assert (await many.states())["suspect"] == len(mine) == 12
    assert (await condition(street)).degraded_since is None
    assert await street.check() == 0  # not before ten minutes have gone by
    await street.pass_s(clock, 600)
    while await street.check():
        pass
    assert await many.states() == {"active": 108, "reauth_required": 12}
    assert await many.said() == {"connection.suspect": 12, "connection.reauth_required": 12}
    assert await street.checks() == 0


async def test_an_operator_releases_it(street: Street, clock: FakeClock) -> None:
    """`posthouse release`: everything that waited is due within 300 s, not at once."""
    many = await crowd(street, 60, 10)
    street.github.how = refused
    await many.read()
    street.github.how = None
    async with street.db.transaction() as tx:
        event = await conditions.release(tx, "github", street.gateway.new_id())
        assert event is not None
        await append(tx, [event])
    spread = await street.db.fetchrow(
        "SELECT count(*) AS n, count(DISTINCT due_at) AS moments, max(due_at) - gateway.now() < interval '300 s' AS soon"
        " FROM gateway.grant_checks WHERE NOT waits AND why = 'refused' AND due_at < gateway.now() + interval '500 s'"
    )
    assert spread["n"] == 55
    assert spread["moments"] > 40
    assert spread["soon"]
    await all_checked(street, clock)
    assert await many.states() == {"active": 60}
    assert {name: n for name, n in (await many.said()).items() if name in TOLD} == TOLD


async def test_a_provider_that_is_still_unwell_stays_so(street: Street, clock: FakeClock) -> None:
    """A canary that fails starts the count anew, and takes no other with it."""
    many = await crowd(street, 60, 10)
    street.github.how = refused
    await many.read()
    for well in (True, True, False):
        street.github.how = None if well else refused
        await street.pass_s(clock, LIMITS.canary_s)
        assert await street.check() == 1
    found = await condition(street)
    assert (found.passed, found.degraded_since is None) == (0, False)
    assert (await many.said()).get("provider.recovered") is None
    await recovers(street, clock)
    assert (await many.said())["provider.recovered"] == 1
