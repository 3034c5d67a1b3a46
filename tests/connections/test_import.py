"""Connections that another system held: in with their tokens, held until the cut-over, never doubled, never half."""

from __future__ import annotations

import asyncio
import copy
import json
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from gateway import ids
from gateway.connections import grants
from gateway.connections.grants import Grant, may_refresh
from gateway.regions import reach_hash, subject_hash
from tests.web.conftest import Api, problem

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
LONG_AGO = "2020-01-01T00:00:00Z"


def line(number: int = 1, **over: Any) -> dict[str, Any]:
    """A line as another system would write it."""
    tokens = {
        "access_token": f"access-{number}",
        "refresh_token": f"refresh-{number}",
        "expires_at": SOON.isoformat().replace("+00:00", "Z"),
        "scopes": ["read", "more"],
    }
    made = {
        "tenant": ("acme", "globex")[number % 2],
        "integration": "toy",
        "external_id": f"e-{number}",
        "end_user_id": f"u-{number}",
        "labels": {"plan": "x"},
        "accounts": [f"team:T{number}"],
        "subject": f"user:{number}",
        "access_profiles": {"reader": tokens},
    }
    return {**made, **over}


def with_tokens(number: int = 1, **over: Any) -> dict[str, Any]:
    """A line whose token set differs: None takes a part away."""
    made = copy.deepcopy(line(number))
    tokens = {**made["access_profiles"]["reader"], **over}
    made["access_profiles"]["reader"] = {name: value for name, value in tokens.items() if value is not None}
    return made


async def brought(api: Api, *lines: Any, **how: Any) -> list[dict[str, Any]]:
    answer = await api("POST", "/v1/connections/import", {"connections": list(lines), **how})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    assert [one["line"] for one in results] == list(range(1, len(lines) + 1))
    return results


async def grant_of(api: Api, connection: str, profile: str = "reader") -> Grant:
    id = ids.parse(ids.CONNECTION, connection)
    assert id is not None
    held = await grants.of(api.gateway.regions.home.database, [id])
    return next(grant for grant in held if grant.access_profile == profile)


async def events(api: Api) -> list[tuple[str, Any]]:
    """What the stream says of connections: type and data."""
    page = (await api("GET", "/v1/events", params={"limit": 200, "after": "earliest"})).json()
    return [(one["event"]["type"].removeprefix("posthouse.connection."), one["event"]["data"]) for one in page["items"]]


async def count(api: Api, table: str) -> int:
    return int(await api.gateway.regions.home.database.fetchval(f"SELECT count(*) FROM gateway.{table}"))  # noqa: S608


async def test_a_line_becomes_a_connection_with_its_grant(api: Api) -> None:
    """Accounts, subject, reach, scopes and state are as if it had been connected here; the stream says so, once."""
    [made] = await brought(api, line(1, reach="account:1"))
    assert (made["result"], made["state"], made["reason"]) == ("imported", "active", None)
    found = (await api("GET", f"/v1/connections/{made['connection']}")).json()
    assert (found["tenant"], found["external_id"], found["end_user_id"], found["labels"], found["account_count"]) == (
        "globex", "e-1", "u-1", {"plan": "x"}, 1,
    )  # fmt: skip
    grant = await grant_of(api, made["connection"])
    integration, keyring = api.gateway.catalog.integration("toy"), api.gateway.control_keyring
    assert integration is not None
    assert (grant.state, grant.generation, grant.token_version, grant.held) == ("active", 1, 1, False)
    assert (grant.ledger.granted, grant.ledger.missing) == (("more", "read"), ())
    assert grant.reach_hash == reach_hash(keyring, integration.id, "account:1")
    assert grant.expires_at == SOON
    assert may_refresh(grant)
    row = await api.gateway.regions.home.database.fetchrow("SELECT * FROM gateway.connections")
    assert row["subject_hash"] == subject_hash(keyring, integration.id, "user:1")
    hints = await api.gateway.control.fetchval("SELECT count(*) FROM control.account_regions")
    assert hints == 2, "the account, and what a revocation reaches"
    [(name, said)] = await events(api)
    assert (name, said["cause"], said["previous_state"]) == ("active", "import", "pending")
    assert "access-1" not in json.dumps(said)


