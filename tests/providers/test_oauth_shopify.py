"""Connecting shops: the token request, whose token it is, what it may do, and uninstalling."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.outbound.targets import hosts_of, read
from providers import oauth, shopify
from providers.errors import GrantEnded, Misconfigured, NotAllowed, OddAnswer, ProviderError, Suspended
from providers.oauth import TokenSet
from tests.providers.oauth_cases import CASES, REDIRECT, SECRET
from tests.providers.properties import PROPERTY
from tests.providers.script import Answer, Script, answer
from tests.providers.test_oauth_requests import HOSTILE

CASE = CASES["shopify"]
API = ("POST", "https://shop-1.myshopify.com/admin/api/2026-10/graphql.json")
TOKEN = ("POST", "https://shop-1.myshopify.com/admin/oauth/access_token")
TOKENS = TokenSet(access_token="shpat_1", refresh_token="shprt_1")
REJECTED = answer({"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"}, 401)
GONE = answer({"data": {"appUninstall": {"app": {"id": "gid://shopify/App/1"}, "userErrors": []}}})


def scripted(answers: dict[tuple[str, str], Answer]) -> Script:
    return Script(CASE.facts, CASE.app(), answers)


def shop(domain: Any) -> Any:
    return answer({"data": {"shop": {"myshopifyDomain": domain}}})


def test_an_exchange_asks_for_a_token_that_expires() -> None:
    """As JSON; without it the token would live for ever."""
    request = oauth.token_request(CASE.facts, CASE.app(), oauth.code_fields(CASE.facts, CASE.app(), "co-1", "v"))
    assert (request.method, request.url) == TOKEN
    assert json.loads(request.body) == {
        "grant_type": "authorization_code",
        "client_id": "client.id/1",
        "client_secret": SECRET,
        "code": "co-1",
        "redirect_uri": REDIRECT,
        "expiring": "1",
    }
    again = oauth.token_request(CASE.facts, CASE.app(), oauth.refresh_fields(CASE.facts, CASE.app(), "shprt_1"))
    assert json.loads(again.body) == {
        "grant_type": "refresh_token",
        "client_id": "client.id/1",
        "client_secret": SECRET,
        "refresh_token": "shprt_1",
    }


@pytest.mark.parametrize("value", HOSTILE)
def test_a_shop_is_one_label(value: str) -> None:
    for url in (CASE.facts.token_url, CASE.facts.authorize_url or "", CASE.facts.api_base or ""):
        with pytest.raises(Misconfigured):
            oauth.filled(url, CASE.facts, CASE.app(parts={"shop": value}))


@PROPERTY
@given(value=st.one_of(st.text(max_size=20), st.from_regex(r"[a-z0-9.@/:-]{1,20}", fullmatch=True)))
def test_the_client_secret_goes_to_shops_of_shopify_only(value: str) -> None:
    app = CASE.app(parts={"shop": value})
    try:
        url = oauth.filled(CASE.facts.token_url, CASE.facts, app)
    except Misconfigured:
        return
    parts = urlsplit(url)
    assert parts.netloc == parts.hostname == f"{value}.myshopify.com"
    hosts = hosts_of(CASE.facts, app)
    assert hosts.allow(read(url), client_secret=True)
    assert hosts.fixed == {"*.myshopify.com"}
    with pytest.raises((NotAllowed, AssertionError)):
        assert hosts.allow(read(f"https://{value}.myshopify.com.evil.example/"), client_secret=True)


def test_writing_brings_reading_along() -> None:
    """The answer leaves out what is implied, and nothing may seem missing."""
    tokens = shopify.token_sets(
        {"access_token": "a", "scope": "write_orders,unauthenticated_write_checkouts"}, CASE.asked()
    )
    assert tokens["reader"].scopes == {
        *("write_orders", "read_orders", "unauthenticated_write_checkouts", "unauthenticated_read_checkouts"),
    }
    assert shopify.token_sets({"access_token": "a"}, CASE.asked())["reader"].scopes is None


async def test_a_shop_is_known_by_its_permanent_domain() -> None:
    """The token is asked, and must be of the shop that the session is about."""
    http = scripted({API: [shop("shop-1.myshopify.com"), shop("other.myshopify.com"), shop(None)]})
    found = await shopify.identify(http, CASE.app(), {"reader": TOKENS})
    assert found.subject == found.reach == "shop:shop-1.myshopify.com"
    assert found.accounts == ("shop:shop-1.myshopify.com",)
    assert http.sent[0].headers["x-shopify-access-token"] == "shpat_1"
    assert "shpat_1" not in repr(http.sent[0])
    for _ in range(2):
        with pytest.raises(OddAnswer):
            await shopify.identify(http, CASE.app(), {"reader": TOKENS})


async def test_a_probe_tells_the_scopes_that_are_left() -> None:
    scopes = {
        "data": {"currentAppInstallation": {"accessScopes": [{"handle": "write_orders"}, {"handle": "read_themes"}]}}
    }
    http = scripted({API: [answer(scopes), REJECTED, answer({}, 402), answer({}, 423), answer({}, 403)]})
    assert await shopify.probe(http, CASE.app(), TOKENS) == {"write_orders", "read_orders", "read_themes"}
    kinds: list[type[ProviderError]] = [GrantEnded, Suspended, Suspended]
    for kind in kinds:
        with pytest.raises(kind):
            await shopify.probe(http, CASE.app(), TOKENS)


async def test_a_probe_that_is_answered_oddly_takes_no_scope_away() -> None:
    """Nothing where scopes belong is no answer, and not the answer that there are none."""
    for said in ({"data": {"currentAppInstallation": None}}, {"data": {}}, {"data": {"currentAppInstallation": {}}}):
        with pytest.raises(OddAnswer):
            await shopify.probe(scripted({API: answer(said)}), CASE.app(), TOKENS)
    none = {"data": {"currentAppInstallation": {"accessScopes": []}}}
    assert await shopify.probe(scripted({API: answer(none)}), CASE.app(), TOKENS) == frozenset()


async def test_revoking_uninstalls_the_app_with_a_token_that_is_still_good() -> None:
    """A fresh one where the old one is over; and where the grant is over, there is nothing left to end."""
    http = scripted({API: GONE})
    await shopify.revoke(http, CASE.app(), TOKENS)
    assert "appUninstall" in json.loads(http.sent[0].body)["query"]
    http = scripted({API: [REJECTED, GONE], TOKEN: answer({"access_token": "shpat_2", "refresh_token": "shprt_2"})})
    await shopify.revoke(http, CASE.app(), TOKENS)
    assert [request.headers.get("x-shopify-access-token") for request in http.sent] == ["shpat_1", None, "shpat_2"]
    http = scripted({API: REJECTED, TOKEN: answer({"error": "invalid_grant"}, 400)})
    await shopify.revoke(http, CASE.app(), TOKENS)
    await shopify.revoke(scripted({API: REJECTED}), CASE.app(), replace(TOKENS, refresh_token=None))
    refused = {"data": {"appUninstall": {"app": None, "userErrors": [{"code": "APP_NOT_INSTALLED"}]}}}
    for said in (refused, {"data": {"appUninstall": None}}):
        with pytest.raises(OddAnswer):
            await shopify.revoke(scripted({API: answer(said)}), CASE.app(), TOKENS)
