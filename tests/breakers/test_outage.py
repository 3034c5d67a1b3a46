"""A provider is away for two hours, and comes back: nobody is disconnected for it, hardly a call is made, and all are well soon.

With 500 connections and a shorter outage; two ways of being away in `make test`, all in `.ci/run`. The issue's own numbers, 50,000
and two hours, take a quarter of an hour each: `pytest -m long tests/breakers/test_outage.py -k 50000`.
"""

from __future__ import annotations

import pytest

from gateway.service import Gateway
from gateway.settings import Settings
from gateway.tokens import refresh
from tests.breakers.outage import FAILURES, Failure, Outage, outage
from tests.checking.crowd import crowd
from tests.clock import FakeClock
from tests.follower.conftest import Street, bare_town, lines, quiet, second, street, town

__all__ = ["bare_town", "lines", "quiet", "second", "street", "town"]  # fixtures

BUDGET = 500
NOTICED_S, RECOVERED_S = 5, 300
QUIETLY = {"connection.suspect", "connection.repaired"}  # said on the stream, and to no user
AT_ONCE = 2 * 32  # calls of two processes that may be out before anybody knows


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the budget that is promised."""
    return settings.model_copy(update={"calls_per_s": BUDGET})


async def away(it: Outage, failure: Failure, for_s: int, step_s: int) -> None:
    """The endpoint fails for so long: at most a call a second, once that is noticed."""
    await it.endpoint.fails(failure)
    noticed = sum([await it.step(1) for _ in range(NOTICED_S)])
    assert noticed <= AT_ONCE + NOTICED_S
    passed_s, calls, used_at = 0, 0, 0
    while passed_s < for_s:
        calls += await it.step(step_s if passed_s >= 20 else 1)
        passed_s += step_s if passed_s >= 20 else 1
        assert calls <= passed_s, passed_s
        if passed_s - used_at >= 1200:
            await it.used()
            used_at = passed_s
    assert calls >= for_s / 60  # it was asked all the while
    await it.used()


async def back(it: Outage, step_s: float) -> tuple[float, int]:
    """It answers again: how long until all is well, and how many calls that took. Never more than the budget."""
    await it.endpoint.fails(None)
    passed_s, calls = 0.0, 0
    while await it.ill():
        assert passed_s < RECOVERED_S, await it.ill()
        for _ in range(5):
            calls += await it.step(step_s, reads=1)
            passed_s += step_s
            assert calls <= BUDGET * (passed_s + 1)
    return passed_s, calls


async def survived(it: Outage, failure: Failure, for_s: int, step_s: int, back_step_s: float) -> None:
    """The whole story."""
    with pytest.MonkeyPatch.context() as patch:
        if failure == "hangs":  # whoever waits for it is soon tired: that wait is by no clock of the test's
            patch.setattr(refresh, "DEADLINE_S", 0.05)
        await away(it, failure, for_s, step_s)
    assert set(await it.many.states()) <= {"active", "suspect"}
    assert "provider_unavailable" in it.told
    assert "served" in it.told
    assert it.told <= {"served", "provider_unavailable", "checking"}
    took_s, calls = await back(it, back_step_s)
    print(f"{failure}: well after {took_s:.0f} s and {calls} calls")
    assert await it.many.states() == {"active": len(it.many.ids)}
    assert await it.database.fetchval("SELECT count(*) FROM gateway.grants WHERE token_version = 1") == 0
    said = await it.many.said()
    assert {name for name in said if name.startswith("connection.")} <= QUIETLY
    assert it.endpoint.spent_twice == 0
    for one in ("breaker_opened", "breaker_closed", "degraded", "recovered"):
        assert said.get(f"provider.{one}", 0) <= 2, said
    assert {"provider.breaker_closed", "provider.recovered"} & set(said)


@pytest.mark.parametrize(
    "failure",
    [pytest.param(one, marks=[] if one in ("503", "invalid_grant") else pytest.mark.long) for one in FAILURES],
)
async def test_an_outage_is_nobodys_end(street: Street, second: Gateway, clock: FakeClock, failure: Failure) -> None:
    """500 connections of 50 tenants, 25 minutes."""
    many = await crowd(street, 500, 50)
    async with outage(many, clock, second, lambda: 0.9, within_s=1200) as it:
        await survived(it, failure, 1500, 30, 4.0)


@pytest.mark.long
@pytest.mark.parametrize("failure", FAILURES)
async def test_two_hours_at_50000_connections(
    street: Street, second: Gateway, clock: FakeClock, failure: Failure
) -> None:  # fmt: skip
    """… of 200 tenants."""
    many = await crowd(street, 50_000, 200)
    async with outage(many, clock, second, lambda: 0.9, within_s=3600) as it:
        await survived(it, failure, 7200, 5, 0.5)