async def test_the_same_lines_again_change_nothing(api: Api) -> None:
    """By tenant, integration and external id: whatever broke off is run again."""
    first = await brought(api, *(line(n) for n in range(5)))
    again = await brought(api, *(line(n) for n in range(7)), line(0))
    assert [one["result"] for one in again] == ["unchanged"] * 5 + ["imported"] * 2 + ["unchanged"]
    assert [one["connection"] for one in again[:5]] == [one["connection"] for one in first]
    assert await count(api, "connections") == await count(api, "tokens") == 7
    [told] = await brought(api, line(1, labels={"plan": "y"}, accounts=["team:T9", "team:T8"]))
    assert told["result"] == "updated"
    found = (await api("GET", f"/v1/connections/{told['connection']}")).json()
    assert (found["labels"], found["account_count"]) == ({"plan": "y"}, 2)
    assert len(await events(api)) == 7, "what is no change of state is no event"


async def test_held_until_activated(api: Api) -> None:
    """Newer tokens of the other system replace older ones while held; never after, when they are refreshed here."""
    [one, other] = await brought(api, line(0), line(2), hold=True)
    held = await grant_of(api, one["connection"])
    assert held.held
    assert not may_refresh(held)
    assert held.state == "active", "its access token is handed out until it expires"

    [newer] = await brought(api, with_tokens(0, access_token="access-0b", refresh_token="refresh-0b"))
    assert newer["result"] == "updated"
    held = await grant_of(api, one["connection"])
    assert held.held, "only `activate` ends a hold"
    assert (held.generation, held.token_version) == (2, 2)

    problem(await api("POST", "/v1/connections/activate", {}), 422, "invalid")
    none = (await api("POST", "/v1/connections/activate", {"tenant": "globex"})).json()
    assert none == {"connections": 0, "grants": 0}
    done = (await api("POST", "/v1/connections/activate", {"tenant": "acme", "integration": "toy"})).json()
    assert done == {"connections": 2, "grants": 2}
    assert (await api("POST", "/v1/connections/activate", {"integration": "toy"})).json()["connections"] == 0
    assert may_refresh(await grant_of(api, one["connection"]))
    assert sorted(name for name, _ in await events(api)) == ["activated"] * 2 + ["active"] * 2

    [same, older] = await brought(api, line(2), line(0))
    assert same["result"] == "unchanged"
    assert (older["result"], older["reason"], older["connection"]) == ("refused", "in_use", one["connection"])
    assert (await grant_of(api, one["connection"])).token_version == 2

    await api("POST", "/v1/connections/hold", {"tenant": "acme"})
    assert not may_refresh(await grant_of(api, other["connection"]))


BAD: list[tuple[Any, str]] = [
    (line(tenant="nobody"), "unknown_tenant"),
    (line(integration="nothing"), "unknown_integration"),
    (line(access_profiles={"admin": {"access_token": "a"}}), "unknown_access_profile"),
    (line(access_profiles={}), "invalid"),
    (line(surprise=1), "invalid"),
    (line(external_id="bell \a"), "invalid"),
    (line(end_user_id=5), "invalid"),
    (line(end_user_id=2**70), "invalid"),
    ("no object", "invalid"),
    ({}, "invalid"),
    (with_tokens(expires_at="tomorrow"), "invalid"),
    (with_tokens(access_token="line\nbreak"), "invalid"),
    (with_tokens(refresh_token=""), "invalid"),
    (with_tokens(access_token=None, refresh_token=None), "no_token"),
    (with_tokens(expires_at=None), "expires_at_missing"),
    (with_tokens(refresh_token=None), "unrefreshable"),
    (with_tokens(refresh_token=None, expires_at=LONG_AGO), "unrefreshable"),
    (with_tokens(refresh_expires_at=LONG_AGO), "unrefreshable"),
    (with_tokens(kind="installation"), "unknown_kind"),
]


async def test_a_bad_line_is_refused_alone_and_whole(api: Api) -> None:
    """With a stable reason and without a word of what it said; its neighbours come in, and it leaves nothing behind."""
    for place, (bad, reason) in enumerate(BAD):
        answer = await api("POST", "/v1/connections/import", {"connections": [line(10 + place), bad, line(50 + place)]})
        assert answer.status_code == 200, answer.text
        results = answer.json()["results"]
        assert [one["result"] for one in results] == ["imported", "refused", "imported"], (bad, results)
        assert results[1]["reason"] == reason, (bad, results)
        assert results[1]["detail"]
        for secret in ("access-1", "refresh-1", "line\\nbreak"):
            assert secret not in answer.text
    made = 2 * len(BAD)
    assert (await count(api, "connections"), await count(api, "grants"), await count(api, "tokens")) == (made,) * 3


