"""The contested path: a verified word of unknown generation stops the tokens at once, and a check decides what it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from starlette.responses import Response

from providers.registry import all_providers
from tests.clock import FakeClock
from tests.follower.conftest import Street
from tests.follower.services import page, unwell
from tests.follower.test_payload_to_event import TEAM
from tests.follower.test_repeated import uninstalled
from tests.providers.signal_samples import github
from tests.web.conftest import problem

REVOKED = github("github_app_authorization", action="revoked")


async def user(street: Street) -> None:
    await street.connected("acme", "acme", "github", ("user:21031067",), "user")


async def test_the_genuine_one_takes_hold_at_once_and_is_confirmed(street: Street) -> None:
    """409 from the follower's commit on; the state, the event and the shredding after one run of the checker."""
    await user(street)
    street.github.dead.update({"acme user", "another"})  # "another" refreshes it
    await street.deliver(REVOKED)
    await street.follow()
    told = problem(await street.read("acme"), 409, "checking")
    assert (told["state"], told["do"]) == ("active", "wait")
    assert await street.events("acme") == []
    assert await street.check() == 1
    problem(await street.read("acme"), 409, "connection_revoked")
    [(kind, data)] = await street.events("acme")
    [evidence] = await street.deliveries()
    assert (kind, data["cause"], data["evidence"]["event"]) == ("revoked", "authorization_revoked", evidence)
    assert (await street.tokens("acme"), await street.checks()) == (set(), 0)
    assert (await street.outcomes("acme"))[1:] == [("revoked", "contested"), ("revoked", "moved")]


async def test_replayed_after_a_reconnect_it_kills_nothing(street: Street) -> None:
    """GitHub's delivery id is not signed: whoever recorded it sends it again under another. Nobody is told of it."""
    await user(street)
    street.github.dead.update({"acme user", "another"})  # "another" refreshes it
    await street.deliver(REVOKED)
    await street.follow()
    await street.check()
    await street.reconnected("acme", "user")
    before = await street.events("acme")
    for number in range(2):
        await street.deliver(REVOKED, delivery_id=f"replay-{number}")
        await street.follow()
        problem(await street.read("acme"), 409, "checking")
        assert await street.check() == 1
        assert (await street.read("acme")).json()["access_token"] == "acme user 2"
    assert (await street.events("acme"), (await street.grant("acme", "user")).state) == (before, "active")
    told = [("authorized", "moved"), *[("revoked", "contested"), ("acquitted", "refuted")] * 2]
    assert (await street.outcomes("acme"))[3:] == told


async def pass_half_a_minute(street: Street, clock: FakeClock) -> None:
    """For the region, and for what this process knows of breakers."""
    await street.town.pass_s(30)
    clock.move(30)


@pytest.mark.parametrize(
    ("how", "least_s"), [(unwell(503), 2), (page, 2), (unwell(429, retry_after="17"), 17), (unwell(503, retry_after="900"), 30)]
)  # fmt: skip
async def test_while_the_provider_cannot_say_it_stays_contested(
    street: Street, clock: FakeClock, how: Callable[[], Response], least_s: float
) -> None:
    """It is asked again after a pause (its own, where it names one, half a minute at the most), and decides then."""
    await user(street)
    street.github.dead.update({"acme user", "another"})  # "another" refreshes it
    await street.deliver(REVOKED)
    await street.follow()
    street.github.how = how
    assert await street.check() == 1
    assert await street.check() == 0  # not yet
    due_s = await street.db.fetchval("SELECT extract(epoch FROM due_at - asked_at)::float8 FROM gateway.grant_checks")
    assert least_s <= due_s < least_s + 30
    problem(await street.read("acme"), 409, "checking")
    await pass_half_a_minute(street, clock)
    assert await street.check() == 1  # it is no better
    street.github.how = None
    await pass_half_a_minute(street, clock)
    assert await street.check() == 1
    assert await street.moved() == {"acme": {"user": "revoked"}}


async def test_what_nothing_can_contradict_is_believed(street: Street) -> None:
    """Without a probe and without a refresh token there is no other word than the provider's own."""
    all_providers()["slack"] = replace(all_providers()["slack"], probe=None)  # the street puts the real one back
    await street.gateway.catalog.refresh()
    await street.connected("acme", "acme", "slack", (f"team:{TEAM}",), "bot", refresh=None)
    await street.reconnected("acme", "bot", refresh=None)
    await street.deliver(uninstalled((await street.now()).timestamp()))
    await street.follow()
    problem(await street.read("acme"), 409, "checking")
    assert await street.check() == 1
    assert await street.moved() == {"acme": {"bot": "revoked"}}
    assert street.slack.calls == []


async def test_a_reconnect_settles_what_was_contested(street: Street) -> None:
    """Meanwhile the user consented anew: the doubt was about the grant of before, and its check has nothing to decide."""
    await user(street)
    await street.deliver(REVOKED)
    await street.follow()
    await street.reconnected("acme", "user")
    assert (await street.read("acme")).status_code == 200
    street.github.dead.add("acme user 2")
    assert await street.check() <= 1
    assert (await street.grant("acme", "user")).generation == 2
