"""What every `probe` has to hold: one call, of which only an answer that knows the token says anything about the grant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from providers.calls import Response
from providers.errors import GrantEnded, OddAnswer, ProviderError, RateLimited, ScopeLacking, Unreachable
from providers.oauth import TokenSet
from providers.registry import all_providers
from tests.providers.oauth_cases import CASES, Case
from tests.providers.script import Script, answer

TOKENS = TokenSet(access_token="at-1", refresh_token="rt-1")
PAGE = b"<html><body>Welcome to the hotel at-1</body></html>"
LONG = "https://www.googleapis.com/auth/"


@dataclass(frozen=True, kw_only=True)
class Probed:
    """How a provider answers a probe of the token that `CASES[case]` has for the access profile."""

    case: str
    call: tuple[str, str]
    works: Response  # with all scopes, where it tells any
    over: Response  # the token is
    profile: str = "reader"
    tells: bool = True
    lacks: Response = field(default_factory=lambda: answer({"error": "insufficient_scope"}, 403))

    @property
    def of(self) -> Case:
        return CASES[self.case]


UNAUTHORIZED = answer({"error": "invalid_token"}, 401, www_authenticate='Bearer error="invalid_token"')
SLACK = ("POST", "https://slack.com/api/auth.test")
INTROSPECTED = {"active": True, "client_id": "client.id/1", "hub_id": 62515, "scopes": ["read", "write"]}

PROBED = [
    Probed(
        case="google",
        call=("POST", "https://oauth2.googleapis.com/tokeninfo"),
        works=answer({"aud": "client.id/1", "scope": f"openid {LONG}userinfo.email {LONG}gmail.readonly"}),
        over=answer({"error": "invalid_token", "error_description": "Invalid Value"}, 400),
    ),
    *(
        Probed(
            case="slack",
            profile=profile,
            call=SLACK,
            works=answer({"ok": True, "team_id": "T1", "user_id": "U0"}, x_oauth_scopes=scopes),
            over=answer({"ok": False, "error": "token_revoked"}),
            lacks=answer({"ok": False, "error": "missing_scope", "needed": "x:read"}),
        )
        for profile, scopes in (("bot", "chat:write,commands"), ("user", "search:read"))
    ),
    Probed(
        case="github",
        call=("GET", "https://api.github.com/rate_limit"),
        works=answer({"resources": {}}, x_oauth_scopes="repo, user"),
        over=answer({"message": "Bad credentials"}, 401),
        lacks=answer({"message": "Resource not accessible by integration"}, 403, x_ratelimit_remaining="59"),
    ),
    Probed(
        case="github/app",
        profile="user",
        call=("GET", "https://api.github.com/rate_limit"),
        works=answer({"resources": {}}, x_oauth_scopes=""),  # a GitHub App's token has permissions, no scopes
        over=answer({"message": "Bad credentials"}, 401),
        tells=False,
    ),
    Probed(
        case="gitlab",
        call=("GET", "https://gitlab.com/oauth/token/info"),
        works=answer({"resource_owner_id": 15, "scope": ["read", "write"], "application": {"uid": "client.id/1"}}),
        over=UNAUTHORIZED,
    ),
    Probed(
        case="microsoft",
        call=("GET", "https://graph.microsoft.com/oidc/userinfo"),
        works=answer({"sub": "x"}),
        over=answer({"error": {"code": "InvalidAuthenticationToken"}}, 401),
        tells=False,
    ),
    Probed(
        case="hubspot",
        call=("POST", "https://api.hubapi.com/oauth/2026-03/token/introspect"),
        works=answer(INTROSPECTED),
        over=answer({"active": False}),
    ),
    Probed(
        case="stripe",
        call=("GET", "https://api.stripe.com/v1/account"),
        works=answer({"id": "acct_1"}),
        over=answer({"error": {"code": "account_invalid"}}, 403),
        tells=False,
    ),
    Probed(
        case="shopify",
        call=("POST", "https://shop-1.myshopify.com/admin/api/2026-10/graphql.json"),
        works=answer(
            {
                "data": {
                    "currentAppInstallation": {
                        "accessScopes": [{"handle": "read_products"}, {"handle": "write_orders"}]
                    }
                }
            }
        ),
        over=answer({"errors": "[API] Invalid API key or access token (unrecognized login or wrong password)"}, 401),
        lacks=answer({"errors": [{"extensions": {"code": "ACCESS_DENIED"}}]}),
    ),
    Probed(
        case="zoom",
        call=("GET", "https://api.zoom.us/v2/users/me"),
        works=answer({"id": "x1yCzABCDEfg23HiJKl4mN", "account_id": "AAAAAABBBB"}),
        over=answer({"code": 124, "message": "Invalid access token."}, 401),
        lacks=answer({"code": 4711, "message": "Invalid access token, does not contain scopes."}, 400),
        tells=False,
    ),
    Probed(
        case="linear",
        call=("POST", "https://api.linear.app/graphql"),
        works=answer({"data": {"viewer": {"id": "u-1"}, "organization": {"id": "o-1"}}}),
        over=answer({"errors": [{"extensions": {"code": "AUTHENTICATION_ERROR"}}]}, 401),
        lacks=answer({"errors": [{"extensions": {"code": "FORBIDDEN"}}]}, 403),
        tells=False,
    ),
    Probed(
        case="sandbox",
        call=("GET", "http://127.0.0.1:8090/api/me"),
        works=answer({"sub": "user-1", "scopes": ["read", "write"]}),
        over=UNAUTHORIZED,
    ),
    Probed(
        case="generic-oauth2",
        call=("GET", "https://api.example.com/me"),
        works=answer({"active": True, "sub": "u-1", "scope": "read write"}),
        over=answer({"active": False}),
    ),
    Probed(
        case="generic-oauth2/public",
        call=("GET", "https://api.example.com/me"),
        works=answer({"sub": "u-1", "scope": "global"}),  # no introspection: what `scope` means there is its own affair
        over=UNAUTHORIZED,
        tells=False,
    ),
]


@pytest.fixture(params=PROBED, ids=lambda probed: f"{probed.case} {probed.profile}")
def probed(request: pytest.FixtureRequest) -> Probed:
    """Each in turn."""
    found = request.param
    assert isinstance(found, Probed)
    return found


async def tried(probed: Probed, response: Response) -> frozenset[str] | None:
    """The probe, answered so; it makes one call."""
    case = probed.of
    assert case.of.probe is not None
    http = Script(case.facts, case.app(), {probed.call: response})
    try:
        return await case.of.probe(http, case.app(), TOKENS)
    finally:
        assert len(http.sent) == 1


def granted(probed: Probed) -> frozenset[str] | None:
    case = probed.of
    token_sets = case.of.token_sets
    if token_sets is not None:
        return token_sets(case.answer, case.asked())[probed.profile].scopes
    return frozenset(str(case.answer["scope"]).split())


def test_every_provider_that_can_be_probed_is_asked() -> None:
    """Without an entry, nothing below would be asked of it."""
    assert {probed.of.provider for probed in PROBED} == {name for name, of in all_providers().items() if of.probe}


async def test_scopes_are_told_as_the_token_answer_told_them(probed: Probed) -> None:
    """In its spelling, with what others imply: what both mention can be compared."""
    found = await tried(probed, probed.works)
    assert found == (granted(probed) if probed.tells else None)
    assert found != frozenset()


async def test_a_token_that_is_over_and_one_that_does_not_reach_that_far(probed: Probed) -> None:
    with pytest.raises(GrantEnded):
        await tried(probed, probed.over)
    if probed.case in ("google", "hubspot"):
        return  # the token is what is asked about there, and not what asks
    with pytest.raises(ScopeLacking):
        await tried(probed, probed.lacks)


ANSWERS: list[tuple[Response, type[ProviderError]]] = [
    (answer(PAGE), OddAnswer),  # a captive portal's: no proof that the token works
    (answer(b""), OddAnswer),
    (answer([]), OddAnswer),
    (answer(PAGE, 403), OddAnswer),  # a firewall's: no proof of that either
    (answer(PAGE, 404), OddAnswer),  # the address is wrong
    (answer(PAGE, 400), OddAnswer),
    (answer(b"", 302, location="https://login.example"), OddAnswer),
    (answer(PAGE, 500), Unreachable),
    (answer({"error": "invalid_token"}, 503), Unreachable),
    (answer({"error": "invalid_token"}, 429, retry_after="7"), RateLimited),
]


@pytest.mark.parametrize(("response", "kind"), ANSWERS, ids=lambda value: getattr(value, "__name__", None))
async def test_what_says_nothing_about_the_token(probed: Probed, response: Response, kind: type[ProviderError]) -> None:
    """Neither that it works (a good answer would acquit a grant that is dead) nor that it is over."""
    with pytest.raises(kind) as caught:
        await tried(probed, response)
    assert type(caught.value) is kind
    assert "at-1" not in str(caught.value)


@pytest.mark.parametrize("told", [None, 7, {"read": True}])
async def test_scopes_in_an_odd_form_are_not_told(told: Any) -> None:
    for probed in PROBED:
        if probed.case in ("google", "gitlab", "hubspot", "sandbox", "generic-oauth2"):
            assert await tried(probed, answer({"active": True, "scope": told, "scopes": told})) is None


async def test_a_github_page_that_says_no_more_calls_today_is_no_lack_of_scope() -> None:
    """The primary limit is a 403 without Retry-After."""
    (probed,) = (one for one in PROBED if one.case == "github")
    with pytest.raises(RateLimited):
        await tried(probed, answer({"message": "API rate limit exceeded"}, 403, x_ratelimit_remaining="0"))
