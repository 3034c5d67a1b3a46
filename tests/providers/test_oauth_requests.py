"""What goes out: the authorization URL and the calls of the token endpoint, against Authlib's."""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from hypothesis import given
from hypothesis import strategies as st

from providers import oauth
from providers.calls import Request
from providers.errors import Misconfigured
from providers.registry import all_providers
from tests.providers.oauth_cases import CASES, CHALLENGE, REDIRECT, SECRET, VERIFIER, Case
from tests.providers.properties import PROPERTY
from tests.providers.script import fields_of


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """Each case in turn."""
    return CASES[request.param]


def authorization(case: Case, **asked: object) -> tuple[str, dict[str, str]]:
    """URL and parameters of the authorization request."""
    facts, app = case.facts, case.app()
    assert facts.authorize_url is not None
    make = case.of.authorize
    sent = make(case.asked(**asked), app) if make else oauth.authorize_parameters(facts, app, case.asked(**asked))
    url = oauth.with_query(oauth.filled(facts.authorize_url, facts, app), sent)
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)  # RFC 6749 section 3.1: no parameter twice
    return url, dict(pairs)


def test_every_provider_that_connects_accounts_is_asked_everything_here() -> None:
    assert {case.provider for case in CASES.values()} == {name for name, one in all_providers().items() if one.oauth}


def test_facts_are_sane(case: Case) -> None:
    """Settings as they would be stored, https, no open part but the users', and numbers that go together."""
    stored = case.of.settings.model_validate(dict(case.settings)).model_dump(mode="json", exclude_unset=True)
    assert stored == case.settings
    facts = case.facts
    for url in filter(None, (facts.authorize_url, facts.token_url, facts.revoke_url, facts.api_base, facts.issuer)):
        assert set(oauth.PART.findall(url)) <= set(facts.user_parts)
        assert url.startswith("http://127.0.0.1" if case.provider == "sandbox" else "https://")
    kinds = (facts.terminal, facts.configuration, facts.transient)
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))  # no code has two meanings
    assert (facts.reuse_grace_s > 0) <= (facts.rotation == "grace")
    assert set(facts.minted) <= set(facts.profiles)
    assert ("installation" in facts.grant_kinds) == bool(facts.minted)
    assert bool(facts.minted) <= (case.of.mint is not None)
    assert (facts.revoke_url is None) >= (case.of.revoke is None)
    own = {"client_id", "redirect_uri", "state", "scope", "response_type", "code_challenge", "nonce"}
    assert not own & set(facts.authorize_extra)


def test_the_authorization_request_says_all_and_no_secret(case: Case) -> None:
    """State, scopes and PKCE are in it, and what Authlib would send is."""
    if not case.people:
        pytest.skip("nobody consents there")
    url, sent = authorization(case)
    facts = case.facts
    assert SECRET not in unquote(url)
    assert sent["state"] == "st-1"
    assert ("code_challenge" in sent) == facts.pkce
    if facts.pkce:
        assert (sent["code_challenge"], sent["code_challenge_method"]) == (CHALLENGE, "S256")
        assert create_s256_code_challenge(VERIFIER) == CHALLENGE
    told = {one for name in ("scope", "user_scope") for one in sent.get(name, "").split(facts.scope_separator)}
    assert told >= {scope for of in case.scopes.values() for scope in of}
    if case.plain_authorize:
        assert facts.authorize_url is not None
        theirs = prepare_grant_uri(
            oauth.filled(facts.authorize_url, facts, case.app()),
            "client.id/1",
            "code",
            redirect_uri=REDIRECT,
            scope=sent["scope"],
            state="st-1",
        )
        assert set(sent.items()) >= set(parse_qsl(urlsplit(theirs).query))


def test_hubspot_is_asked_for_optional_scopes_apart() -> None:
    _, sent = authorization(CASES["hubspot"], optional=frozenset({"write"}))
    assert (sent["scope"], sent["optional_scope"]) == ("read", "write")


def test_google_and_microsoft_sign_in_and_get_a_refresh_token() -> None:
    """An id token bound to this consent, and offline access, whatever the access profile lists."""
    _, sent = authorization(CASES["google"], nonce="n-1", login_hint="zoe@example.com", again=True)
    assert (sent["nonce"], sent["login_hint"], sent["access_type"]) == ("n-1", "zoe@example.com", "offline")
    assert (sent["prompt"], sent["include_granted_scopes"]) == ("consent", "true")
    assert "openid" in sent["scope"].split()
    url, sent = authorization(CASES["microsoft/tenant"], nonce="n-1")
    assert url.startswith("https://login.microsoftonline.com/84bd8158-6d4d-4958-8b9f-9d6445542f95/oauth2/v2.0/")
    assert sent["scope"].split() == ["Mail.Read", "openid", "offline_access"]
    assert sent["nonce"] == "n-1"


def test_slack_asks_for_bot_and_user_scopes_apart_by_commas() -> None:
    _, sent = authorization(CASES["slack"])
    assert (sent["scope"], sent["user_scope"]) == ("chat:write,commands", "search:read")
    with_pkce = Case(provider="slack", answer={}, scopes={"user": ("search:read",)}, settings={"pkce": True})
    _, sent = authorization(with_pkce)
    assert "scope" not in sent
    assert sent["code_challenge"] == CHALLENGE


