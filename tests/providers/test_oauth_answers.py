"""What comes back from the token endpoint: good answers, and every bad one that the issue lists, by the gateway's own way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import exchange
from providers.calls import Response, api_refusal
from providers.errors import (
    GrantEnded,
    Misconfigured,
    OddAnswer,
    ProviderError,
    RateLimited,
    ReuseReported,
    ScopeLacking,
    Unreachable,
    is_plain,
)
from providers.oauth import LONGEST_TOKEN, TokenSet, filled
from tests.providers.oauth_cases import CASES, VERIFIER, Case
from tests.providers.properties import PROPERTY
from tests.providers.script import Script, answer, fields_of

HTML = b"<html><body>502 Bad Gateway at-1 rt-1</body></html>"


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """Each case in turn."""
    return CASES[request.param]


async def taken(case: Case, response: Response) -> Mapping[str, TokenSet]:
    """The consent's tokens, where the token endpoint says this."""
    facts, app = case.facts, case.app()
    http = Script(facts, app, {("POST", token_url(case)): response})
    if not case.people:
        (profile,) = case.scopes
        tokens = await exchange.client_credentials(http, case.of, facts, app, profile, case.scopes[profile])
        return {profile: tokens}
    return await exchange.exchange(http, case.of, facts, app, case.asked(), "co-1", VERIFIER)


def token_url(case: Case) -> str:

    return filled(case.facts.token_url, case.facts, case.app())


def changed(case: Case, **members: Any) -> dict[str, Any]:
    """The good answer with members changed (None: left out), inside `authed_user` too."""
    said = {**case.answer, **members}
    if "authed_user" in said:
        said["authed_user"] = {**said["authed_user"], **members, "token_type": "user"}
        said["token_type"] = members.get("token_type", "bot")
    return {name: value for name, value in said.items() if value is not None}


async def test_a_good_answer_fills_every_profile_that_was_asked_for(case: Case) -> None:
    """With what was granted in the words that were asked in, so that nothing seems missing."""
    found = await taken(case, answer(case.answer))
    assert set(found) == set(case.fills or case.scopes)
    for profile, tokens in found.items():
        assert tokens.token_type == "Bearer"
        assert tokens.expires_in_s == case.answer.get("expires_in")
        assert (tokens.refresh_token is not None) == ("refresh_token" in case.answer)
        assert (tokens.scopes is not None) == case.told
        assert not case.told or set(case.scopes[profile]) <= (tokens.scopes or set())
        for secret in (tokens.access_token, tokens.refresh_token or tokens.access_token):
            assert secret not in repr(found)


async def test_a_refresh_is_asked_and_answered_for_one_profile(case: Case) -> None:
    """With a new refresh token or none."""
    if not case.people:
        pytest.skip("minted anew instead")
    facts, app = case.facts, case.app()
    for profile in set(case.scopes) - set(facts.minted):
        for refresh_token in ("rt-2", None):
            said: dict[str, Any] = {
                "access_token": "at-2",
                "expires_in": 60,
                "refresh_token": refresh_token,
                "ok": True,
            }
            said["token_type"] = profile if case.provider == "slack" else "bearer"
            http = Script(
                facts, app, {("POST", token_url(case)): answer({k: v for k, v in said.items() if v is not None})}
            )
            tokens = await exchange.refresh(http, case.of, facts, app, profile, case.scopes[profile], "rt-1")
            assert (tokens.access_token, tokens.refresh_token, tokens.expires_in_s) == ("at-2", refresh_token, 60)
            sent = fields_of(http.sent[0])
            assert (sent["grant_type"], sent["refresh_token"]) == ("refresh_token", "rt-1")
            assert ("redirect_uri" in sent) == facts.refresh_sends_redirect_uri


async def test_fewer_scopes_more_scopes_and_none_told(case: Case) -> None:
    if not case.told or case.provider == "slack":
        pytest.skip("the answer tells none, or tells them twice: see test_oauth_slack")
    for profile in case.fills or case.scopes:
        asked = case.scopes[profile]
        name = "scopes" if case.provider == "hubspot" else "scope"
        separator = "," if case.provider == "github" else " "
        for told in (asked[:1], (*asked, "more"), ()):
            said = list(told) if name == "scopes" else separator.join(told)
            tokens = (await taken(case, answer(changed(case, **{name: said}))))[profile]
            assert tokens.scopes is not None
            # what else may be in it is implied by what is (`repo`), or was granted by bringing a refresh token
            assert tokens.scopes >= set(told)
            assert (set(asked) - set(told)) & tokens.scopes <= {"offline_access"}
        tokens = (await taken(case, answer(changed(case, **{name: None}))))[profile]
        assert tokens.scopes is None


