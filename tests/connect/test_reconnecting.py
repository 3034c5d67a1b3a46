"""Consents after the first: the same account again, another one, too narrow ones, only what is missing."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway import ids
from gateway.connect import sweep
from gateway.connections import grants, telling, transitions
from gateway.connections.store import NewConnection
from tests.connect.browser import heading, query_of
from tests.connect.conftest import Town
from tests.web.conftest import problem

WAITS = """SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                           WHERE NOT granted AND locktype = 'transactionid' AND datname = current_database())"""

REQUIRED = "messages.read"


def asked_scopes(url: str) -> set[str]:
    return set(dict(httpx.URL(url).params)["scope"].split())


async def _move(town: Town, shown: Any, state: Any, reason: str) -> None:
    """As a revocation would."""
    connection = ids.parse(ids.CONNECTION, shown["connection"])
    assert connection is not None
    async with town.gateway.regions.home.database.transaction() as tx:
        await grants.lock(tx, connection)
        await grants.stand(tx, {(connection, "reader"): grants.Standing(state, reason, False)})
        word = telling.Word(telling.Because(cause="test", source="operator"))
        await telling.settle(tx, {connection: word}, town.gateway.new_id)


async def test_a_reconnect_keeps_the_id_and_counts_a_generation(town: Town) -> None:
    """A new token set in the place of the old one; events say so whether or not the state changes."""
    first = await town.connect()
    before = (await town.grants(first))["reader"]
    old = await town.token(before)
    again = await town.connect(connection=first["connection"])
    assert again["connection"] == first["connection"]
    after = (await town.grants(again))["reader"]
    assert (after.generation, after.token_version, after.state) == (2, 2, "active")
    assert await town.token(after) != old
    await _move(town, first, "revoked", "revoked_by_user")
    third = await town.connect(connection=first["connection"])
    assert (await town.grants(third))["reader"].generation == 3
    assert third["connection_state"] == "active"
    assert [name for name, _ in await town.events()] == ["active", "authorized", "revoked", "repaired"]


async def test_another_account_is_refused_unless_the_session_allows_it(town: Town) -> None:
    """A page, an event, no change. Where it is allowed, nothing of the former account stays."""
    first = await town.connect(access_profiles=["reader", "writer"])
    accounts = await town.gateway.regions.home.database.fetch("SELECT account_hash FROM gateway.connection_accounts")
    made, mine = await town.ask(connection=first["connection"]), town.browser()
    answer = await town.consent(made, mine, user="user-2")
    assert (answer.status_code, heading(answer)) == (403, "That is another account")
    assert (await town.session(made))["outcome"] == "wrong_account"
    assert await town.count("staged_tokens") == 0
    assert {one.generation for one in (await town.grants(first)).values()} == {1}
    name, data = (await town.events())[-1]
    assert (name, data["state"], data["connection"]) == ("wrong_account", "active", first["connection"])
    again = await mine.press(answer)  # and now with the right one
    assert query_of(await town.decide(again.headers["location"], mine))["code"]

    switched = await town.connect(
        consent={"user": "user-2"},
        connection=first["connection"],
        access_profiles=["reader"],
        allow_account_switch=True,
    )
    held = await town.grants(switched)
    assert (held["reader"].state, held["reader"].generation) == ("active", 2)
    assert (held["writer"].state, held["writer"].reason, held["writer"].issued_at) == (
        "reauth_required",
        "account_switched",
        None,
    )
    now = await town.gateway.regions.home.database.fetch("SELECT account_hash FROM gateway.connection_accounts")
    assert len(now) == len(accounts) == 1
    assert now != accounts
    # The new account is the connection's own from now on.
    made = await town.ask(connection=first["connection"])
    assert heading(await town.consent(made, user="user-1")) == "That is another account"


async def test_a_switch_with_scopes_missing_keeps_nothing_of_the_former_account(town: Town) -> None:
    """What still works is another account's: it must not go on under this one's name."""
    first = await town.connect()
    made = await town.ask(connection=first["connection"], allow_account_switch=True)
    page = await town.consent(made, user="user-2", untick=[REQUIRED])
    done = await town.complete(made, page.text.split("code=")[1].split('"')[0])
    assert (done["outcome"], done["connection_state"]) == ("scopes_missing", "reauth_required")
    grant = (await town.grants(done))["reader"]
    assert (grant.generation, grant.state) == (2, "reauth_required")
    [theirs] = [one for one in town.provider.sandbox.grants.values() if one.user == "user-2"]
    assert town.provider.sandbox.tokens[await town.token(grant)].grant is theirs


async def test_an_imported_account_is_held_to_its_subject(town: Town) -> None:
    """What the line names is what the provider says at a reconnect; and nobody else's consent counts."""
    line = {
        "tenant": "acme", "integration": "sandbox", "external_id": "e-1", "subject": "account:user-1",
        "access_profiles": {"reader": {"access_token": "a", "refresh_token": "r", "expires_at": "2020-01-01T00:00:00Z"}},
    }  # fmt: skip
    [told] = (await town.api("POST", "/v1/connections/import", {"connections": [line]})).json()["results"]
    assert told["result"] == "imported", told
    for user, outcome in (("user-2", "wrong_account"), ("user-1", "connected")):
        made = await town.ask(connection=told["connection"])
        await town.consent(made, user=user)
        assert (await town.session(made))["outcome"] == outcome