def test_a_github_app_is_installed_with_the_state_and_nothing_else() -> None:
    url, sent = authorization(CASES["github/app"])
    assert url == "https://github.com/apps/posthouse-test/installations/new?state=st-1"
    assert sent == {"state": "st-1"}


def test_token_requests_are_those_that_authlib_makes(case: Case) -> None:
    """Fields and client authentication, of an exchange, a refresh and a client-credentials grant."""
    facts, app = case.facts, case.app()
    again = {"redirect_uri": REDIRECT} if facts.refresh_sends_redirect_uri else {}
    proof = {"code_verifier": VERIFIER} if facts.pkce else {}
    scope = {"scope": facts.scope_separator.join(("a", "b"))}
    for fields, theirs in (
        (
            oauth.code_fields(facts, app, "co&de", VERIFIER),
            prepare_token_request(
                "authorization_code", redirect_uri=REDIRECT, code="co&de", **proof, **facts.token_extra
            ),
        ),
        (
            oauth.refresh_fields(facts, app, "rt+1"),
            prepare_token_request("refresh_token", refresh_token="rt+1", **again),
        ),
        (oauth.credentials_fields(facts, ("a", "b")), prepare_token_request("client_credentials", **scope)),
    ):
        request = oauth.token_request(facts, app, fields)
        assert request.method == "POST"
        assert request.headers["accept"] == "application/json"
        assert request.carries_client_secret == (facts.client_auth != "none")
        _same(request, facts.client_auth, theirs)


def _same(request: Request, client_auth: str, theirs: str) -> None:
    method = {"basic": "client_secret_basic", "post": "client_secret_post", "none": "none"}[client_auth]
    _, headers, body = ClientAuth("client.id/1", SECRET, method).prepare("POST", request.url, {}, theirs)
    assert fields_of(request) == dict(parse_qsl(body, keep_blank_values=True, strict_parsing=True))
    if client_auth == "basic":  # Authlib does not encode the halves first; RFC 6749 section 2.3.1 wants it
        pair = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        raw = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode("latin-1")
        assert [unquote(half) for half in pair.split(":")] == ["client.id/1", SECRET]
        assert raw.partition(":")[0] == "client.id/1"
    else:
        assert "authorization" not in request.headers


def test_reprs_show_no_secret(case: Case) -> None:
    app, asked = case.app(private_key="-----BEGIN x", nonce="n-9", callback={"installation_id": "4-2"}), case.asked()
    request = oauth.token_request(case.facts, app, oauth.code_fields(case.facts, app, "co-1", VERIFIER))
    tokens = oauth.TokenSet(access_token="at-9", refresh_token="rt-9", id_token="it-9")
    shown = repr([app, asked, request, tokens])
    assert not [one for one in (SECRET, "BEGIN", "n-9", "4-2", "st-1", "co-1", VERIFIER, "t-9") if one in shown]


SHOP = CASES["generic-oauth2/odd"]
HOSTILE = (
    "evil.com/", "a.b", "a/../b", "a@b", "a:b", "a?b", "a#b", "a\\b", "A", "a\n", "\n", "-a", "a-", "", " ", "a b", "é",
    "a%2eb", "a" * 64, "{shop}", "localhost.", "[::1]", "0x7f.1", "evil.com\x00",
)  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_what_a_user_chooses_cannot_leave_the_domain(value: str) -> None:
    """PROTOCOLS 8: one DNS label, matched whole."""
    facts = SHOP.facts
    with pytest.raises(Misconfigured):
        oauth.filled(facts.token_url, facts, SHOP.app(parts={"shop": value}))


@PROPERTY
@given(value=st.one_of(st.text(max_size=20), st.from_regex(r"[a-z0-9.@/:-]{1,20}", fullmatch=True)))
def test_any_part_is_refused_or_stays_a_label_of_the_operators_domain(value: str) -> None:
    for case, part, end in (
        (SHOP, "shop", ".example.com"),
        (CASES["microsoft"], "tenant", "login.microsoftonline.com"),
    ):
        facts = case.facts
        try:
            url = oauth.filled(facts.token_url, facts, case.app(parts={part: value}))
        except Misconfigured:
            continue
        parts = urlsplit(url)
        assert parts.netloc == parts.hostname
        assert parts.netloc.endswith(end)
        assert ".." not in url
        assert url.count("/") == facts.token_url.count("/")


def test_nobody_but_the_operator_chooses_what_the_operator_fixed() -> None:
    """A session's parts come after the settings, and are not looked at for parts that no user chooses."""
    own = CASES["gitlab/own"]
    facts = own.of.oauth
    assert facts is not None
    for settings, host in ((own.settings, "https://git.example.com/gitlab"), ({}, "https://gitlab.com")):
        app = own.app(settings=settings, parts={"base_url": "https://evil.example"})
        assert oauth.filled(facts.token_url, facts, app) == f"{host}/oauth/token"
    fixed = CASES["microsoft"].app(settings={"tenant": "organizations"}, parts={"tenant": "common"})
    facts = CASES["microsoft"].facts
    assert "/organizations/" in oauth.filled(facts.token_url, facts, fixed)
    assert oauth.told_apart([b"-----BEGIN RSA PRIVATE KEY-----\n", b"new", b"old"]) == (
        ("new", "old"),
        "-----BEGIN RSA PRIVATE KEY-----\n",
    )
