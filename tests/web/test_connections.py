"""Connections: registered, listed, ended, and said so on the stream in the same commit."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import ids
from gateway.regions import account_hash
from tests.web.conftest import Api, problem

GITHUB = {"name": "gh", "provider": "github", "signing_secrets": ["a-long-enough-secret"]}


@pytest.fixture
async def ready(api: Api) -> Api:
    """A tenant and an integration."""
    await api("PUT", "/v1/tenants/acme", {})
    assert (await api("POST", "/v1/integrations", GITHUB)).status_code == 201
    return api


async def _register(api: Api, **more: Any) -> Any:
    answer = await api("POST", "/v1/connections", {"tenant": "acme", "integration": "gh", **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_connection_is_active_at_once_and_the_stream_says_so(ready: Api) -> None:
    """State and event commit together; accounts are stored as keyed hashes only."""
    made = await _register(
        ready, accounts=["installation:42", "installation:42"], external_id="e-1", end_user_id="u-1", labels={"a": "b"}
    )
    assert made["state"] == "active"
    assert made["account_count"] == 1
    page = (await ready("GET", "/v1/events")).json()
    assert [entry["event"]["type"] for entry in page["items"]] == ["posthouse.connection.active"]
    entry = page["items"][0]
    assert (entry["event"]["subject"], entry["tenants"]) == (made["id"], ["acme"])
    assert entry["event"]["data"] == {
        "connection": made["id"], "tenant": "acme", "external_id": "e-1", "end_user_id": "u-1",
        "labels": {"a": "b"}, "state": "active", "action": "none", "previous_state": "pending", "cause": "registered",
        "reason": None, "access_profiles": {},
        "evidence": {"source": "operator", "event": None, "code": None, "occurred_at": None},
    }  # fmt: skip
    gateway = ready.gateway
    integration = gateway.catalog.integration("gh")
    assert integration is not None
    due = account_hash(gateway.control_keyring, integration.id, "installation:42")
    row = await gateway.regions.home.database.fetchrow("SELECT * FROM gateway.connection_accounts")
    hint = await gateway.control.fetchrow("SELECT * FROM control.account_regions")
    assert row is not None
    assert hint is not None
    assert row["account_hash"] == hint["account_hash"] == due
    assert ids.show(ids.CONNECTION, row["connection_id"]) == made["id"]


async def test_what_it_needs_must_be_there(ready: Api) -> None:
    """Unknown tenant or integration: 404, and no trace of the attempt."""
    problem(await ready("POST", "/v1/connections", {"tenant": "nobody", "integration": "gh"}), 404, "not_found")
    problem(await ready("POST", "/v1/connections", {"tenant": "acme", "integration": "none"}), 404, "not_found")
    assert (await ready("GET", "/v1/events")).json()["items"] == []


async def test_an_external_id_names_one_open_connection(ready: Api) -> None:
    """The second is refused and told which one has it; after closing it is free again."""
    first = await _register(ready, external_id="e-1")
    again = await ready("POST", "/v1/connections", {"tenant": "acme", "integration": "gh", "external_id": "e-1"})
    assert problem(again, 409, "conflict")["connection"] == first["id"]
    assert (await ready("DELETE", f"/v1/connections/{first['id']}")).status_code == 204
    assert (await _register(ready, external_id="e-1"))["id"] != first["id"]


async def test_closing_forgets_accounts_retires_endpoints_and_names_the_connection_on_the_stream(ready: Api) -> None:
    """The last event of a connection is seen by those who read that connection."""
    made = await _register(ready, accounts=["installation:42"])
    endpoint = (await ready("POST", "/v1/endpoints", {"integration": "gh", "connection": made["id"]})).json()
    for _ in range(2):
        answer = await ready("DELETE", f"/v1/connections/{made['id']}")
        assert (answer.status_code, answer.content) == (204, b"")
    shown = (await ready("GET", f"/v1/connections/{made['id']}")).json()
    assert (shown["state"], shown["account_count"]) == ("closed", 0)
    assert (await ready("GET", f"/v1/endpoints/{endpoint['id']}")).json()["state"] == "retired"
    page = (await ready("GET", "/v1/events", params={"connection": made["id"]})).json()
    assert [entry["event"]["type"] for entry in page["items"]] == [
        "posthouse.connection.active",
        "posthouse.connection.closed",
    ]
    assert page["items"][1]["event"]["data"]["state"] == "closed"
    refused = await ready("POST", "/v1/endpoints", {"integration": "gh", "connection": made["id"]})
    problem(refused, 409, "conflict")


async def test_lists_filter_and_page(ready: Api) -> None:
    """Every filter, and cursors that belong to their own question."""
    await ready("PUT", "/v1/tenants/other", {})
    made = [await _register(ready, end_user_id=f"u-{number % 2}", external_id=f"e-{number}") for number in range(5)]
    await ready("POST", "/v1/connections", {"tenant": "other", "integration": "gh"})
    await ready("DELETE", f"/v1/connections/{made[0]['id']}")

    async def listed(**query: Any) -> list[str]:
        seen: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = (await ready("GET", "/v1/connections", params={"limit": 2, **query, **more})).json()
            seen += [connection["id"] for connection in page["items"]]
            if page["next_cursor"] is None:
                return seen
            more = {"cursor": page["next_cursor"]}

    assert await listed(tenant="acme") == sorted(one["id"] for one in made)
    assert len(await listed()) == 6
    assert len(await listed(integration="gh", state="active")) == 5
    assert await listed(external_id="e-3") == [made[3]["id"]]
    assert len(await listed(end_user_id="u-1")) == 2
    page = (await ready("GET", "/v1/connections", params={"limit": 2})).json()
    for odd in (
        {"tenant": "acme", "cursor": page["next_cursor"]},
        {"cursor": "bm9uc2Vuc2U"},
        {"cursor": page["next_cursor"] + "A"},
    ):
        problem(await ready("GET", "/v1/connections", params=odd), 422, "invalid")
    elsewhere = await ready("GET", "/v1/endpoints", params={"cursor": page["next_cursor"]})
    problem(elsewhere, 422, "invalid")
