"""GitHub: users who authorize, apps that are installed and mint their tokens, and how both end."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt as jose
from joserfc.jwk import RSAKey
from pydantic import ValidationError

from providers import github
from providers.calls import Response
from providers.errors import GrantEnded, Misconfigured, OddAnswer, ProviderError, ScopeLacking, Suspended, Unreachable
from providers.oauth import App, TokenSet
from tests.providers.oauth_cases import CASES, SECRET
from tests.providers.script import Answer, Script, answer, fields_of
from tests.signing import NOW

USERS, APPS = CASES["github"], CASES["github/app"]
API = "https://api.github.com"
USER = ("GET", f"{API}/user")
MINT = ("POST", f"{API}/app/installations/42/access_tokens")
INSTALLATION = ("GET", f"{API}/app/installations/42")
UNINSTALL = ("DELETE", f"{API}/app/installations/42")
GRANT = ("DELETE", f"{API}/applications/client.id%2F1/grant")
TOKENS = TokenSet(access_token="ghu_1", refresh_token="ghr_1")


@cache
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(private: Any, encryption: Any = None) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    made: bytes = private.private_bytes(serialization.Encoding.PEM, form, encryption or serialization.NoEncryption())
    return made.decode()


def app(**changed: Any) -> App:
    return APPS.app(private_key=pem(key()), **changed)


def scripted(answers: dict[tuple[str, str], Answer], of: App | None = None) -> Script:
    return Script(USERS.facts, of or app(), answers)


def page(number: int) -> tuple[str, str]:
    return ("GET", f"{API}/user/installations?per_page=100&page={number}")


def installations(*ids: int) -> Response:
    return answer({"total_count": len(ids), "installations": [{"id": i, "account": {"id": 7}} for i in ids]})


async def test_a_user_is_known_by_id() -> None:
    """Logins change hands."""
    http = scripted({USER: answer({"login": "octocat", "id": 583231})}, USERS.app())
    found = await github.identify(http, USERS.app(), {"reader": TOKENS})
    assert found.subject == found.reach == "user:583231"
    assert found.accounts == ("user:583231",)


async def test_an_installation_counts_once_github_says_that_the_user_has_to_do_with_it() -> None:
    """However many there are."""
    of = app(callback={"installation_id": "42", "setup_action": "install"})
    answers: dict[tuple[str, str], Answer] = {
        USER: answer({"id": 583231}),
        page(1): installations(40, 41),
        page(2): installations(42),
    }
    found = await github.identify(scripted(answers), of, {"user": TOKENS})
    assert found.subject == found.reach == "installation:42"
    assert found.accounts == ("installation:42", "account:7", "user:583231")


def test_an_organizations_owner_may_have_to_approve_it() -> None:
    """Only where an app is installed; an authorization asks nobody else."""
    assert github.oauth_facts({"app_slug": "posthouse-test"}).awaits_approval == {"setup_action": "request"}
    assert github.oauth_facts({}).awaits_approval == {}


@pytest.mark.parametrize("named", ["42", "", "41 ", "041", "None", "41/../42"])
async def test_an_installation_id_that_somebody_wrote_into_the_url_is_refused(named: str) -> None:
    of = app(callback={"installation_id": named} if named else {})
    answers: dict[tuple[str, str], Answer] = {
        USER: answer({"id": 583231}),
        page(1): installations(41),
        page(2): installations(),
    }
    with pytest.raises(OddAnswer):
        await github.identify(scripted(answers), of, {"user": TOKENS})


async def test_minting_is_asked_by_a_jwt_that_joserfc_verifies() -> None:
    """RS256, by the app's key, for nine minutes from a minute ago; of the client id, or of the app's number."""
    for settings, issuer in ((APPS.settings, "client.id/1"), ({**APPS.settings, "app_id": 99}, "99")):
        said = {
            "token": "ghs_1",
            "expires_at": (NOW + timedelta(minutes=59)).isoformat(),
            "permissions": {"issues": "read"},
        }
        http = scripted({MINT: answer(said, 201)})
        tokens = await github.mint(http, app(settings=settings), ("account:7", "installation:42"))
        assert (tokens.access_token, tokens.refresh_token, tokens.expires_in_s) == ("ghs_1", None, 59 * 60)
        assert tokens.parameters == {"installation": "42"}
        assert tokens.scopes == {"issues:read"}
        token = http.sent[0].headers["authorization"].removeprefix("Bearer ")
        public = RSAKey.import_key(key().public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ))  # fmt: skip
        read = jose.decode(token, public, algorithms=["RS256"])
        now = int(NOW.timestamp())
        assert read.claims == {"iat": now - 60, "exp": now + 540, "iss": issuer}
        assert read.header == {"alg": "RS256", "typ": "JWT"}


@pytest.mark.parametrize(
    ("told", "scopes"),
    [
        ({"contents": "write", "metadata": "read"}, {"contents:read", "contents:write", "metadata:read"}),
        (
            {"organization_projects": "admin"},
            {f"organization_projects:{level}" for level in ("read", "write", "admin")},
        ),
        ({"contents": "some day", "issues": None, "checks": ["read"]}, set()),
        ({}, set()),
        (None, None),
        ("contents", None),
    ],
)
async def test_the_scopes_of_a_minted_token_are_the_permissions_that_were_accepted(told: Any, scopes: Any) -> None:
    """An owner who accepts more, or an app that gives some up, shows at the next token."""
    http = scripted({MINT: answer({"token": "ghs_1", "permissions": told}, 201)})
    assert (await github.mint(http, app(), ("installation:42",))).scopes == scopes


@pytest.mark.parametrize("told", [None, "soon", (NOW + timedelta(days=365)).isoformat()])
async def test_a_minted_token_lasts_an_hour_at_the_most(told: str | None) -> None:
    http = scripted({MINT: answer({"token": "ghs_1", "expires_at": told}, 201)})
    assert (await github.mint(http, app(), ("installation:42",))).expires_in_s == 3600


@pytest.mark.parametrize(
    ("answers", "kind", "code"),
    [
        ({MINT: answer({}, 404)}, GrantEnded, "installation_gone"),
        ({MINT: answer({}, 401)}, Misconfigured, "app_rejected"),
        (
            {MINT: answer({}, 403), INSTALLATION: answer({"suspended_at": "2026-11-01T00:00:00Z"})},
            Suspended,
            "suspended",
        ),
        ({MINT: answer({}, 403), INSTALLATION: answer({"suspended_at": None})}, ScopeLacking, "scope_lacking"),
        ({MINT: answer({}, 403), INSTALLATION: answer({}, 404)}, GrantEnded, "installation_gone"),
        ({MINT: answer(b"<html>", 201)}, OddAnswer, "not_json"),
        ({MINT: answer({}, 201)}, OddAnswer, "no_access_token"),
        ({MINT: answer(None, 502)}, Unreachable, "unreachable"),
    ],
)
async def test_why_nothing_is_minted(
    answers: dict[tuple[str, str], Answer], kind: type[ProviderError], code: str
) -> None:
    with pytest.raises(kind) as caught:
        await github.mint(scripted(answers), app(), ("installation:42",))
    assert caught.value.code == code


def keys_that_are_none() -> list[str]:
    encrypted = serialization.BestAvailableEncryption(b"secret")
    elliptic = ec.generate_private_key(ec.SECP256R1())
    return [
        "",
        "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        pem(key(), encrypted),
        pem(elliptic),
    ]


async def test_a_key_that_is_none_and_accounts_that_are_no_installation_are_our_own_fault() -> None:
    """Nothing goes out."""
    for private_key in keys_that_are_none():
        with pytest.raises(Misconfigured):
            await github.mint(scripted({}), APPS.app(private_key=private_key), ("installation:42",))
    for accounts in ((), ("account:7",), ("installation:",), ("installation:42/access_tokens",), ("installation:²",)):
        with pytest.raises(Misconfigured):
            await github.mint(scripted({}), app(), accounts)


async def test_ending_a_users_authorization() -> None:
    """With the app's credentials and the token in the body. 404 and 422: it is gone, where there is no refresh token."""
    http = scripted({GRANT: answer(None, 204)}, USERS.app())
    await github.revoke(http, USERS.app(), TOKENS)
    pair = base64.b64decode(http.sent[0].headers["authorization"].removeprefix("Basic ")).decode()
    assert pair.startswith("client.id%2F1:")
    assert http.sent[0].carries_client_secret
    assert json.loads(http.sent[0].body) == {"access_token": "ghu_1"}
    for status in (404, 422):
        await github.revoke(scripted({GRANT: answer({}, status)}), USERS.app(), TokenSet(access_token="ghu_1"))


