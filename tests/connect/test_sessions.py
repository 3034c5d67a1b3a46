"""The private API of sessions: what can be asked for, what is refused, and that calls may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from providers.oauth import TokenSet
from providers.registry import Provider, all_providers
from tests.connect.browser import heading, query_of
from tests.connect.conftest import BACK, PROFILES, Town, declare
from tests.flows.house import metric
from tests.web.conftest import problem

REFUSED: list[tuple[dict[str, Any], int]] = [
    ({"tenant": "nobody"}, 404),
    ({"integration": "none"}, 404),
    ({"access_profiles": []}, 422),
    ({"access_profiles": ["reader", "reader"]}, 422),
    ({"access_profiles": ["nobody"]}, 422),
    ({"scopes": "missing"}, 422),
    ({"parameters": {"shop": "x"}}, 422),
    ({"parameters": {"base_url": "http://evil.example.com"}}, 422),
    ({"ttl_s": 59}, 422),
    ({"ttl_s": 86401}, 422),
    ({"ttl_s": "600"}, 422),
    ({"integration": "deliveries"}, 422),
    ({"integration": "bare"}, 409),
]
REFUSED_AGAIN: list[tuple[dict[str, Any], int]] = [
    ({"external_id": "e"}, 422), ({"labels": {"a": "b"}}, 422), ({"end_user_id": "u"}, 422), ({"tenant": "other"}, 422),
    ({"integration": "bare"}, 422), ({"access_profiles": ["nobody"]}, 422), ({"scopes": "missing"}, 409),
    ({"connection": "conn_" + "0" * 32}, 404), ({"connection": "key_" + "0" * 32}, 422),
]  # fmt: skip


async def test_what_cannot_be_is_refused_at_once(town: Town) -> None:
    """Before there is any link."""
    await town.api("POST", "/v1/integrations", {"name": "deliveries", "provider": "standard-webhooks"})
    await declare(town, "bare", client_id=None, client_secrets=[])
    for more, status in REFUSED:
        await town.ask(**more, status=status)
    first = await town.connect()
    mine: dict[str, Any] = {"connection": first["connection"]}
    for more, status in REFUSED_AGAIN:
        await town.ask(**{**mine, **more}, status=status)
    assert len((await town.api("GET", "/v1/connect/sessions")).json()["items"]) == 1


async def test_sessions_are_listed_and_shown_without_their_link(town: Town) -> None:
    """By tenant, state, connection; only the call that makes one shows its link."""
    done = await town.connect()
    made = await town.ask(labels={"a": "b"}, return_url=BACK + "?x=1")
    assert (await town.session(made)) == {**made, "url": None}
    for query, ids in (
        ("", [done["id"], made["id"]]), ("?state=completed", [done["id"]]), ("?tenant=acme&state=created", [made["id"]]),
        (f"?connection={done['connection']}", [done["id"]]), ("?tenant=nobody", []),
    ):  # fmt: skip
        listed = (await town.api("GET", f"/v1/connect/sessions{query}")).json()["items"]
        assert sorted(one["id"] for one in listed) == sorted(ids)  # made in one and the same millisecond
        assert {one["url"] for one in listed} <= {None}
    problem(await town.api("GET", "/v1/connect/sessions/sess_" + "0" * 32), 404, "not_found")
    problem(await town.api("POST", f"/v1/connect/sessions/{made['id']}/complete", {"code": "x"}), 409, "session_over")
    reader = await town.api.key("reader")
    problem(await town.api("GET", "/v1/connect/sessions", key=reader), 403, "forbidden")


async def test_the_same_call_makes_one_session(town: Town) -> None:
    """With an Idempotency-Key the same link comes again."""
    body = {"tenant": "acme", "integration": "sandbox", "access_profiles": ["reader"]}
    answers = [await town.api("POST", "/v1/connect/sessions", body, headers={"idempotency-key": "k"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert await town.count("connect_sessions") == 1


async def test_without_a_return_url_the_code_stands_on_the_page(town: Town) -> None:
    """For platforms whose user carries it over."""
    made = await town.ask(return_url=None)
    before = metric("posthouse_connect_total", integration="sandbox", outcome="connected")
    page = await town.consent(made)
    assert heading(page) == "Your Sandbox account gave its permission"
    code = page.text.rpartition("<code>")[2].partition("</code>")[0]
    assert (await town.complete(made, code))["outcome"] == "connected"
    assert metric("posthouse_connect_total", integration="sandbox", outcome="connected") == before + 1


async def test_url_parts_are_chosen_within_their_pattern(town: Town) -> None:
    """One DNS label each; what the operator has set is not to be chosen."""
    base = town.provider.base_url
    settings = {
        "authorize_url": "https://{shop}.example.com/authorize", "token_url": "https://{shop}.example.com/token",
        "userinfo_url": "https://{shop}.example.com/me", "user_parts": ["shop"],
    }  # fmt: skip
    body = {
        "name": "shops", "provider": "generic-oauth2", "client_id": "c", "client_secrets": ["a secret"], "settings": settings,
        "access_profiles": PROFILES, "return_urls": [BACK],
    }  # fmt: skip
    assert (await town.api("POST", "/v1/integrations", body)).status_code == 201
    for parameters in (
        {},
        {"shop": "a.b"},
        {"shop": "evil.example.com/"},
        {"shop": "x@"},
        {"shop": "ok", "other": "x"},
        {"shop": base},
    ):
        await town.ask(integration="shops", parameters=parameters, status=422)
    made = await town.ask(integration="shops", parameters={"shop": "ours"})
    assert (await town.press(made, town.browser())).startswith("https://ours.example.com/authorize?")


async def test_only_what_is_missing_is_asked_for_where_the_provider_adds_it(town: Town) -> None:
    """Incremental: the next consent names the one scope, and the grant holds the union."""
    base, client = town.provider.base_url, town.provider.client
    settings = {
        "authorize_url": f"{base}/oauth/authorize", "token_url": f"{base}/oauth/token", "userinfo_url": f"{base}/api/me",
        "issuer": base, "incremental": True, "scopes_merge": True,
    }  # fmt: skip
    body = {
        "name": "other", "provider": "generic-oauth2", "client_id": client.id, "client_secrets": [client.secret],
        "settings": settings, "access_profiles": PROFILES, "return_urls": [BACK],
    }  # fmt: skip
    assert (await town.api("POST", "/v1/integrations", body)).status_code == 201
    made = await town.ask(integration="other")
    code = (await town.consent(made, untick=["messages.read"])).text.split("code=")[1].split('"')[0]
    lacking = await town.complete(made, code)
    assert lacking["connection_state"] == "reauth_required"
    mending, mine = await town.ask(connection=lacking["connection"], scopes="missing"), town.browser()
    url = await town.press(mending, mine)
    assert dict(httpx.URL(url).params)["scope"] == "messages.read"
    town.provider.misbehave("authorization_code", "no_scope")  # this one does not say
    mended = await town.complete(mending, query_of(await town.decide(url, mine))["code"])
    assert mended["grants"]["reader"]["scopes"]["granted"] == ["contacts.read", "messages.read", "profile"]
    assert mended["connection_state"] == "active"


@pytest.fixture
async def twofold() -> AsyncIterator[Provider]:
    """A provider like Slack and like a GitHub App at once: one consent, a user's token, and one that is minted."""
    sandbox = all_providers()["sandbox"]
    assert sandbox.oauth is not None

    def token_sets(answer: Any, asked: Any) -> Any:
        return {
            "user": TokenSet(
                access_token=answer["access_token"], refresh_token=answer["refresh_token"], expires_in_s=3600
            )
        }

    async def mint(http: Any, app: Any, accounts: Any) -> TokenSet:
        assert app.now is not None
        return TokenSet(access_token=f"minted-for-{accounts[0]}", expires_in_s=3600, parameters={"installation": "42"})

    made = replace(
        sandbox, facts=replace(sandbox.facts, name="twofold"), token_sets=token_sets, mint=mint,
        oauth=replace(sandbox.oauth, profiles=("installation", "user"), minted=("installation",)),
    )  # fmt: skip
    all_providers()["twofold"] = made
    yield made
    del all_providers()["twofold"]


