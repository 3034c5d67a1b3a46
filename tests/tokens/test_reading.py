"""Reading tokens: what an answer holds, who may ask, and what is said when there is none."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from gateway import ids
from gateway.connections.states import State
from gateway.tokens.opened import Opened
from tests.clock import FakeClock
from tests.connect.conftest import Town
from tests.fakes.misbehaving import changed
from tests.tokens.conftest import Account, connected
from tests.web.conftest import problem


async def test_an_answer_holds_the_access_token_and_all_that_is_needed_to_use_it(account: Account) -> None:
    """Never the refresh token; one audit row a read."""
    answer = await account.read(access_profile="reader", min_ttl_s=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    grant = await account.grant()
    assert told["access_token"] == await account.town.token(grant)
    assert told["access_token"] in account.town.provider.sandbox.tokens
    assert await account.town.token(grant, "refresh") not in answer.text
    assert {name: told[name] for name in ("access_profile", "state", "token_type", "generation", "token_version")} == {
        "access_profile": "reader", "state": "active", "token_type": "Bearer", "generation": 1, "token_version": 1,
    }  # fmt: skip
    assert (told["scopes"], told["missing_scopes"]) == (["contacts.read", "messages.read", "profile"], [])
    issued, expires = grant.issued_at, grant.expires_at
    assert issued is not None
    assert expires is not None
    assert datetime.fromisoformat(told["expires_at"]) == expires
    assert datetime.fromisoformat(told["refresh_after"]) == issued + 0.8 * (expires - issued)
    assert (await account.read()).json() == told
    assert await account.audited() == [("token.read", 1)] * 2


async def test_scopes_that_were_unticked_are_named(town: Town) -> None:
    told = (await (await connected(town, consent={"untick": ["contacts.read"]})).read()).json()
    assert (told["scopes"], told["missing_scopes"]) == (["messages.read", "profile"], ["contacts.read"])


async def test_several_access_profiles_must_be_told_apart(town: Town) -> None:
    """Left out where there is one; else the answer names them. A profile that was dropped does not count."""
    account = await connected(town, access_profiles=["reader", "writer"])
    said = problem(await account.read(), 409, "access_profile_needed")
    assert (said["access_profiles"], said["do"]) == (["reader", "writer"], "name_profile")
    assert (await account.read(access_profile="writer")).json()["scopes"] == ["messages.write"]
    assert problem(await account.read(access_profile="other"), 409, "no_grant")["do"] == "reconnect"
    await account.move("closed", profile="reader")
    assert (await account.read()).json()["access_profile"] == "writer"
    assert [action for action, _ in await account.audited()] == ["token.read"] * 2


REFUSED: list[tuple[State, str, str]] = [
    ("pending", "connection_pending", "complete"),
    ("suspended", "connection_suspended", "wait"),
    ("reauth_required", "reauth_required", "reconnect"),
    ("revoked", "connection_revoked", "reconnect"),
    ("closed", "connection_closed", "connect"),
]


async def test_no_token_leaves_in_any_other_state(account: Account) -> None:
    """409, a stable type, what to do; nothing audited, nobody asked. Suspect is evidence: its token is handed out."""
    for state, code, do in REFUSED:
        await account.set(state=state, reason="a_reason")
        said = problem(await account.read(), 409, code)
        assert (said["state"], said["do"], said["access_profile"]) == (state, do, "reader")
        assert said["reason"] == "a_reason"
        assert "retry-after" not in (await account.read()).headers
    assert await account.audited() == []
    await account.set(state="suspect")
    assert (await account.read()).json()["state"] == "suspect"
    assert account.refreshes == 0


async def test_a_closed_connection_gives_none_whatever_its_grants_say(account: Account) -> None:
    assert (await account.town.api("DELETE", account.path)).status_code == 204
    problem(await account.read(), 409, "connection_closed")


async def test_what_cannot_be_read(town: Town, account: Account) -> None:
    """Unknown: 404. No grant at all: says so. Odd questions: 422, 405. Another role: 403."""
    unknown = f"/v1/connections/{ids.show(ids.CONNECTION, ids.uuid7(town.gateway.clock.now()))}/token"
    problem(await town.api("GET", unknown), 404, "not_found")
    problem(await town.api("GET", "/v1/connections/conn_1/token"), 404, "not_found")
    problem(await town.api("GET", "/v1/connections//token"), 404, "not_found")
    asked = {"tenant": "acme", "integration": "sandbox", "accounts": ["account:9"]}
    made = (await town.api("POST", "/v1/connections", asked)).json()
    problem(await town.api("GET", f"/v1/connections/{made['id']}/token"), 409, "no_grant")
    odd: list[dict[str, Any]] = [
        {"min_ttl_s": -1}, {"min_ttl_s": 86401}, {"min_ttl_s": "x"}, {"access_profile": "A"}, {"profile": "reader"},
        {"access_profile": 'a","b'},
    ]  # fmt: skip
    for query in odd:
        problem(await account.read(**query), 422, "invalid")
    problem(await town.api("POST", f"{account.path}/token"), 405, "method_not_allowed")
    problem(await town.api("GET", f"{account.path}/token", key=None), 401, "unauthenticated")
    problem(await town.api("GET", f"{account.path}/token", key=await town.api.key("reader")), 403, "forbidden")
    head = await town.api("HEAD", f"{account.path}/token")
    assert (head.status_code, head.content) == (200, b"")


async def test_a_token_that_does_not_open_is_one_error_and_no_log_holds_it(account: Account, lines: io.BytesIO) -> None:
    """Moved from another row: the seal does not open here, and the read says so without a traceback's texts."""
    database = account.town.gateway.regions.home.database
    token = await account.town.token(await account.grant())
    other = await connected(account.town)
    row = await database.fetchrow("SELECT sealed_access FROM gateway.tokens WHERE connection_id = $1", other.id)
    assert row is not None
    await database.execute(
        "UPDATE gateway.tokens SET sealed_access = $2 WHERE connection_id = $1", account.id, row["sealed_access"]
    )
    problem(await account.read(), 500, "seal_broken")
    said = lines.getvalue().decode()
    assert '"token.seal_broken"' in said
    assert token not in said