async def test_a_registered_account_is_held_to_its_names(town: Town) -> None:
    """The platform registered it by account key: a consent of that account joins, of another one it is refused."""
    body = {"tenant": "acme", "integration": "sandbox", "accounts": ["account:user-1"]}
    made = (await town.api("POST", "/v1/connections", body)).json()
    session = await town.ask(connection=made["id"], access_profiles=["reader"])
    assert heading(await town.consent(session, user="user-2")) == "That is another account"
    done = await town.connect(connection=made["id"], access_profiles=["reader"])
    assert (done["connection"], done["connection_state"]) == (made["id"], "active")


async def test_required_scopes_missing_at_first(town: Town) -> None:
    """`reauth_required`, reason `scopes_missing`; the link that mends it, and then all is well."""
    made = await town.ask()
    answer = await town.consent(made, untick=[REQUIRED])
    assert heading(answer) == "Some permissions are missing"
    [on] = [part for part in answer.text.split('"') if part.startswith("https://app.example.com/")]
    code = dict(httpx.URL(on.replace("&amp;", "&")).params)["code"]
    done = await town.complete(made, code)
    assert (done["outcome"], done["connection_state"]) == ("scopes_missing", "reauth_required")
    assert done["grants"]["reader"]["scopes"]["missing"] == [REQUIRED]
    name, data = (await town.events())[-1]
    assert (name, data["reason"]) == ("reauth_required", "scopes_missing")

    mending, mine = await town.ask(connection=done["connection"], scopes="missing"), town.browser()
    url = await town.press(mending, mine)
    assert asked_scopes(url) == {REQUIRED}  # this server adds it to what there is
    mended = await town.complete(mending, query_of(await town.decide(url, mine))["code"])
    assert (mended["outcome"], mended["connection_state"]) == ("connected", "active")
    assert mended["grants"]["reader"]["generation"] == 2
    assert mended["grants"]["reader"]["scopes"]["granted"] == ["contacts.read", "messages.read", "profile"]
    assert (await town.ask(connection=done["connection"], scopes="missing", status=409))[
        "detail"
    ] == "No scope is missing."


async def test_optional_scopes_may_be_missing(town: Town) -> None:
    """Active, and listed; the browser goes straight back."""
    done = await town.connect(consent={"untick": ["contacts.read"]})
    assert (done["outcome"], done["connection_state"]) == ("connected", "active")
    assert (done["grants"]["reader"]["scopes"]["missing"], done["grants"]["reader"]["scopes"]["optional_missing"]) == (
        [],
        ["contacts.read"],
    )
    more = await town.connect(connection=done["connection"], scopes="missing")
    assert more["grants"]["reader"]["scopes"]["optional_missing"] == []


async def test_a_reconnect_that_lacks_scopes_leaves_what_works(town: Town) -> None:
    """The former grant stays current while it works; one that does not is replaced by what there is."""
    first = await town.connect()
    before = (await town.grants(first))["reader"]
    made = await town.ask(connection=first["connection"])
    page = await town.consent(made, untick=[REQUIRED])
    code = page.text.split("code=")[1].split('"')[0]
    done = await town.complete(made, code)
    assert (done["outcome"], done["connection_state"]) == ("scopes_missing", "active")
    assert (await town.grants(first))["reader"] == before
    assert (await town.events())[-1][0] == "scopes_missing"

    await _move(town, first, "reauth_required", "refresh_refused")
    made = await town.ask(connection=first["connection"])
    code = (await town.consent(made, untick=[REQUIRED])).text.split("code=")[1].split('"')[0]
    await town.complete(made, code)
    after = (await town.grants(first))["reader"]
    assert (after.generation, after.state, after.reason) == (2, "reauth_required", "scopes_missing")


