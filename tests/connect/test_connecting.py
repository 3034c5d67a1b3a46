"""The way of an account from a link to its tokens in the vault."""

from __future__ import annotations

from gateway.clock import Clock
from gateway.connect import sweep
from gateway.settings import Settings
from tests.connect.browser import query_of
from tests.connect.conftest import Town, declare, opening
from tests.flows.test_two_databases import apart

__all__ = ["apart"]


async def test_an_account_is_connected_and_its_tokens_lie_in_the_vault(town: Town) -> None:
    """Pending until the platform completes it; then active, and on the stream."""
    made = await town.ask(external_id="e-1", labels={"a": "b"})
    assert made["state"] == "created"
    assert made["connection"] is None
    answer = await town.consent(made)
    assert answer.headers["location"].startswith("https://app.example.com/connected?session=sess_")
    told = query_of(answer)
    shown = await town.session(made)
    assert (shown["state"], shown["connection_state"], shown["url"]) == ("returned", "pending", None)
    assert await town.count("tokens") == 0
    done = await town.complete(made, told["code"])
    assert (done["state"], done["outcome"], done["connection_state"]) == ("completed", "connected", "active")
    grant = (await town.grants(done))["reader"]
    assert (grant.state, grant.generation, grant.token_version, grant.has_refresh) == ("active", 1, 1, True)
    assert grant.ledger.granted == ("contacts.read", "messages.read", "profile")
    access = await town.token(grant)
    assert access in town.provider.sandbox.tokens
    assert await town.token(grant, "refresh") != access
    read = await town.api("GET", f"/v1/connections/{done['connection']}/token")
    assert (read.status_code, read.json()["access_token"]) == (200, access)
    assert await town.count("staged_tokens") == 0
    [(name, data)] = await town.events()
    assert name == "active"
    assert (data["external_id"], data["end_user_id"], data["labels"], data["cause"]) == (
        "e-1",
        "u-1",
        {"a": "b"},
        "connect",
    )
    assert data["access_profiles"]["reader"]["granted"] == ["contacts.read", "messages.read", "profile"]
    listed = (await town.api("GET", f"/v1/connections/{done['connection']}")).json()
    assert (listed["external_id"], listed["account_count"]) == ("e-1", 1)


async def test_control_and_region_may_be_two_databases(apart: Settings, clock: Clock) -> None:
    """Each is asked for what it has; hints for deliveries go to control first."""
    async with opening(apart, clock) as town:
        await declare(town, "sandbox")
        done = await town.connect()
        assert done["connection_state"] == "active"
        again = await town.connect(connection=done["connection"])
        assert again["grants"]["reader"]["generation"] == 2
        hints = await town.gateway.control.fetch("SELECT region FROM control.account_regions")
        assert [row["region"] for row in hints] == ["default"]
        made = await town.ask()
        await town.consent(made)
        await town.pass_s(700)
        assert await sweep.run_once(town.gateway) == 1