async def test_a_connection_shows_its_grants(account: Account) -> None:
    """State, reason, versions, expiry, ledger, held: all but the tokens."""
    await account.move("suspect", "a_reason")
    shown = (await account.town.api("GET", account.path)).json()
    assert (shown["state"], shown["reason"]) == ("suspect", "a_reason")
    grant = shown["access_profiles"]["reader"]
    assert grant["scopes"]["granted"] == ["contacts.read", "messages.read", "profile"]
    assert (grant["state"], grant["reason"], grant["generation"], grant["token_version"]) == (
        "suspect",
        "a_reason",
        1,
        1,
    )
    assert (grant["held"], grant["refreshable"], grant["kind"]) == (False, True, "code")
    [listed] = (await account.town.api("GET", "/v1/connections")).json()["items"]
    assert listed == shown


@pytest.mark.parametrize("how", ["token_type", "scopes"])
async def test_what_a_provider_sends_beside_the_token_cannot_spoil_it(town: Town, how: str) -> None:
    """Texts that a database cannot hold are left out; the rotated token is kept."""
    account = await connected(town)
    odd = {"token_type": "be\0arer"} if how == "token_type" else {"scope": "profile messages.read contacts.read od\0d"}
    town.provider.misbehave("refresh_token", changed(**odd))
    await town.pass_s(3600)
    told = (await account.read()).json()
    assert (told["token_version"], told["token_type"]) == (2, "Bearer")
    assert told["scopes"] == ["contacts.read", "messages.read", "profile"]


async def test_what_is_kept_of_opened_tokens_is_bounded_and_names_one_token_set() -> None:
    """By generation and version; gone after its time; the oldest makes room."""
    clock, one, other = FakeClock(), UUID(int=1), UUID(int=2)
    opened = Opened(clock, ttl_s=10, most=2)
    opened.put((one, "a", 1, 1), "first")
    assert opened.get((one, "a", 1, 1)) == "first"
    for unlike in ((one, "a", 1, 2), (one, "a", 2, 1), (one, "b", 1, 1), (other, "a", 1, 1)):
        assert opened.get(unlike) is None
    clock.move(9)
    opened.put((one, "a", 1, 2), "second")
    opened.put((other, "a", 1, 1), "third")
    assert [opened.get(key) for key in ((one, "a", 1, 1), (one, "a", 1, 2), (other, "a", 1, 1))] == [
        None,
        "second",
        "third",
    ]
    clock.move(10)
    assert opened.get((one, "a", 1, 2)) is None
    assert "second" not in repr(opened)
