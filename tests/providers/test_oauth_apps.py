"""An integration as its provider module sees it: whose word counts for a URL part, and which secret is which."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from gateway import exchange
from gateway.catalog import Integration
from providers import oauth
from providers.contract import Trust
from providers.errors import Misconfigured
from providers.registry import all_providers
from tests.providers.oauth_cases import CASES
from tests.signing import NOW

PEM = b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"


def integration(provider: str, **changed: Any) -> Integration:
    said: dict[str, Any] = {
        "id": UUID(int=1),
        "name": "mine",
        "provider": all_providers()[provider],
        "region": "default",
        "client_id": "client.id/1",
        "settings": {},
        "unattributed": "keep",
        "trust": Trust(secrets=(), endpoint=False),
        "client_secrets": (b"new", b"old"),
    }
    return Integration(**{**said, **changed})


@pytest.mark.parametrize(
    ("settings", "chosen", "tenant"),
    [
        ({}, {}, "common"),
        ({}, {"tenant": "contoso.com"}, "contoso.com"),
        ({"tenant": "organizations"}, {"tenant": "contoso.com"}, "organizations"),
    ],
)
def test_the_operators_word_then_the_sessions_then_the_providers(
    settings: dict[str, str], chosen: dict[str, str], tenant: str
) -> None:
    of = integration("microsoft", settings=settings)
    app, facts = exchange.app_of(of, "https://hooks.example.com", chosen), exchange.facts_of(of)
    assert app.parts["tenant"] == tenant
    assert f"/{tenant}/" in oauth.filled(facts.token_url, facts, app)


def test_a_private_key_among_the_client_secrets_is_told_by_its_form() -> None:
    """The newest of each kind; and the hour is passed on."""
    of = integration("github", client_secrets=(PEM, b"new", b"old"), settings={"app_slug": "posthouse-test"})
    app = exchange.app_of(of, "https://hooks.example.com", now=NOW)
    assert (app.client_secret, app.older_secrets, app.private_key) == ("new", ("old",), PEM.decode())
    assert app.now == NOW
    assert app.redirect_uri == "https://hooks.example.com/oauth/callback/mine"
    assert exchange.facts_of(of).minted == ("installation",)
    with pytest.raises(Misconfigured):
        exchange.app_of(integration("github", client_secrets=(PEM,)), "https://hooks.example.com")


def test_a_public_client_needs_no_secret() -> None:
    of = integration("generic-oauth2", client_secrets=(), settings=dict(CASES["generic-oauth2/public"].settings))
    assert exchange.app_of(of, "https://hooks.example.com").client_secret == ""
    with pytest.raises(Misconfigured):
        exchange.facts_of(integration("standard-webhooks"))
