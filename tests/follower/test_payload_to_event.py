"""From a signed payload to the event: it moves the grants that it means, of every tenant that shares the account.

And no others: of another account, another access profile, another integration.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tests.connect.conftest import Town
from tests.follower.conftest import Street, endpoint
from tests.providers.signal_samples import (
    SUSPENDED,
    Sample,
    github,
    github_installation,
    microsoft,
    slack,
    stripe,
    stripe_thin,
)
from tests.web.conftest import problem

TEAM = "T1DC2JH3J"


async def at_slack(street: Street) -> None:
    """Three tenants, two of them in one workspace; one of these also as an account without tokens."""
    whole = (f"team:{TEAM}", f"user:{TEAM}/U1")
    await street.connected("acme", "acme", "slack", whole, "bot", "user")
    await street.connected("globex", "globex", "slack", whole[:1], "bot")
    await street.connected("initech", "initech", "slack", ("team:T2", "user:T2/U1"), "bot", "user")
    await street.registered("by hand", "globex", "slack", *whole[:1])


async def at_github(street: Street) -> None:
    """One installation that two tenants share, and another; users of them."""
    mine = ("installation:957387", "account:21031067", "user:21031067")
    await street.connected("acme", "acme", "github", mine, "installation", "user")
    await street.connected("globex", "globex", "github", mine[:2], "installation")
    await street.connected("initech", "initech", "github", ("installation:7", "user:8"), "installation", "user")
    await street.registered("by hand", "initech", "github", *mine[:1])


async def said_now(street: Street, sample: Sample) -> Sample:
    """As of this moment by its provider's clock."""
    body = json.loads(sample.body)
    body["event_time"] = int((await street.now()).timestamp())
    return replace(sample, body=json.dumps(body).encode())


async def test_slack_revokes_the_tokens_of_a_user(street: Street) -> None:
    """The bot's stays, and so do those of a user of that name elsewhere."""
    await at_slack(street)
    await street.deliver(await said_now(street, slack({"type": "tokens_revoked", "tokens": {"oauth": ["U1"]}})))
    await street.follow()
    assert await street.moved() == {"acme": {"user": "revoked"}}
    assert (await street.state("acme"), await street.tokens("acme")) == ("reauth_required", {"bot"})
    problem(await street.read("acme", "user"), 409, "connection_revoked")
    assert (await street.read("acme", "bot")).json()["access_token"] == "acme bot"
    assert [kind for kind, _ in await street.events("acme")] == ["reauth_required"]


async def test_slack_revokes_the_bots_token(street: Street) -> None:
    """Of everybody who is in that workspace."""
    await at_slack(street)
    await street.deliver(await said_now(street, slack({"type": "tokens_revoked", "tokens": {"bot": ["U2BOT"]}})))
    await street.follow()
    assert await street.moved() == {"acme": {"bot": "revoked"}, "globex": {"bot": "revoked"}}


async def test_slack_uninstalls_the_app(street: Street) -> None:
    """Everything of the workspace goes, the account that stands for itself too; the event says all of it."""
    await at_slack(street)
    sample = await said_now(street, slack({"type": "app_uninstalled"}))
    await street.deliver(sample)
    await street.follow()
    assert await street.moved() == {
        "acme": {"bot": "revoked", "user": "revoked"}, "globex": {"bot": "revoked"}, "by hand": {"": "revoked"},
    }  # fmt: skip
    [evidence] = await street.deliveries()
    for name in ("acme", "globex", "by hand"):
        [(kind, told)] = await street.events(name)
        assert (kind, told["previous_state"], told["state"]) == ("revoked", "active", "revoked")
        assert (told["cause"], told["action"], told["external_id"]) == ("app_uninstalled", "reconnect", name)
        assert (told["evidence"]["event"], told["evidence"]["source"]) == (evidence, "delivery")
        assert await street.tokens(name) == set()
    for profile in ("bot", "user"):
        problem(await street.read("acme", profile), 409, "connection_revoked")
    assert await street.tokens("initech") == {"bot", "user"}


async def test_slack_tells_it_twice_over_in_either_order(street: Street) -> None:
    """`tokens_revoked` and `app_uninstalled` both come for an uninstallation: one event a connection in the end."""
    await at_slack(street)
    both = [slack({"type": "app_uninstalled"}), slack({"type": "tokens_revoked", "tokens": {"bot": ["U2BOT"]}})]
    for number, one in enumerate(both):
        await street.deliver(_renamed(await said_now(street, one), f"Ev{number}"))
    await street.follow()
    assert [kind for kind, _ in await street.events("globex")] == ["revoked"]
    assert await street.outcomes("globex") == [("authorized", "moved"), ("revoked", "moved"), ("revoked", "stays")]


def _renamed(sample: Sample, event_id: str) -> Sample:
    return replace(sample, body=json.dumps({**json.loads(sample.body), "event_id": event_id}).encode())


async def test_a_github_user_takes_the_authorization_back(street: Street) -> None:
    """The installation's own token does not come from that user. No time is signed: a check confirms it."""
    await at_github(street)
    street.github.dead.update({"acme user", "another"})  # "another" refreshes it
    await street.deliver(github("github_app_authorization", action="revoked"))
    await street.follow()
    assert await street.check() == 1
    assert await street.moved() == {"acme": {"user": "revoked"}}
    assert await street.tokens("acme") == {"installation"}