async def test_a_token_that_is_over_is_renewed_to_end_the_authorization() -> None:
    """Otherwise the refresh token would stay good for half a year."""
    refresh = ("POST", "https://github.com/login/oauth/access_token")
    http = scripted(
        {GRANT: [answer({}, 422), answer(None, 204)], refresh: answer({"access_token": "ghu_2"})}, USERS.app()
    )
    await github.revoke(http, USERS.app(), TOKENS)
    assert fields_of(http.sent[1])["client_secret"] == SECRET
    assert json.loads(http.sent[2].body) == {"access_token": "ghu_2"}
    dead = scripted({GRANT: answer({}, 422), refresh: answer({"error": "bad_refresh_token"})}, USERS.app())
    await github.revoke(dead, USERS.app(), TOKENS)
    with pytest.raises(Misconfigured):
        await github.revoke(scripted({GRANT: answer({}, 401)}), USERS.app(), TOKENS)


async def test_uninstalling_ends_an_installation() -> None:
    minted = TokenSet(access_token="ghs_1", parameters={"installation": "42"})
    for status in (204, 404):
        http = scripted({UNINSTALL: answer(None, status)})
        await github.revoke(http, app(), minted)
        assert http.sent[0].headers["authorization"].startswith("Bearer ey")
    with pytest.raises(Misconfigured):
        await github.revoke(scripted({UNINSTALL: answer({}, 401)}), app(), minted)
    odd = TokenSet(access_token="ghs_1", parameters={"installation": "42/suspended"})
    with pytest.raises(Misconfigured):
        await github.revoke(scripted({}), app(), odd)