async def test_a_lifetime_may_be_a_text_that_is_a_number(case: Case) -> None:
    for told in ("3600", 3600, 3600.7, 0):
        for tokens in (await taken(case, answer(changed(case, expires_in=told)))).values():
            assert tokens.expires_in_s == int(float(told))


async def test_without_expires_in_the_facts_say_how_long(case: Case) -> None:
    for tokens in (await taken(case, answer(changed(case, expires_in=None)))).values():
        assert tokens.expires_in_s == case.facts.access_ttl_s


ODD: list[dict[str, Any]] = [
    *({"expires_in": value} for value in ("soon", "", "12h", -1, True, [3600], {"s": 1}, 10**12, "9" * 40, "²")),
    *(
        {"access_token": value}
        for value in ("", 5, ["at"], "a\nb", "a\x00", "x" * (LONGEST_TOKEN + 1), {"a": 1}, False)
    ),
    *({"refresh_token": value} for value in ("", 5, ["rt"], "a\r\nb", "x" * (LONGEST_TOKEN + 1))),
]


async def test_what_is_no_token_answer_is_odd(case: Case) -> None:
    """And neither an end of the grant nor a token set with something missing."""
    for members in ODD:
        with pytest.raises(OddAnswer) as caught:
            await taken(case, answer(changed(case, **members)))
        assert is_plain(caught.value.code), members


OUTCOMES: list[tuple[Response, type[ProviderError]]] = [
    (answer(HTML), OddAnswer),
    (answer(b""), OddAnswer),
    (answer(b"[]"), OddAnswer),
    (answer(b"null"), OddAnswer),
    (answer({}), OddAnswer),
    (answer({"ok": True}), OddAnswer),
    (answer({"ok": False}), OddAnswer),
    (answer({"error": "something_new", "error_description": "at-1"}), OddAnswer),
    (answer({"error": {"code": "invalid_grant"}}, 400), OddAnswer),
    (answer({"error": "something_new"}, 400), OddAnswer),
    (answer(HTML, 400), OddAnswer),
    (answer(HTML, 401), OddAnswer),  # without a code it is nobody's fault yet: neither the grant's nor ours
    (answer(b"", 401), OddAnswer),
    (answer({"message": "Unauthorized"}, 401), OddAnswer),
    (answer(HTML, 403), OddAnswer),
    (answer({"error": "Not Found"}, 404), OddAnswer),
    (answer(b"", 302, location="https://elsewhere.example"), OddAnswer),
    (answer(HTML, 500), Unreachable),
    (answer(b"", 502), Unreachable),
    (answer({"error": "invalid_grant"}, 503), Unreachable),  # an outage says nothing about a grant
    (answer({"error": "invalid_grant"}, 429, retry_after="7"), RateLimited),
    (answer(b"", 429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), RateLimited),
]


async def test_odd_answers_have_a_defined_outcome(case: Case) -> None:
    """HTML, nothing, an error inside 200, 500: never an end of the grant, never the provider's text."""
    for response, kind in OUTCOMES:
        with pytest.raises(kind) as caught:
            await taken(case, response)
        assert type(caught.value) is kind, response.body
        assert caught.value.retryable
        assert "at-1" not in repr(caught.value) + str(caught.value)
        if kind is RateLimited:
            assert caught.value.retry_after_s == (7.0 if response.headers["retry-after"] == "7" else None)


async def test_every_listed_code_is_classified_as_listed(case: Case) -> None:
    """With the statuses that it comes with: 400 and 401, and 200 where errors come with that."""
    facts = case.facts
    kinds = ((facts.terminal, GrantEnded), (facts.configuration, Misconfigured), (facts.transient, Unreachable))
    for codes, kind in kinds:
        for code in codes:
            name = "status" if code.isupper() else facts.error_field
            for status in (400, 401, *([200] if facts.errors_in_200 else [])):
                with pytest.raises(ProviderError) as caught:
                    await taken(case, answer({name: code, "ok": False, "error_description": "at-1"}, status))
                assert type(caught.value) is (expected := ReuseReported if code in facts.reuse else kind), code
                assert caught.value.status == status
                assert caught.value.code == (code if is_plain(code) else expected.code)


