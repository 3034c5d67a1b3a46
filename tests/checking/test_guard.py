"""Outage is not revocation: on the real store, with the real follower, checker and provider over HTTP.

The short form has 120 connections of 10 tenants, the long one 5,000 of 50 (`.ci/run`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import cycle

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

TOLD = {"provider.degraded": 1, "provider.recovered": 1}


async def recovers(street: Street, clock: FakeClock) -> None:
    """Canaries, one in 5 s, until the provider counts as well; not one of them more than is needed."""
    street.github.how = None
    for passed in range(LIMITS.passes):
        assert (await condition(street)).degraded_since is not None, passed
        await street.pass_s(clock, LIMITS.canary_s)
        assert await street.check() == 1
        if passed < LIMITS.passes - 1:
            assert await street.check() == 0
    assert (await condition(street)).degraded_since is None


async def all_checked(street: Street, clock: FakeClock) -> None:
    """Whatever waited, within 200 s; and what was suspect before, when its second answer is due."""
    await street.pass_s(clock, 700)
    while await street.check():
        pass
    assert await street.checks() == 0


async def condition(street: Street) -> conditions.Condition:
    [found] = await conditions.all_of(street.db)
    assert found.provider == "github"
    return found


async def burst(
    many: Crowd, clock: FakeClock, how: Callable[[], Response], strike: Callable[[], Awaitable[list[str]]]
) -> tuple[list[str], dict[str, int]]:
    """Everything fails at once, and recovers: what each was told, and the grants' states before it recovered."""
    many.street.github.how = how
    told, left = await strike(), await many.states()
    assert (await condition(many.street)).degraded_since is not None
    assert set(left) <= {"active", "suspect"}
    assert left.get("suspect", 0) <= LIMITS.least  # those from before it tripped
    await recovers(many.street, clock)
    await all_checked(many.street, clock)
    assert await many.states() == {"active": len(many.ids)}
    return told, left


async def told_nobody(many: Crowd, outages: int) -> dict[str, int]:
    """One event for its beginning and one for its end; no user was told of anything. What else was said."""
    said = await many.said()
    assert said.pop("provider.breaker_opened", 0) == said.pop("provider.breaker_closed", 0)
    assert {name: said.pop(name) for name in TOLD} == dict.fromkeys(TOLD, outages)
    assert set(said) <= {"connection.suspect", "connection.repaired"}
    assert said.get("connection.suspect", 0) == said.get("connection.repaired", 0)
    return said


async def test_an_outage_moves_nobody_beyond_suspect_and_tells_no_user(street: Street, clock: FakeClock) -> None:
    """A page in the provider's place, then `bad_refresh_token` for everybody, then 401 for everybody."""
    many, tripping = await crowd(street, 120, 10), LIMITS.least  # who fails before it trips: one more is an outage
    told, left = await burst(many, clock, page, many.read)
    assert set(told) <= {"provider_unavailable", "checking"}
    assert left == {"active": 120}
    assert await told_nobody(many, 1) == {}
    assert set(await many.read()) == {"served"}
    assert await many.versions() == {2: 120}
    await many.expire()
    told, left = await burst(many, clock, refused, many.read)
    assert set(told) <= {"checking", "provider_unavailable"}  # the guard shuts the way for whoever comes later
    assert left == {"active": 120 - tripping, "suspect": tripping}
    assert (await told_nobody(many, 2))["connection.suspect"] == tripping
    await many.cannot_be_refreshed()
    told, left = await burst(many, clock, unwell(401), many.report)
    assert Counter(told) == {"suspect": tripping, "unchecked": 120 - tripping}
    assert left == {"active": 120 - tripping, "suspect": tripping}
    assert (await told_nobody(many, 3))["connection.suspect"] == 2 * tripping
    assert set(await many.read()) == {"served"}


@pytest.mark.long
async def test_an_outage_over_5000_connections_of_50_tenants(street: Street, clock: FakeClock) -> None:
    """The same at length: pages and `bad_refresh_token` in turns, then 401 for everybody."""
    many, shapes = await crowd(street, 5000, 50), cycle([page, refused])
    told, _ = await burst(many, clock, lambda: next(shapes)(), many.read)
    assert set(told) <= {"provider_unavailable", "checking"}
    assert set(await many.read()) == {"served"}
    await many.cannot_be_refreshed()
    await burst(many, clock, unwell(401), many.report)
    await told_nobody(many, 2)
    assert set(await many.read()) == {"served"}


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
    """`posthouse release`: everything that waited is due within 10 s, not at once."""
    many = await crowd(street, 60, 10)
    street.github.how = refused
    await many.checked()
    street.github.how = None
    async with street.db.transaction() as tx:
        event = await conditions.release(tx, "github", street.gateway.new_id())
        assert event is not None
        await append(tx, [event])
    spread = await street.db.fetchrow(
        "SELECT count(*) AS n, count(DISTINCT due_at) AS moments, max(due_at) - gateway.now() < interval '10 s' AS soon"
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


USUAL = """INSERT INTO gateway.provider_failures (provider, error_class, at, tenant_id, connection_id)
           SELECT 'github', 'refused', gateway.now() - interval '1 day', 'somebody', gen_random_uuid()
             FROM generate_series(1, 2100)"""


async def test_what_is_usual_at_a_provider_trips_nothing(street: Street) -> None:
    """Two dead tokens in ten minutes are everyday here: ten are no outage, and the eleventh is one."""
    many = await crowd(street, 11, 11)
    await street.db.execute(USUAL)
    street.github.how = refused
    await many.read(many.ids[:10])
    assert (await condition(street)).degraded_since is None
    assert await many.states() == {"active": 1, "suspect": 10}
    await many.read(many.ids[10:])
    assert (await condition(street)).degraded_since is not None
    assert await many.states() == {"active": 1, "suspect": 10}