async def test_several_access_profiles_are_consented_to_in_turn(town: Town) -> None:
    """One press, a consent for each; all of them belong to one account."""
    made, mine = await town.ask(access_profiles=["reader", "writer"]), town.browser()
    page = await mine.get(made["url"])
    assert "ask you 2 times" in page.text
    url = await town.press(made, mine)
    assert asked_scopes(url) == {"profile", "messages.read", "contacts.read"}
    between = await mine.get(await town.provider.consent(url))
    assert asked_scopes(between.headers["location"]) == {"messages.write"}
    wrong = await mine.get(await town.provider.consent(between.headers["location"], user="user-2"))
    assert heading(wrong) == "That is another account"
    again = await mine.press(wrong)
    assert asked_scopes(again.headers["location"]) == {"messages.write"}  # what is there is not asked for twice
    told = query_of(await town.decide(again.headers["location"], mine))
    done = await town.complete(made, told["code"])
    assert {name: one["state"] for name, one in done["grants"].items()} == {"reader": "active", "writer": "active"}
    held = await town.grants(done)
    assert await town.token(held["reader"]) != await town.token(held["writer"])


async def test_missing_scopes_of_an_earlier_consent_are_not_forgotten(town: Town) -> None:
    """The page at the end speaks of all of them."""
    made, mine = await town.ask(access_profiles=["reader", "writer"]), town.browser()
    url = await town.press(made, mine)
    between = await mine.get(await town.provider.consent(url, untick=[REQUIRED]))
    last = await mine.get(await town.provider.consent(between.headers["location"]))
    assert heading(last) == "Some permissions are missing"
    assert (REQUIRED in last.text, "messages.write" in last.text) == (True, False)


async def test_completing_is_done_once(town: Town) -> None:
    """The same code again, at the same moment or later, with or without an Idempotency-Key: the same connection."""
    made = await town.ask()
    code = query_of(await town.consent(made))["code"]
    path, body = f"/v1/connect/sessions/{made['id']}/complete", {"code": code}
    answers = await asyncio.gather(
        *(town.api("POST", path, body) for _ in range(4)),
        town.api("POST", path, body, headers={"idempotency-key": "k"}),
    )
    answers.append(await town.api("POST", path, body, headers={"idempotency-key": "k"}))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert [name for name, _ in await town.events()] == ["active"]
    assert (await town.grants(answers[0].json()))["reader"].generation == 1


async def test_two_reconnects_at_once_are_two_generations(town: Town) -> None:
    """Whoever is second seals anew for what the first has left."""
    first = await town.connect()
    sessions = [await town.ask(connection=first["connection"]) for _ in range(3)]
    codes = [query_of(await town.consent(made))["code"] for made in sessions]
    await asyncio.gather(*(town.complete(made, code) for made, code in zip(sessions, codes, strict=True)))
    grant = (await town.grants(first))["reader"]
    assert (grant.generation, grant.token_version) == (4, 4)
    assert await town.token(grant) in town.provider.sandbox.tokens


async def revoked(town: Town) -> None:
    """All closing tasks have been done; the gateway's own loop may be at them too."""
    async with asyncio.timeout(20):
        while await town.count("closing_tasks"):
            await town.gateway.closing_worker(town.gateway.regions.home).run_once()


async def test_what_another_account_gave_is_revoked(town: Town) -> None:
    """Unless somebody here lives by that account; what the connection has is left alone."""
    first = await town.connect()

    async def by_another() -> None:
        made = await town.ask(connection=first["connection"])
        await town.consent(made, user="user-2")
        assert (await town.session(made))["outcome"] == "wrong_account"
        await revoked(town)

    await by_another()
    assert town.provider.grants("user-2") == []
    other = await town.connect(consent={"user": "user-2"})
    await by_another()
    assert len(town.provider.grants("user-2")) == 2
    for connection in (first, other):
        assert (await town.api("GET", f"/v1/connections/{connection['connection']}/token")).status_code == 200


