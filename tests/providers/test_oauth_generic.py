"""Settings of any server: what they may say, and what is refused before anything is stored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from providers import generic_oauth2, gitlab, microsoft, sandbox
from providers.oauth import LABEL, OAuthFacts
from providers.urls import base, endpoint
from tests.providers.oauth_cases import CASES, GENERIC
from tests.providers.properties import PROPERTY
from tests.signers import SIGNERS
from tests.signing import NOW, signed, trusting

WRONG: list[dict[str, Any]] = [
    {},
    {"token_url": GENERIC["token_url"]},  # people consent nowhere
    {**GENERIC, "userinfo_url": None},  # whose account it is cannot be told
    {**GENERIC, "token_url": None},
    {**GENERIC, "clientauth": "post"},
    {**GENERIC, "client_auth": "private_key_jwt"},
    {**GENERIC, "scope_separator": "+"},
    {**GENERIC, "issuer_always": True},
    {**GENERIC, "issuer": "auth.example.com"},
    {**GENERIC, "reuse_grace_s": 60},
    {**GENERIC, "rotation": "sometimes"},
    {**GENERIC, "access_ttl_s": 0},
    {**GENERIC, "access_ttl_s": "soon"},
    {**GENERIC, "subject_field": ".sub"},
    {**GENERIC, "subject_field": "data..id"},
    {**GENERIC, "terminal_errors": ["access_denied"], "transient_errors": ["access_denied"]},
    {**GENERIC, "terminal_errors": ["a b"]},
    {**GENERIC, "terminal_errors": ["reused"], "reuse_errors": ["reused"]},
    {**GENERIC, "authorize_extra": {"redirect_uri": "https://evil.example"}},
    {**GENERIC, "authorize_extra": {"code_challenge_method": "plain"}},
    {**GENERIC, "token_extra": {"client_secret": "x"}},
    {**GENERIC, "token_extra": {"a&b": "x"}},
    {**GENERIC, "authorize_extra": {"prompt": "a\r\nb"}},
    {**GENERIC, "token_url": "https://{shop}.example.com/token"},  # of a part that nobody may choose
    {**GENERIC, "user_parts": ["shop"]},  # and one that is nowhere
    {**GENERIC, "issuer": "https://{shop}.example.com"},  # nobody could tell whether an `iss` is right
    {**GENERIC, "token_url": "https://auth.example.com/{issuer}/token", "user_parts": ["issuer"]},
    {**GENERIC, "account_pointer": "data/owner"},
]


@pytest.mark.parametrize("settings", WRONG, ids=lambda settings: repr(settings)[-60:])
def test_settings_that_cannot_be_right_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        generic_oauth2.Settings.model_validate(settings)


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.example.com/token",
        "https://auth.example.com:8443/token?tenant=1",
        "http://127.0.0.1:8090/token",
        "http://localhost/token",
        "http://[::1]:1/token",
        "https://{shop}.example.com/token",
        "https://{shop}.{zone}.example.co.uk/{tenant}/token",
        "https://auth.example.com/{tenant}/token",
    ],
)
def test_urls_that_can_be_endpoints(url: str) -> None:
    assert endpoint(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "auth.example.com/token", "//auth.example.com/token", "ftp://example.com/", "javascript:alert(1)"),
        *("http://auth.example.com/token", "http://127.0.0.1.evil.com/", "http://localhost.evil.com/"),
        *(
            "https://",
            "https:///token",
            "https://user@example.com/",
            "https://a:b@example.com/",
            "https://example.com/#x",
        ),
        *("https://example.com:0/", "https://example.com:99999/", "https://example.com:x/", "https://ex ample.com/"),
        *("https://example.com\\@evil.com/", "https://example.com/\n", "https://exämple.com/", "https://[::1/"),
        *(
            "https://{host}/token",
            "https://{shop}.com/token",
            "https://api.{shop}/token",
            "https://x{shop}.example.com/",
        ),
        *("https://{shop}.example.com:{port}/", "https://{shop}.{tld}/", "https://{Shop}.example.com/", "{url}"),
        *(
            "{scheme}://example.com/",
            "https://{shop}.example.{tld}/",
            "https://example.com/{}",
            "https://example.com/{a",
        ),
        "https://example.com/" + "x" * 2000,
    ],
)
def test_urls_that_cannot(url: str) -> None:
    """Among them every {part} that could move the host out of the operator's domain."""
    with pytest.raises(ValueError, match=r"must|may|is not"):
        endpoint(url)


