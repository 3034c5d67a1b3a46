"""Traffic: counted in memory, written seldom, halved by the week; and what it says of when it is quiet."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from gateway import traffic
from gateway.database import Database
from gateway.traffic import EVERYBODY, EXACT_S, Traffic
from subscriptions import policy
from subscriptions.hours import QuietHours, quiet
from tests.clock import FakeClock
from tests.subscriptions.conftest import HOUR_S, Works
from tests.subscriptions.rows import Rows

WEEK_S = 7 * 24 * HOUR_S


@pytest.fixture
def at() -> UUID:
    return uuid4()


async def hours(database: Database, at: UUID, tenant: str) -> list[float]:
    return (await traffic.hours(database, [(at, tenant)])).get((at, tenant), [])


async def test_reads_and_deliveries_are_counted(database: Database, at: UUID) -> None:
    """A read for its tenant and its integration, a delivery for its integration; all in one hour, once."""
    seen = Traffic(database)
    for _ in range(3):
        seen.read(uuid4(), at, "acme")
    seen.read(uuid4(), at, "globex")
    seen.delivered(at)
    await seen.run_once()
    await seen.run_once()
    hour = await database.fetchval("SELECT extract(hour FROM gateway.now() AT TIME ZONE 'UTC')::integer")
    assert [sum(await hours(database, at, tenant)) for tenant in ("acme", "globex", EVERYBODY)] == pytest.approx(
        [3, 1, 5], rel=1e-3
    )
    assert (await hours(database, at, "acme"))[hour] == pytest.approx(3, rel=1e-3)


async def test_a_week_halves(database: Database, at: UUID) -> None:
    """What was counted a week ago weighs half, whether or not more has come since."""
    seen = Traffic(database)
    seen.read(uuid4(), at, "acme")
    await seen.run_once()
    await Rows(database).shift(WEEK_S)
    assert sum(await hours(database, at, "acme")) == pytest.approx(0.5, rel=1e-3)
    seen.read(uuid4(), at, "acme")
    await seen.run_once()
    assert sum(await hours(database, at, "acme")) == pytest.approx(1.5, rel=1e-3)
    await Rows(database).shift(2 * WEEK_S)
    assert sum(await hours(database, at, "acme")) == pytest.approx(0.375, rel=1e-3)


async def test_what_cannot_be_written_is_written_later(database: Database, dsn: str, at: UUID) -> None:
    """Nothing is counted twice, and nothing is forgotten."""
    away = Database(dsn)
    await away.open()
    seen = Traffic(away)
    seen.read(uuid4(), at, "acme")
    await away.execute("ALTER TABLE gateway.traffic_hours RENAME TO gone")
    with pytest.raises(Exception, match="traffic_hours"):
        await seen.run_once()
    await away.execute("ALTER TABLE gateway.gone RENAME TO traffic_hours")
    seen.read(uuid4(), at, "acme")
    await seen.run_once()
    await seen.run_once()
    assert sum(await hours(database, at, "acme")) == pytest.approx(2, rel=1e-3)
    await away.close()


async def test_use_is_noted_now_and_then(database: Database, at: UUID) -> None:
    """Not with every read: where the last that is written is minutes old. Only who was planned as unused is due by it."""
    rows = Rows(database)
    await rows.put(at, "acme", 2)
    one, other = await rows.claim(10, at)
    await rows.end(one)  # as unused
    await rows.database.execute(
        "UPDATE gateway.renewals SET reason = 'used', due_at = gateway.now() + interval '1 hour', lease_until = '-infinity' "
        "WHERE connection_id = $1",
        other.connection,
    )
    read = "SELECT connection_id, used_at FROM gateway.renewals ORDER BY connection_id"
    await traffic.note_used(database, [one.connection, other.connection])
    first = [tuple(row) for row in await database.fetch(read)]
    assert all(used_at is not None for _, used_at in first)
    await traffic.note_used(database, [one.connection, other.connection])
    assert [tuple(row) for row in await database.fetch(read)] == first
    assert [again.connection for again in await rows.claim(10, at)] == [one.connection]
    await rows.shift(EXACT_S + 1)
    await traffic.note_used(database, [one.connection, other.connection])
    later = [tuple(row) for row in await database.fetch(read)]
    assert all(after > before for (_, before), (_, after) in zip(first, later, strict=True))
    assert await rows.late_turns() == 0


async def test_use_respects_a_lease(database: Database, at: UUID) -> None:
    """Whoever is at it sees that it was asked for meanwhile."""
    rows = Rows(database)
    await rows.put(at, "acme", 1)
    [one] = await rows.claim(10, at)
    await database.execute("UPDATE gateway.renewals SET reason = 'unused'")
    asked_at = await database.fetchval("SELECT asked_at FROM gateway.renewals")
    await traffic.note_used(database, [one.connection])
    assert await rows.claim(10, at) == []
    assert await database.fetchval("SELECT asked_at FROM gateway.renewals") > asked_at
    assert await rows.late_turns() == 0


async def test_a_token_read_counts(works: Works) -> None:
    """Over HTTP; a delivery to the hook too."""
    account = await works.connected()
    integration = works.town.gateway.catalog.integration("sandbox")
    assert integration is not None
    before = sum(await hours(works.database, integration.id, EVERYBODY))
    await works.used(account)
    assert sum(await hours(works.database, integration.id, "acme")) == pytest.approx(1, rel=1e-3)
    assert sum(await hours(works.database, integration.id, EVERYBODY)) == pytest.approx(before + 1, rel=1e-3)
    [grant] = works.town.provider.grants()
    await works.town.provider.revoke(grant)  # which it tells us by its webhook
    await works.town.gateway.regions.home.traffic.run_once()
    assert sum(await hours(works.database, integration.id, EVERYBODY)) == pytest.approx(before + 2, rel=1e-3)


def test_a_small_tenants_hours_count_as_much_as_everybodys() -> None:
    """Busy by day here and by night there: neither drowns the other."""
    day = [1000.0 if 8 <= hour < 20 else 0.0 for hour in range(24)]
    night = [0.0 if 8 <= hour < 20 else 1.0 for hour in range(24)]
    assert quiet(night, day) == pytest.approx(policy.EVEN)
    assert quiet((), day) == policy.quiet(day)
    assert quiet((), ()) == policy.EVEN


async def test_quiet_hours_are_learnt_once_in_a_while(database: Database, at: UUID) -> None:
    """Read for all that are asked for at once, and believed for half an hour."""
    clock = FakeClock()
    learnt = QuietHours(clock)
    turns = {(at, "acme"), (at, "globex")}
    assert set((await learnt.of(database, turns)).values()) == {policy.EVEN}
    seen = Traffic(database)
    seen.read(uuid4(), at, "acme")
    await seen.run_once()
    assert set((await learnt.of(database, turns)).values()) == {policy.EVEN}
    clock.move(1801)
    told = await learnt.of(database, turns)
    hour = await database.fetchval("SELECT extract(hour FROM gateway.now() AT TIME ZONE 'UTC')::integer")
    assert told[at, "acme"][hour] == min(told[at, "acme"]) < 1
    assert told[at, "globex"][hour] == min(told[at, "globex"]) < 1  # of everybody's
