"""Look-back (PROTOCOLS 3): a delivery may come before the connection that it is about. Every interleaving."""

from __future__ import annotations

from typing import Any

import pytest

from tests.connect.browser import query_of
from tests.connect.conftest import Town, declare
from tests.follower.conftest import Street
from tests.follower.test_payload_to_event import TEAM
from tests.follower.test_repeated import uninstalled
from tests.providers.signal_samples import Sample, github_installation
from tests.signers_b import sandbox_event
from tests.web.conftest import problem


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize("delivered", ["before", "after"])
async def test_delivered_before_or_after_the_activation(street: Street, delivered: str, read_before: bool) -> None:
    """Read by the follower before or after it, too: it takes hold once, in every order."""
    gone = github_installation("deleted")
    if delivered == "before":
        await street.deliver(gone)
        if read_before:
            await street.follow()
    await street.registered("acme", "acme", "github", "installation:957387")
    if delivered == "after":
        if read_before:
            await street.follow()
        await street.deliver(gone)
    await street.follow()
    assert await street.moved() == {"acme": {"": "revoked"}}
    assert (await street.outcomes("acme"))[1:] == [("revoked", "moved")]
    [(kind, told)] = await street.events("acme")
    assert (kind, told["evidence"]["event"]) == ("revoked", (await street.deliveries())[0])


async def test_what_happened_before_it_lived_is_stale(street: Street) -> None:
    """Uninstalled, and installed again by this very consent: the signed time says which came first."""
    now = (await street.now()).timestamp()
    await street.deliver(uninstalled(now - 300))
    await street.registered("acme", "acme", "slack", f"team:{TEAM}")
    await street.follow()
    assert await street.moved() == {}
    assert (await street.outcomes("acme"))[-1] == ("revoked", "stale")


async def test_the_unmatched_deliveries_of_others_are_not_taken(street: Street) -> None:
    """Of another account, of another integration, and from before the time that is looked back over."""
    await street.deliver(github_installation("deleted"))
    await street.town.pass_s(901)
    await street.deliver(github_installation("deleted", id=7), delivery_id="7")
    await street.follow()
    await street.registered("late", "acme", "github", "installation:957387")
    await street.registered("other", "acme", "github", "installation:8")
    await street.registered("elsewhere", "acme", "stripe", "installation:7")
    await street.follow()
    assert await street.moved() == {}
    await street.registered("his", "acme", "github", "installation:7")
    await street.follow()
    assert await street.moved() == {"his": {"": "revoked"}}


@pytest.mark.parametrize("follows", ["at once", "at the end"])
async def test_revoked_between_consent_and_completion(street: Street, follows: str) -> None:
    """The user takes it back before the platform has redeemed its code: the new connection is told as soon as it is."""
    town = street.town
    await declare(town, "sandbox")
    made = await town.ask()
    told = query_of(await town.consent(made))
    [grant] = town.provider.grants("user-1")
    await town.provider.revoke(grant)  # matches no connection: this one is pending
    if follows == "at once":
        await street.follow()
    done = await town.complete(made, told["code"])
    await street.follow()
    await concluded(street, town, done)


async def concluded(street: Street, town: Town, done: Any) -> None:
    path = f"/v1/connections/{done['connection']}/token"
    problem(await town.api("GET", path), 409, "checking")
    assert await street.check() == 1
    problem(await town.api("GET", path), 409, "connection_revoked")


async def test_the_look_back_of_a_connect_session_begins_with_it(street: Street) -> None:
    """Replayed or late, what came before the session began is of a grant of before."""
    town = street.town
    await declare(town, "sandbox")
    body = sandbox_event(type="grant.revoked", account="user-1", data={})
    before = Sample(provider="sandbox", event="grant.revoked", body=body)
    street.house.targets["sandbox"] = "/hooks/sandbox"
    await street.deliver(before, secret=town.provider.client.webhook_secret.encode())
    await street.follow()
    done = await town.connect()
    await street.follow()
    assert (await town.api("GET", f"/v1/connections/{done['connection']}/token")).status_code == 200
    assert await street.checks() == 0
