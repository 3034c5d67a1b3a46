"""Whose account it is, revoking and probing at Microsoft, GitLab, HubSpot, Stripe, the sandbox and any other server."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from authlib.oauth2.rfc7009.parameters import prepare_revoke_token_request

from providers import generic_oauth2, gitlab, hubspot, microsoft, sandbox, stripe
from providers.errors import GrantEnded, Misconfigured, OddAnswer, ProviderError, ScopeLacking, Unreachable
from providers.oauth import App, TokenSet
from providers.registry import all_providers
from tests.providers.oauth_cases import CASES, GRAPH, SECRET, Case
from tests.providers.script import Answer, Script, answer, fields_of
from tests.signing import NOW

TOKENS = TokenSet(access_token="at-1", refresh_token="rt-1")
BOTH = {"reader": TOKENS}


def scripted(case: Case, answers: dict[tuple[str, str], Answer], app: App | None = None) -> Script:
    return Script(case.facts, app or case.app(), answers)


# Microsoft

TID, OID = "84bd8158-6d4d-4958-8b9f-9d6445542f95", "622eaaff-0683-4862-9de4-f2ec83c2bd98"
USERINFO = ("GET", "https://graph.microsoft.com/oidc/userinfo")


def id_token(**changed: Any) -> str:
    now = int(NOW.timestamp())
    issuer = f"https://login.microsoftonline.com/{changed.get('tid', TID)}/v2.0"
    claims = {
        "iss": issuer,
        "aud": "client.id/1",
        "tid": TID,
        "oid": OID,
        "iat": now,
        "exp": now + 3600,
        "nonce": "n-1",
    }
    said = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "kid": "k"}, said)] + [b"not looked at"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


async def test_a_microsoft_user_is_known_by_tenant_and_object_id() -> None:
    """Not by `sub`, which differs from app to app, and not by the tenant, which all of an organization share."""
    case = CASES["microsoft"]
    tokens = {"reader": TokenSet(access_token="at-1", id_token=id_token(sub="x"))}
    found = await microsoft.identify(scripted(case, {}), case.app(nonce="n-1"), tokens)
    assert found.subject == found.reach == f"user:{TID}/{OID}"
    assert found.accounts == (found.subject,)


@pytest.mark.parametrize(
    "token",
    [
        None,
        "no.jwt",
        "a.b.c",
        id_token(aud="another"),
        id_token(iss="https://login.microsoftonline.com/common/v2.0"),
        id_token(iss=f"https://sts.windows.net/{TID}/"),
        id_token(tid="evil/../x", iss=f"https://login.microsoftonline.com/{TID}/v2.0"),
        id_token(tid=None, iss=f"https://login.microsoftonline.com/{TID}/v2.0"),
        id_token(oid=None),
        id_token(nonce="another"),
        id_token(exp=int((NOW - timedelta(minutes=5)).timestamp())),
    ],
)
async def test_any_other_id_token_is_refused(token: str | None) -> None:
    case = CASES["microsoft"]
    tokens = {"reader": TokenSet(access_token="at-1", id_token=token)}
    with pytest.raises(OddAnswer):
        await microsoft.identify(scripted(case, {}), case.app(nonce="n-1"), tokens)


async def test_a_token_for_another_api_than_graph_is_not_called_dead_there() -> None:
    case = CASES["microsoft"]
    http = scripted(case, {USERINFO: [answer({"sub": "x"}), answer({}, 401)]})
    await microsoft.probe(http, case.app(), TOKENS)
    with pytest.raises(GrantEnded):
        await microsoft.probe(http, case.app(), TokenSet(access_token="at-1", scopes=frozenset({GRAPH + "Mail.Read"})))
    elsewhere = frozenset({"https://management.azure.com/user_impersonation", "openid"})
    with pytest.raises(OddAnswer):
        await microsoft.probe(http, case.app(), TokenSet(access_token="at-1", scopes=elsewhere))
    assert all_providers()["microsoft"].revoke is None  # no endpoint of theirs would


# GitLab


@pytest.mark.parametrize(
    ("name", "base"), [("gitlab", "https://gitlab.com"), ("gitlab/own", "https://git.example.com/gitlab")]
)
async def test_gitlab_tells_whose_and_which_applications_token_it_is(name: str, base: str) -> None:
    case = CASES[name]
    info = ("GET", f"{base}/oauth/token/info")
    said = {"resource_owner_id": 15, "scope": ["api"], "expires_in": 7000, "application": {"uid": "client.id/1"}}
    http = scripted(case, {info: [answer(said), answer(said), answer({**said, "application": {"uid": "another"}})]})
    found = await gitlab.identify(http, case.app(), BOTH)
    assert (found.subject, found.accounts, found.reach) == ("user:15", ("user:15",), None)
    await gitlab.probe(http, case.app(), TOKENS)
    with pytest.raises(OddAnswer):
        await gitlab.identify(http, case.app(), BOTH)
    with pytest.raises(GrantEnded):
        await gitlab.probe(scripted(case, {info: answer({"error": "invalid_token"}, 401)}), case.app(), TOKENS)


# HubSpot

INTROSPECT = ("POST", "https://api.hubapi.com/oauth/2026-03/token/introspect")
HUBSPOT_REVOKE = ("POST", "https://api.hubapi.com/oauth/2026-03/token/revoke")
TOKEN_DATA = {"active": True, "client_id": "client.id/1", "hub_id": 62515, "user_id": 7, "token_use": "access_token"}


async def test_a_hubspot_portal_is_the_account_and_its_user_one_of_its_keys() -> None:
    case = CASES["hubspot"]
    http = scripted(case, {INTROSPECT: answer(TOKEN_DATA)})
    found = await hubspot.identify(http, case.app(), BOTH)
    assert found.subject == "portal:62515"
    assert found.accounts == ("portal:62515", "user:62515/7")
    sent = fields_of(http.sent[0])
    assert sent == {
        "client_id": "client.id/1",
        "client_secret": SECRET,
        "token": "at-1",
        "token_type_hint": "access_token",
    }
    for wrong in ({**TOKEN_DATA, "client_id": "another"}, {**TOKEN_DATA, "hub_id": None}):
        with pytest.raises(OddAnswer):
            await hubspot.identify(scripted(case, {INTROSPECT: answer(wrong)}), case.app(), BOTH)


async def test_hubspot_tokens_that_are_over() -> None:
    case = CASES["hubspot"]
    for response in (answer({**TOKEN_DATA, "active": False}), answer({"status": "error"}, 404), answer({})):
        with pytest.raises(GrantEnded):
            await hubspot.probe(scripted(case, {INTROSPECT: response}), case.app(), TOKENS)
    with pytest.raises(OddAnswer):  # a page of a wrong address: it would be the answer to every token
        await hubspot.probe(scripted(case, {INTROSPECT: answer(b"<html>", 404)}), case.app(), TOKENS)
    refusal = answer({"error": "invalid_client"}, 401)
    with pytest.raises(Misconfigured):
        await hubspot.probe(scripted(case, {INTROSPECT: refusal}), case.app(), TOKENS)
    http = scripted(case, {HUBSPOT_REVOKE: [answer({}), answer({"status": "BAD_REFRESH_TOKEN"}, 400)]})
    for _ in range(2):
        await hubspot.revoke(http, case.app(), TOKENS)
    assert [fields_of(request)["token"] for request in http.sent] == ["rt-1", "rt-1"]


# Stripe

ACCOUNT = ("GET", "https://api.stripe.com/v1/account")
DEAUTHORIZE = ("POST", "https://connect.stripe.com/oauth/deauthorize")
CONNECTED = TokenSet(access_token="sk_1", parameters={"stripe_user_id": "acct_1"})
REVOKED = answer({"error": {"code": "account_invalid"}}, 403)


async def test_a_stripe_account_is_told_with_the_token_or_by_the_api() -> None:
    case = CASES["stripe"]
    assert stripe.token_sets(case.answer, case.asked())["reader"].parameters == {"stripe_user_id": "acct_1"}
    told = await stripe.identify(scripted(case, {}), case.app(), {"reader": CONNECTED})
    asked = await stripe.identify(scripted(case, {ACCOUNT: answer({"id": "acct_1"})}), case.app(), BOTH)
    assert told == asked
    assert told.accounts == ("account:acct_1",)


async def test_disconnecting_a_stripe_account() -> None:
    """By the platform's key. `invalid_client` has two meanings: the account's own token tells which."""
    case = CASES["stripe"]
    http = scripted(case, {DEAUTHORIZE: answer({"stripe_user_id": "acct_1"})})
    await stripe.revoke(http, case.app(), CONNECTED)
    assert fields_of(http.sent[0]) == {"client_id": "client.id/1", "stripe_user_id": "acct_1"}
    assert http.sent[0].headers["authorization"] == f"Bearer {SECRET}"
    refused = answer({"error": "invalid_client"}, 401)
    await stripe.revoke(scripted(case, {DEAUTHORIZE: refused, ACCOUNT: REVOKED}), case.app(), CONNECTED)
    works = answer({"id": "acct_1"})
    with pytest.raises(Misconfigured):
        await stripe.revoke(scripted(case, {DEAUTHORIZE: refused, ACCOUNT: works}), case.app(), CONNECTED)
    await stripe.revoke(scripted(case, {ACCOUNT: REVOKED}), case.app(), TOKENS)  # whose it was cannot be told any more
    with pytest.raises(ScopeLacking):
        await stripe.probe(scripted(case, {ACCOUNT: answer({"error": {}}, 403)}), case.app(), CONNECTED)


# The sandbox, and any other server


@pytest.mark.parametrize("name", ["sandbox", "generic-oauth2", "generic-oauth2/odd"])
async def test_userinfo_says_whose_it_is(name: str) -> None:
    case = CASES[name]
    url = "http://127.0.0.1:8090/api/me" if name == "sandbox" else "https://api.example.com/me"
    of = all_providers()[case.provider]
    assert of.identify is not None
    assert of.probe is not None
    http = scripted(case, {("GET", url): [answer({"sub": "user-1", "name": "Zoë"}), answer({"sub": 5}), answer({})]})
    assert (await of.identify(http, case.app(), BOTH)).subject == "account:user-1"
    assert (await of.identify(http, case.app(), BOTH)).accounts == ("account:5",)
    assert http.sent[0].headers["authorization"] == "Bearer at-1"
    with pytest.raises(OddAnswer):
        await of.identify(http, case.app(), BOTH)
    outcomes: list[tuple[int, type[ProviderError]]] = [(401, GrantEnded), (403, ScopeLacking), (500, Unreachable)]
    for status, kind in outcomes:
        with pytest.raises(kind):
            await of.probe(scripted(case, {("GET", url): answer({}, status)}), case.app(), TOKENS)


async def test_the_subject_may_lie_deeper_and_the_url_have_a_users_part() -> None:
    settings = {
        **CASES["generic-oauth2/odd"].settings,
        "userinfo_url": "https://{shop}.example.com/me",
        "subject_field": "data.user.id",
        "probe_url": "https://status.example.com/ping",
    }
    case = Case(provider="generic-oauth2", settings=settings, parts={"shop": "shop-1"}, answer={})
    me, ping = ("GET", "https://shop-1.example.com/me"), ("GET", "https://status.example.com/ping")
    http = scripted(case, {me: answer({"data": {"user": {"id": 9}}}), ping: answer({})})
    assert (await generic_oauth2.identify(http, case.app(), BOTH)).subject == "account:9"
    await generic_oauth2.probe(http, case.app(), TOKENS)


@pytest.mark.parametrize("name", ["gitlab", "gitlab/own", "sandbox", "generic-oauth2", "generic-oauth2/public"])
async def test_revocation_by_rfc_7009_is_what_authlib_would_send(name: str) -> None:
    """The refresh token, then the access token; what is gone already is no error, a refused client is one."""
    case = CASES[name]
    revoke = all_providers()[case.provider].revoke
    assert revoke is not None
    assert case.facts.revoke_url is not None
    url = ("POST", case.facts.revoke_url)
    http = scripted(case, {url: [answer(None), answer({"error": "invalid_token"}, 400)]})
    await revoke(http, case.app(), TOKENS)
    for request, token, hint in zip(http.sent, ("rt-1", "at-1"), ("refresh_token", "access_token"), strict=True):
        theirs, _ = prepare_revoke_token_request(token, hint)
        sent = fields_of(request)
        assert {f"{key}={value}" for key, value in sent.items()} >= set(theirs.split("&"))
    kinds: list[tuple[int, str, type[ProviderError]]] = [
        (401, "invalid_client", Misconfigured),
        (503, "", Unreachable),
        (400, "unsupported_token_type", OddAnswer),
    ]
    for status, code, kind in kinds:
        with pytest.raises(kind):
            await revoke(scripted(case, {url: answer({"error": code}, status)}), case.app(), TOKENS)
    assert sandbox.OAUTH.issuer_always


async def test_a_server_without_revocation_and_one_for_machines() -> None:
    machine = CASES["generic-oauth2/machine"]
    await generic_oauth2.revoke(scripted(machine, {}), machine.app(), TOKENS)
    for ask in (generic_oauth2.probe(scripted(machine, {}), machine.app(), TOKENS),
                generic_oauth2.identify(scripted(machine, {}), machine.app(), BOTH)):  # fmt: skip
        with pytest.raises(Misconfigured):
            await ask