async def test_one_consent_fills_two_profiles_and_one_is_minted(twofold: Provider, town: Town) -> None:
    """Each has a grant of its own; the minted one is known as such, since it is minted again and not refreshed."""
    profiles = {"installation": {"required": [], "optional": []}, "user": {"required": ["profile"], "optional": []}}
    await declare(town, "other", provider="twofold", access_profiles=profiles)
    done = await town.connect(integration="other", access_profiles=["installation", "user"])
    assert town.provider.calls["authorization_code"] == 1
    held = await town.grants(done)
    assert {name: (one.kind, one.state) for name, one in held.items()} == {
        "installation": ("installation", "active"),
        "user": ("code", "active"),
    }
    assert await town.token(held["installation"]) == "minted-for-account:user-1"
    assert held["installation"].parameters == {"installation": "42"}
    asked = {
        "tenant": "acme",
        "integration": "other",
        "access_profiles": ["installation"],
        "accounts": ["installation:42"],
    }
    made = (await town.api("POST", "/v1/connections", asked)).json()
    assert (made["state"], made["access_profiles"]["installation"]["kind"]) == ("active", "installation")
    asked["accounts"] = []
    problem(await town.api("POST", "/v1/connections", asked), 422, "invalid")
    asked["access_profiles"] = ["user"]
    town.provider.misbehave("client_credentials", "server_error")
    assert (await town.api("POST", "/v1/connections", asked)).status_code == 503


