"""The history of a connection over HTTP: newest first, in pages, for whoever may look at connections."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from gateway import ids
from gateway.connections import history
from gateway.connections.history import Entry
from gateway.regions import Region
from tests.tokens.making import granted
from tests.web.conftest import Api, problem

GITHUB = {"name": "gh", "provider": "github", "signing_secrets": ["a-long-enough-secret"]}


@pytest.fixture
async def connection(api: Api) -> str:
    """A connection that the platform registered."""
    await api("PUT", "/v1/tenants/acme", {})
    assert (await api("POST", "/v1/integrations", GITHUB)).status_code == 201
    return str((await api("POST", "/v1/connections", {"tenant": "acme", "integration": "gh"})).json()["id"])


def known(connection: str) -> UUID:
    parsed = ids.parse(ids.CONNECTION, connection)
    assert parsed is not None
    return parsed


async def heard(region: Region, connection: UUID, number: int, **more: Any) -> Entry:
    """A signal in its history; `number` orders it among the others."""
    told: dict[str, Any] = {
        "id": UUID(int=(0xFFFF << 112) + number), "access_profile": "reader", "signal": "revoked", "outcome": "stale",
        "cause": "tokens_revoked", "source": "delivery", "evidence": None, "code": None, "occurred_at": None,
        "generation": 1, "token_version": 1, "state_before": "active", "state_after": "active", **more,
    }  # fmt: skip
    entry = Entry(connection_id=connection, **told)
    async with region.database.transaction() as tx:
        await history.add(tx, [entry])
    return entry


async def test_what_was_heard_is_told_with_its_evidence(api: Api, connection: str) -> None:
    """A registration of the platform's own, then a delivery that was out of date and changed nothing."""
    event = ids.uuid7(api.gateway.clock.now())
    at = datetime.fromisoformat("2026-01-31T12:00:00+00:00")
    await heard(api.gateway.regions.home, known(connection), 1, evidence=event, occurred_at=at, code="gone")
    page = (await api("GET", f"/v1/connections/{connection}/history")).json()
    assert page["next_cursor"] is None
    newest, oldest = page["items"]
    assert datetime.fromisoformat(newest.pop("at"))
    assert newest == {
        "access_profile": "reader", "signal": "revoked", "outcome": "stale", "cause": "tokens_revoked",
        "source": "delivery", "evidence": ids.show(ids.EVENT, event), "code": "gone", "occurred_at": "2026-01-31T12:00:00Z",
        "generation": 1, "token_version": 1, "state_before": "active", "state_after": "active",
    }  # fmt: skip
    assert (oldest["signal"], oldest["outcome"], oldest["access_profile"]) == ("authorized", "moved", None)
    assert (oldest["cause"], oldest["source"], oldest["evidence"]) == ("registered", "operator", None)
    assert (oldest["state_before"], oldest["state_after"]) == ("pending", "active")


async def test_it_has_pages_and_a_closed_connection_keeps_it(api: Api, connection: str) -> None:
    """`limit` and `cursor`, as every list; a cursor of another connection's history is refused."""
    assert (await api("DELETE", f"/v1/connections/{connection}")).status_code == 204
    for number in range(3):
        await heard(api.gateway.regions.home, known(connection), number, generation=number)
    path = f"/v1/connections/{connection}/history"
    seen: list[tuple[str, int | None]] = []
    more: dict[str, str] = {}
    while True:
        page = (await api("GET", path, params={"limit": 2, **more})).json()
        seen += [(one["signal"], one["generation"]) for one in page["items"]]
        assert len(page["items"]) <= 2
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}
    assert seen[:3] == [("revoked", 2), ("revoked", 1), ("revoked", 0)]
    assert sorted(seen[3:]) == [("authorized", None), ("closed", None)]
    other = (await api("POST", "/v1/connections", {"tenant": "acme", "integration": "gh"})).json()["id"]
    problem(await api("GET", f"/v1/connections/{other}/history", params=more), 422, "invalid")
    problem(await api("GET", path, params={"cursor": "bm9uc2Vuc2U"}), 422, "invalid")


async def test_who_may_not_look_and_what_there_is_not(api: Api, connection: str) -> None:
    """A reader may, a consumer may not; ids that name nothing, or another kind of thing, are 404."""
    path = f"/v1/connections/{connection}/history"
    assert (await api("GET", path, key=await api.key("reader"))).status_code == 200
    problem(await api("GET", path, key=await api.key("consumer")), 403, "forbidden")
    problem(await api("GET", path, key=None), 401, "unauthenticated")
    for odd in ("conn_" + "0" * 32, "evt_" + connection.partition("_")[2], "nothing"):
        problem(await api("GET", f"/v1/connections/{odd}/history"), 404, "not_found")


async def test_a_doubt_shows_with_the_check_that_decides_it(api: Api, connection: str) -> None:
    """`contested` and `check` on the grant; `action` on the connection says what is asked of the platform."""
    region, id = api.gateway.regions.home, known(connection)
    await granted(region, id, "acme")
    shown = (await api("GET", f"/v1/connections/{connection}")).json()
    assert shown["action"] == "none"
    grant = shown["access_profiles"]["reader"]
    assert (grant["contested"], grant["check"]) == (False, None)
    await region.database.execute("UPDATE gateway.grants SET contested = true WHERE connection_id = $1", id)
    await region.database.execute(
        """INSERT INTO gateway.grant_checks (connection_id, access_profile, provider, why, signal, asked_at, due_at, waits)
           VALUES ($1, 'reader', 'github', 'contested', 'revoked', gateway.now(), '2100-01-01Z', true)""",
        id,
    )
    await region.database.execute("UPDATE gateway.connections SET state = 'reauth_required' WHERE id = $1", id)
    [shown] = (await api("GET", "/v1/connections")).json()["items"]
    assert shown == (await api("GET", f"/v1/connections/{connection}")).json()
    assert shown["action"] == "reconnect"
    grant = shown["access_profiles"]["reader"]
    assert grant["contested"] is True
    assert grant["check"] == {
        "why": "contested", "due_at": "2100-01-01T00:00:00Z", "waits": True, "tries": 0, "last_error": None,
    }  # fmt: skip