async def test_what_is_not_completed_ends(town: Town) -> None:
    """After ten minutes the staged tokens and the pending connection are gone, and the code with them."""
    made, idle = await town.ask(external_id="e-1"), await town.ask()
    code = query_of(await town.consent(made))["code"]
    await town.pass_s(590)
    assert await sweep.run_once(town.gateway) == 0
    await town.pass_s(20)
    assert (await town.session(made))["state"] == "expired"
    await town.complete(made, code, status=409)
    assert await sweep.run_once(town.gateway) == 2
    assert (await town.session(idle))["state"] == "expired"
    assert await town.count("staged_tokens") + await town.count("connections") == 0
    await revoked(town)
    assert town.provider.grants() == [], "nobody has its tokens: then nobody is to have them at the provider"
    await town.connect(external_id="e-1")
    await town.pass_s(31 * 24 * 3600)
    await sweep.run_once(town.gateway)
    assert await town.count("connect_sessions") == 0


async def test_what_is_staged_in_a_copy_of_the_database_is_not_revoked(town: Town) -> None:
    """Where it was copied from it may have been completed, and be in use."""
    await town.consent(await town.ask())
    await town.gateway.regions.home.database.execute("UPDATE gateway.epoch SET epoch = epoch + 1")
    await town.pass_s(610)
    assert await sweep.run_once(town.gateway) == 1
    assert await town.count("staged_tokens") + await town.count("closing_tasks") == 0
    assert len(town.provider.grants()) == 1


async def test_a_pending_connection_has_no_deliveries(town: Town) -> None:
    """Nothing is attributed before the platform has completed it, and everything after."""
    made = await town.ask()
    code = query_of(await town.consent(made))["code"]
    connection = (await town.session(made))["connection"]
    owners = []
    for complete in (False, True):
        if complete:
            assert (await town.complete(made, code))["connection"] == connection
        town.provider.sandbox.webhooks.tell(town.provider.client, "note.created", {"n": complete}, "user-1")
        await town.provider.sandbox.webhooks.settled()
        page = (await town.api("GET", "/v1/events?type=posthouse.delivery&limit=10")).json()
        owners.append([entry["event"].get("subject") for entry in page["items"]])
    assert owners == [[None], [None, connection]]


async def test_a_connection_that_was_closed_meanwhile_is_not_brought_back(town: Town) -> None:
    """Nor can it be reconnected."""
    first = await town.connect()
    made = await town.ask(connection=first["connection"])
    code = query_of(await town.consent(made))["code"]
    assert (await town.api("DELETE", f"/v1/connections/{first['connection']}")).status_code == 204
    await town.complete(made, code, status=409)
    assert (await town.ask(connection=first["connection"], status=409))["state"] == "closed"


async def test_an_external_id_is_given_once(town: Town) -> None:
    """Asked for twice, the first to be completed has it; the other is told where it went."""
    sessions = [await town.ask(external_id="e-1") for _ in range(2)]
    codes = [
        query_of(await town.consent(made, user=user))["code"]
        for made, user in zip(sessions, ("user-1", "user-2"), strict=True)
    ]
    first = await town.complete(sessions[0], codes[0])
    assert (await town.complete(sessions[1], codes[1], status=409))["connection"] == first["connection"]
    assert (await town.ask(external_id="e-1", status=409))["connection"] == first["connection"]
    assert await town.count("tokens") == 1


@pytest.mark.parametrize("minted", [False, True])
async def test_an_external_id_that_is_given_away_at_this_moment(town: Town, minted: bool) -> None:
    """Two writers who cannot see each other yet: the second is told where it went, as if it had come later."""
    region = town.gateway.regions.home
    integration = town.gateway.catalog.integration("sandbox")
    assert integration is not None
    if not minted:
        made = await town.ask(external_id="e-1")
        code = query_of(await town.consent(made))["code"]
    twin = NewConnection(
        id=town.gateway.new_id(), tenant_id="acme", integration_id=integration.id, external_id="e-1", end_user_id=None,
        labels={}, accounts=(),
    )  # fmt: skip
    asked = {"tenant": "acme", "integration": "sandbox", "external_id": "e-1", "access_profiles": ["reader"]}
    async with region.database.transaction() as tx:
        await transitions.register(tx, twin, town.gateway.new_id)
        if minted:
            second = asyncio.create_task(town.api("POST", "/v1/connections", asked))
        else:
            second = asyncio.create_task(
                town.api("POST", f"/v1/connect/sessions/{made['id']}/complete", {"code": code})
            )
        async with asyncio.timeout(20):
            while not await region.database.fetchval(WAITS):  # noqa: ASYNC110 - on a result
                await asyncio.sleep(0)
    assert problem(await second, 409, "conflict")["connection"] == ids.show(ids.CONNECTION, twin.id)
    assert await town.count("tokens") == 0