@pytest.mark.parametrize(
    "url", ["https://git.example.com/", "https://git.example.com/a?b", "https://{shop}.example.com"]
)
def test_a_base_is_what_paths_can_be_added_to(url: str) -> None:
    with pytest.raises(ValueError, match="slash"):
        base(url)
    for settings in (gitlab.Settings, sandbox.Settings):
        with pytest.raises(ValidationError):
            settings.model_validate({"base_url": url})


@PROPERTY
@given(
    url=st.one_of(st.text(max_size=60), st.text(alphabet="htps:/{}@.?#[]0a\\%", max_size=40).map("https://".__add__))
)
def test_any_text_is_an_endpoint_or_a_value_error(url: str) -> None:
    """No other exception, and no quoting of a part outside its place."""
    try:
        assert endpoint(url) == url
    except ValueError:
        return
    assert url.startswith(("https://", "http://"))


@pytest.mark.parametrize("tenant", ["a/b", "evil.com/x", "..", "Common", "", "common\n", "a.b.", "84bd8158", "x" * 300])
def test_a_tenant_of_microsofts_is_one_step_of_the_path(tenant: str) -> None:
    with pytest.raises(ValidationError):
        microsoft.Settings.model_validate({"tenant": tenant})
    for fine in ("common", "84bd8158-6d4d-4958-8b9f-9d6445542f95", "contoso.onmicrosoft.com"):
        assert microsoft.Settings.model_validate({"tenant": fine}).tenant == fine


def test_what_nobody_said_is_rfc_6749() -> None:
    """Facts of the least settings: PKCE, Basic, spaces, a refresh token that must not be spent twice."""
    facts = generic_oauth2.oauth_facts(GENERIC)
    assert facts == OAuthFacts(
        authorize_url=GENERIC["authorize_url"],
        token_url=GENERIC["token_url"],
        revoke_url=GENERIC["revoke_url"],
        api_base=GENERIC["userinfo_url"],
        client_auth="basic",
        pkce=True,
        rotation="strict",
        probe_acquits=False,
    )
    assert generic_oauth2.oauth_facts({**GENERIC, "probe_acquits": True}).probe_acquits
    odd = CASES["generic-oauth2/odd"].facts
    assert odd.user_parts == {"shop": LABEL}
    assert (odd.client_auth, odd.token_encoding, odd.scope_separator, odd.pkce) == ("post", "json", ",", False)
    machine = CASES["generic-oauth2/machine"].facts
    assert machine.authorize_url is None
    assert machine.grant_kinds == ("client_credentials",)
    assert not machine.refresh_expected


def test_deliveries_are_standard_webhooks_of_the_account_that_the_pointer_finds() -> None:
    """And the sandbox's name theirs; a revoked grant is a signal."""
    for name, accounts, signals in (
        ("generic-oauth2", ("account:u-7",), [False]),
        ("sandbox", ("account:user-1",), [False, True]),
    ):
        signer = SIGNERS[name]
        module = {"sandbox": sandbox, "generic-oauth2": generic_oauth2}[name]
        for body, signal in zip(signer.bodies, signals, strict=True):
            delivery = signed(signer, body)
            (item,) = module.items(delivery, module.verify(delivery, trusting(signer), NOW))
            assert (item.accounts, item.signal) == (accounts, signal)
            assert item.dedupe == delivery.headers["webhook-id"]