async def test_what_nothing_can_refresh_is_marked_where_that_is_allowed(api: Api) -> None:
    """`reauth_required`, reason `unrefreshable`; and scopes that are missing say so by themselves."""
    dies, lacks, opaque, only_refresh = await brought(
        api, with_tokens(1, refresh_token=None), with_tokens(2, scopes=["more"]), with_tokens(3, scopes=None),
        with_tokens(4, access_token=None, expires_at=None), allow_unrefreshable=True,
    )  # fmt: skip
    assert (dies["result"], dies["state"], dies["reason"]) == ("imported", "reauth_required", "unrefreshable")
    assert (lacks["result"], lacks["state"], lacks["reason"]) == ("imported", "reauth_required", "scopes_missing")
    assert (await grant_of(api, lacks["connection"])).ledger.missing == ("read",)
    assert opaque["state"] == only_refresh["state"] == "active"
    grant = await grant_of(api, only_refresh["connection"])
    assert grant.expires_at is not None
    assert grant.expires_at <= await api.gateway.regions.home.database.fetchval("SELECT gateway.now()")


async def test_what_is_minted_needs_no_refresh_token(api: Api) -> None:
    """A GitHub App's installation: which one it is, is all that minting needs."""
    asked = {
        "name": "gh", "provider": "github", "client_id": "c", "settings": {"app_slug": "ours"},
        "access_profiles": {"installation": {}, "user": {}},
    }  # fmt: skip
    assert (await api("POST", "/v1/integrations", asked)).status_code == 201
    found = await brought(
        api,
        *(
            line(number, integration="gh", access_profiles={profile: tokens})
            for number, (profile, tokens) in enumerate([
                ("installation", {"kind": "installation", "parameters": {"installation": "42"}}),
                ("installation", {"kind": "installation"}),
                ("installation", {"access_token": "a", "refresh_token": "r", "expires_at": LONG_AGO}),
                ("user", {"kind": "installation", "parameters": {"installation": "42"}}),
                ("user", {"access_token": "a"}),
            ])
        ),
    )  # fmt: skip
    assert [one["reason"] for one in found] == [None, "installation_missing", "wrong_kind", "wrong_kind", None]
    grant = await grant_of(api, found[0]["connection"], "installation")
    assert (grant.state, grant.kind, grant.has_refresh, grant.expires_at is None) == (
        "active",
        "installation",
        False,
        False,
    )


async def test_a_dry_run_does_nothing(api: Api) -> None:
    """It says what would become of each line."""
    await brought(api, line(1))
    told = await brought(api, line(1), line(2), line(tenant="nobody"), with_tokens(1, access_token="x"), dry_run=True)
    assert [one["result"] for one in told] == ["unchanged", "imported", "refused", "refused"]
    assert await count(api, "connections") == 1
    assert await count(api, "data_keys") == 1


async def test_a_key_without_the_right_may_not(api: Api) -> None:
    """Neither import nor export belongs to readers or consumers."""
    for role in ("reader", "consumer"):
        key = await api.key(role)
        for path in ("import", "export", "activate", "hold"):
            problem(await api("POST", f"/v1/connections/{path}", {}, key=key), 403, "forbidden")


async def test_two_imports_of_the_same_lines_at_once(api: Api) -> None:
    """In whatever order: each connection is made once, and nobody is refused for the other's sake."""
    lines = [line(n) for n in range(60)]
    first, second = await asyncio.gather(brought(api, *lines), brought(api, *reversed(lines)))
    assert sorted(one["result"] for one in (*first, *second)) == ["imported"] * 60 + ["unchanged"] * 60
    assert await count(api, "connections") == await count(api, "tokens") == len(await events(api)) == 60


async def test_a_thousand_lines_in_a_few_seconds(api: Api) -> None:
    """One batch: data keys, seals and rows go in together."""
    for number in range(100):
        await api("PUT", f"/v1/tenants/t{number}", {})
    began = perf_counter()
    results = await brought(api, *(line(n, tenant=f"t{n % 100}") for n in range(1000)), hold=True)
    taken_s = perf_counter() - began
    assert [one["result"] for one in results] == ["imported"] * 1000
    print(f"1,000 connections imported in {taken_s:.2f} s")
    assert taken_s < 20, "a few seconds; the bound is for machines that do much else"