async def test_minting_that_fails_makes_no_connection(town: Town) -> None:
    """And says whose trouble it is."""
    asked = {"tenant": "acme", "integration": "sandbox", "access_profiles": ["reader"]}
    for how, status, code in (("server_error", 503, "provider_unavailable"), ("invalid_client", 503, "integration_broken"),
                              ("invalid_grant", 409, "conflict"), ("html", 503, "provider_unavailable")):  # fmt: skip
        town.provider.misbehave("client_credentials", how)
        said = problem(await town.api("POST", "/v1/connections", asked), status, code)
        assert "hunter2" not in str(said)
    assert await town.count("connections") == 0
    asked["access_profiles"] = ["nobody"]
    problem(await town.api("POST", "/v1/connections", asked), 422, "invalid")


async def test_an_integration_that_cannot_be_used(town: Town) -> None:
    """Its settings do not fit (another release wrote them, say): no link is made, one that is out says so; what ends
    meanwhile is revoked when it is mended."""
    done, made, mine = await town.connect(), await town.ask(), town.browser()
    control, catalog = town.gateway.control, town.gateway.catalog
    kept = await control.fetchval("SELECT settings FROM control.integrations")
    await control.execute("UPDATE control.integrations SET settings = '{}'")
    await catalog.refresh()
    assert "doctor" in (await town.ask(status=409))["detail"]
    for _ in range(2):
        assert heading(await mine.get(made["url"])) == "The app is not set up correctly"
    assert (await town.session(made))["state"] == "created"
    assert (await town.api("DELETE", f"/v1/connections/{done['connection']}")).status_code == 204
    worker = town.gateway.closing_worker(town.gateway.regions.home)
    await worker.run_once()
    assert await town.count("closing_tasks") == 1
    await control.execute("UPDATE control.integrations SET settings = $1", kept)
    await catalog.refresh()
    await town.pass_s(60)
    async with asyncio.timeout(20):
        while await town.count("closing_tasks"):
            await worker.run_once()
    assert town.provider.grants() == []
    await town.consent(made, mine)