async def test_a_probe_costs_nothing_of_the_rate_limit() -> None:
    rate_limit = ("GET", f"{API}/rate_limit")
    await github.probe(scripted({rate_limit: answer({"resources": {}})}), app(), TOKENS)
    with pytest.raises(GrantEnded):
        await github.probe(scripted({rate_limit: answer({"message": "Bad credentials"}, 401)}), app(), TOKENS)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (answer({"message": "This installation has been suspended"}, 403), Suspended),
        (answer({"message": "Sorry. Your account was suspended."}, 403), Suspended),
        (answer({"message": "Resource not accessible by integration"}, 403), ScopeLacking),
        (answer({"message": ["suspended"]}, 403), ScopeLacking),
        (answer({}, 403), ScopeLacking),
        (answer(None, 403, www_authenticate='Bearer error="insufficient_scope"'), ScopeLacking),
        (answer(b"<html>Your account was suspended", 403), OddAnswer),  # whoever made that page
    ],
)
async def test_what_is_suspended_may_come_back(response: Response, kind: type[ProviderError]) -> None:
    """Neither over nor alive; only the text of the answer tells it from a lack of permissions."""
    for call in (USER, ("GET", f"{API}/rate_limit")):
        http = scripted({call: response}, USERS.app())
        asked = (
            github.identify(http, USERS.app(), {"reader": TOKENS})
            if call == USER
            else github.probe(http, app(), TOKENS)
        )
        with pytest.raises(kind) as caught:
            await asked
        assert type(caught.value) is kind


def test_scopes_that_others_imply_are_granted_with_them() -> None:
    asked = USERS.asked()
    found = github.token_sets({**USERS.answer, "scope": "admin:org,repo"}, asked)["reader"]
    assert found.scopes is not None
    assert found.scopes >= {"admin:org", "write:org", "read:org", "public_repo"}
    assert "user:email" not in found.scopes


def test_settings_name_an_app_or_nothing() -> None:
    for wrong in (
        {"app_slug": "a/b"},
        {"app_slug": ""},
        {"app_id": 5},
        {"app_slug": "a", "app_id": 0},
        {"base_url": "x"},
    ):
        with pytest.raises(ValidationError):
            github.Settings.model_validate(wrong)