async def test_a_github_app_is_uninstalled(street: Street) -> None:
    """An installation never comes back under its number: that needs no check."""
    await at_github(street)
    await street.deliver(github_installation("deleted"))
    await street.follow()
    assert await street.moved() == {
        "acme": {"installation": "revoked", "user": "revoked"}, "globex": {"installation": "revoked"},
        "by hand": {"": "revoked"},
    }  # fmt: skip
    assert (await street.checks(), street.github.calls) == (0, [])
    [(kind, told)] = await street.events("globex")
    assert (kind, told["cause"], told["action"]) == ("revoked", "app_uninstalled", "reconnect")


async def test_a_github_app_is_suspended_and_let_go_on(street: Street) -> None:
    """Tokens stay sealed meanwhile, and none leaves. That it is lifted is signed without a time: a check says so."""
    await at_github(street)
    at = (await street.now()).isoformat()
    await street.deliver(github_installation("suspend", suspended_at=at, suspended_by=SUSPENDED["suspended_by"]))
    await street.follow()
    states = {"acme": {"installation": "suspended", "user": "suspended"}, "globex": {"installation": "suspended"}}
    assert await street.moved() == {**states, "by hand": {"": "suspended"}}
    problem(await street.read("globex"), 409, "connection_suspended")
    [(kind, told)] = await street.events("globex")
    assert (kind, told["action"], told["evidence"]["occurred_at"]) == ("suspended", "wait", _zulu(at))
    await street.deliver(github_installation("unsuspend"))
    await street.follow()
    while await street.check():
        pass
    assert await street.moved() == {}
    assert [kind for kind, _ in await street.events("globex")] == ["suspended", "repaired"]
    assert (await street.read("globex")).status_code == 200


def _zulu(at: str) -> str:
    return at.replace("+00:00", "Z")


async def test_github_permissions_are_accepted(street: Street) -> None:
    """A minted token tells what is granted now, and the event says so; where a required one is gone, the owner must mend it."""
    await at_github(street)
    street.github.permissions = {"contents": "write"}
    await street.db.execute("UPDATE gateway.grants SET granted = '{contents:read}', requested = '{contents:read}'")
    await street.deliver(github_installation("new_permissions_accepted"))
    await street.follow()
    while await street.check():
        pass
    assert await street.moved() == {}
    [(kind, told)] = await street.events("globex")
    assert (kind, told["state"], told["previous_state"]) == ("scopes_changed", "active", "active")
    assert told["access_profiles"]["installation"]["granted"] == ["contents:read", "contents:write"]
    answer = (await street.read("globex")).json()
    assert (answer["token_version"], answer["scopes"]) == (2, ["contents:read", "contents:write"])
    assert await street.events("initech") == []
    street.github.permissions = {"metadata": "read"}
    await street.deliver(github_installation("new_permissions_accepted"), delivery_id="2")
    await street.follow()
    while await street.check():
        pass
    events = await street.events("globex")
    assert {kind for kind, _ in events[1:]} == {"scopes_changed", "reauth_required"}
    assert events[1][1]["access_profiles"]["installation"]["lost"] == ["contents:read"]
    problem(await street.read("globex"), 409, "reauth_required")


async def test_stripe_deauthorizes_an_account(street: Street) -> None:
    """Both forms of its events; whoever else is connected stays."""
    first, second = "acct_1032D82eZvKYlo2C", "acct_other"
    for name, account in (("acme", first), ("globex", first), ("initech", second)):
        await street.registered(name, name, "stripe", f"account:{account}")
    now = int((await street.now()).timestamp())
    await street.deliver(stripe(created=now))
    await street.follow()
    assert await street.moved() == {"acme": {"": "revoked"}, "globex": {"": "revoked"}}
    [(kind, told)] = await street.events("acme")
    assert (kind, told["cause"], told["access_profiles"]) == ("revoked", "deauthorized", {})
    at = _zulu((await street.now()).isoformat())
    await street.deliver(stripe_thin(created=at, context="acct_other"))
    await street.follow()
    assert "initech" in await street.moved()


async def test_microsofts_lifecycle_events_are_no_proof(street: Street) -> None:
    """They ask for a check of whoever the subscription is of; `missed` says nothing about a grant."""
    for name in ("acme", "globex"):
        await street.connected(name, name, "microsoft", (f"subscription:{name}", "tenant:1"), "reader")
    await endpoint(street, "acme")
    for event in ("missed", "reauthorizationRequired"):
        await street.deliver(replace(microsoft(event), signer="microsoft/endpoint"))
        await street.follow()
    assert await street.moved() == {}
    [asked] = await street.db.fetch("SELECT connection_id, why, reason FROM gateway.grant_checks")
    assert (asked["connection_id"], asked["why"]) == (street.known["acme"], "hint")
    assert asked["reason"] == "reauthorization_required"
    assert await street.events("acme") == []
    assert (await street.outcomes("acme"))[-1] == ("hint", "asked")


async def test_the_sandbox_revokes_a_grant(street: Street, town: Town) -> None:
    """Connected by a consent, revoked at the provider's own page, told by its webhook: the whole way."""
    done = await town.connect()
    other = await town.connect(tenant="globex", consent={"user": "user-2"})
    [grant] = town.provider.grants("user-1")
    await town.provider.revoke(grant)
    await street.follow()
    problem(await town.api("GET", f"/v1/connections/{done['connection']}/token"), 409, "checking")
    assert await street.check() == 1
    problem(await town.api("GET", f"/v1/connections/{done['connection']}/token"), 409, "connection_revoked")
    assert (await town.api("GET", f"/v1/connections/{other['connection']}/token")).status_code == 200
    told: Any = [data for kind, data in await town.events() if kind == "revoked"]
    assert [(one["connection"], one["cause"]) for one in told] == [(done["connection"], "grant_revoked")]
