"""The same revocation twice, out of order with a reconnect, in the middle of a refresh, for what is ending or held."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.connect.conftest import declare
from tests.follower.conftest import Street
from tests.follower.test_payload_to_event import TEAM, at_github
from tests.providers.signal_samples import Sample, github_installation, slack
from tests.tokens.conftest import connected
from tests.web.conftest import problem


def uninstalled(at: float, event_id: str = "Ev1") -> Sample:
    """`app_uninstalled`, as Slack signs it at that time."""
    sample = slack({"type": "app_uninstalled"})
    body = {**json.loads(sample.body), "event_time": int(at), "event_id": event_id}
    return replace(sample, body=json.dumps(body).encode())


async def test_the_same_delivery_twice_speaks_once(street: Street) -> None:
    """The same id: one event. A new id (a resend by hand): two events, of which the second changes nothing."""
    await at_github(street)
    for delivery_id in ("1", "1", "2"):
        await street.deliver(github_installation("deleted"), delivery_id=delivery_id)
    assert len(await street.deliveries()) == 2
    await street.follow()
    assert await street.outcomes("globex") == [("authorized", "moved"), ("revoked", "moved"), ("revoked", "stays")]
    assert [kind for kind, _ in await street.events("globex")] == ["revoked"]


@pytest.mark.parametrize(
    ("after_s", "outcome", "states"),
    [
        (-61, "stale", {}),  # it was over before the reconnect: that is about the generation of before
        (-5, "contested", {}),  # clocks differ by as much: a check decides
        (5, "contested", {}),
        (62, "moved", {"acme": {"bot": "revoked"}}),
    ],
)
async def test_out_of_order_with_a_reconnect(
    street: Street, after_s: int, outcome: str, states: dict[str, Any]
) -> None:
    """Signed so many seconds after the consent that gave the grant anew; read after it, in any case."""
    await street.connected("acme", "acme", "slack", (f"team:{TEAM}",), "bot")
    await street.reconnected("acme", "bot")
    alive = (await street.grant("acme", "bot")).alive_at.timestamp()
    await street.deliver(uninstalled(alive + after_s))
    await street.follow()
    assert (await street.outcomes("acme"))[-1] == ("revoked", outcome)
    assert await street.moved() == states
    if outcome == "contested":
        problem(await street.read("acme"), 409, "checking")
        assert await street.check() == 1  # the new token works
    assert await street.moved() == states
    assert (await street.read("acme")).status_code == (409 if states else 200)


async def test_in_the_middle_of_a_refresh(street: Street) -> None:
    """The refresh's answer comes after the revocation: what it brought does not leave, and does not outlive the check."""
    town = street.town
    await declare(town, "sandbox")
    account = await connected(town)
    street.known["acme"] = account.id
    await town.pass_s(3600)
    town.provider.misbehave("refresh_token", "slow_answer")
    reading = asyncio.create_task(account.read())
    await town.provider.gate.until(1)
    [given] = town.provider.grants("user-1")
    await town.provider.revoke(given)
    await street.follow()
    problem(await account.read(), 409, "checking")
    await town.provider.gate.open()
    problem(await reading, 409, "checking")
    grant = await account.grant()
    assert (grant.token_version, grant.contested, grant.state) == (2, True, "active")  # a newer one, as much in doubt
    await street.check()
    assert await street.moved() == {"acme": {"reader": "revoked"}}
    assert await street.tokens("acme") == set()


async def test_a_refresh_that_comes_back_to_a_revoked_grant_is_not_stored(street: Street) -> None:
    """By proof this time: an answer that was under way finds nothing to take the place of."""
    town = street.town
    await declare(town, "sandbox")
    account = await connected(town)
    street.known["acme"] = account.id
    await town.pass_s(3600)
    town.provider.misbehave("refresh_token", "slow_answer")
    reading = asyncio.create_task(account.read())
    await town.provider.gate.until(1)
    await street.revoke("acme", "reader")
    await town.provider.gate.open()
    problem(await reading, 409, "connection_revoked")
    assert (await street.tokens("acme"), (await account.grant()).token_version) == (set(), 1)
    assert (await street.outcomes("acme"))[-1] == ("refreshed", "illegal")


async def test_for_a_connection_that_is_being_deleted(street: Street) -> None:
    """Closed before the follower reads it: that is the end, and is not told a second time."""
    await at_github(street)
    await street.deliver(github_installation("deleted"))
    assert (await street.town.api("DELETE", street.path("globex"))).status_code == 204
    await street.follow()
    assert [kind for kind, _ in await street.events("globex")] == ["closed"]
    assert (await street.moved())["globex"] == {"installation": "closed"}
    assert (await street.outcomes("globex"))[-1] == ("closed", "moved")
    problem(await street.read("globex"), 409, "connection_closed")


async def test_for_one_that_is_held_or_restored(street: Street) -> None:
    """Nobody refreshes these, and a revocation is a revocation; where it is contested the token itself is tried."""
    await at_github(street)
    await street.db.execute("UPDATE gateway.grants SET held = true WHERE connection_id = $1", street.known["acme"])
    await street.db.execute(
        "UPDATE gateway.grants SET restored = true WHERE connection_id = $1", street.known["globex"]
    )
    await street.deliver(github_installation("suspend"))  # without its time: contested
    await street.follow()
    street.github.dead.update({"acme installation", "acme user"})
    problem(await street.read("globex"), 409, "checking")
    while await street.check():
        pass
    assert await street.moved() == {
        "acme": {"installation": "suspended", "user": "suspended"}, "by hand": {"": "suspended"},
    }  # fmt: skip
    assert (street.github.asked("/token"), street.github.asked("/app/installations/957387/access_tokens")) == (0, 0)
    await street.deliver(github_installation("deleted"))
    await street.follow()
    assert (await street.moved())["globex"] == {"installation": "revoked"}