async def test_an_error_beside_a_token_is_an_error_where_errors_come_with_200() -> None:
    for name in ("slack", "github"):
        both = answer({**CASES[name].answer, "error": min(CASES[name].facts.terminal)})
        with pytest.raises(GrantEnded):
            await taken(CASES[name], both)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    [
        *("access_token", "refresh_token", "expires_in", "scope", "scopes", "token_type", "error", "status", "ok"),
        *("authed_user", "id_token", "refresh_token_expires_in", "stripe_user_id", "error_subtype"),
    ]
)


@PROPERTY
@given(
    name=st.sampled_from(sorted(CASES)),
    members=st.dictionaries(names, json_values | st.sampled_from(["at", "bot", "user", "3600"]), max_size=6),
    status=st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 429, 500, 503]),
)
async def test_any_answer_is_tokens_or_one_of_our_errors(name: str, members: dict[str, Any], status: int) -> None:
    """No other exception; and only a listed code ends a grant."""
    case = CASES[name]
    refused: ProviderError | None = None
    found: Mapping[str, TokenSet] = {}
    try:
        found = await taken(case, answer(members, status))
    except ProviderError as error:
        refused = error
    assert (refused is None) == bool(found)
    assert refused is None or is_plain(refused.code)
    assert not found or status < 300
    if isinstance(refused, GrantEnded):
        assert [code for name in ("error", "status") if (code := members.get(name)) in list(case.facts.terminal)]


LACKS = 'Bearer realm="api", error="insufficient_scope", scope="write"'
DEAD = 'bearer error = invalid_token, error_description="gone"'


@pytest.mark.parametrize(
    ("response", "kind", "code"),
    [
        (answer({}), None, ""),
        (answer(None, 204), None, ""),
        (answer({}, 401), GrantEnded, "token_rejected"),
        (answer({}, 403), ScopeLacking, "scope_lacking"),
        (answer({}, 403, retry_after="60"), RateLimited, "rate_limited"),
        (answer({}, 403, x_ratelimit_remaining="0"), RateLimited, "rate_limited"),
        (answer({}, 403, x_ratelimit_remaining="1"), ScopeLacking, "scope_lacking"),
        # RFC 6750 section 3.1, where there is no body, and where the status is another than it should be
        (answer(None, 403, www_authenticate=LACKS), ScopeLacking, "scope_lacking"),
        (answer(HTML, 401, www_authenticate=LACKS), ScopeLacking, "scope_lacking"),
        (answer({}, 403, www_authenticate=DEAD), GrantEnded, "token_rejected"),
        (answer({}, 400, www_authenticate=DEAD), GrantEnded, "token_rejected"),
        (answer(None, 401, www_authenticate="Bearer"), GrantEnded, "token_rejected"),
        (answer({}, 400, www_authenticate='Bearer error="invalid_request"'), OddAnswer, "odd_answer"),
        # a firewall's page, a proxy's login: nobody there has looked at the token
        (answer(HTML, 403), OddAnswer, "odd_answer"),
        (answer(None, 403), OddAnswer, "odd_answer"),
        (
            answer(HTML, 403, www_authenticate='Basic realm="proxy", error="insufficient_scope"'),
            OddAnswer,
            "odd_answer",
        ),
        (answer(HTML, 500, www_authenticate=DEAD), Unreachable, "unreachable"),
        (answer({}, 429), RateLimited, "rate_limited"),
        (answer(HTML, 502), Unreachable, "unreachable"),
        (answer({}, 408), Unreachable, "unreachable"),
        (answer({}, 404), OddAnswer, "odd_answer"),
        (answer({}, 302), OddAnswer, "odd_answer"),
    ],
)
def test_what_an_api_says_about_a_token(response: Response, kind: type[ProviderError] | None, code: str) -> None:
    refused = api_refusal(response)
    assert type(refused) is (kind or type(None))
    assert refused is None or (refused.code, refused.status) == (code, response.status)


def test_google_says_whether_a_login_is_all_that_is_missing() -> None:
    classify = CASES["google"].of.classify
    assert classify is not None
    for subtype, code in (
        ("invalid_rapt", "invalid_rapt"),
        ("rapt_required", "rapt_required"),
        ("x y", "invalid_grant"),
    ):
        refused = classify(answer({"error": "invalid_grant", "error_subtype": subtype}, 400))
        assert isinstance(refused, GrantEnded)
        assert refused.code == code


def test_a_code_that_a_configuration_gives_a_meaning_loses_its_own() -> None:
    facts = replace(CASES["generic-oauth2/odd"].facts)
    assert facts.terminal == {"invalid_grant", "access_denied", "unauthorized_client"}
    assert "unauthorized_client" not in facts.configuration
