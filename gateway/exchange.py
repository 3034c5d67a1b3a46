"""Calls of a provider's token endpoint for one integration: exchange a code, refresh, mint. No database in here.

Whoever calls holds no database connection meanwhile. What an answer means is told by the errors of `providers.errors`;
a success is a `TokenSet` for each access profile that it fills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from gateway.catalog import Integration
from gateway.regions import account_hash
from gateway.vault.keyring import Keyring
from providers import oauth
from providers.calls import Http, Request
from providers.errors import Misconfigured, OddAnswer
from providers.oauth import App, Asked, OAuthFacts, TokenSet
from providers.registry import Provider

UNUSABLE = "integration_unusable"


def marks(keyring: Keyring, integration: Integration, tokens: TokenSet) -> tuple[UUID, ...]:
    """What its provider may call this token set by, as keyed hashes like those of accounts: a signal finds it by them."""
    told = () if integration.provider.token_marks is None else integration.provider.token_marks(tokens)
    return tuple(account_hash(keyring, integration.id, mark) for mark in told)


def redirect_uri(public_url: str, integration: Integration) -> str:
    """Where the provider sends the browser back to: one for each integration, so that a mixed-up answer shows itself."""
    return f"{public_url}/oauth/callback/{integration.name}"


def app_of(
    integration: Integration,
    public_url: str,
    parameters: Mapping[str, str] | None = None,
    *,
    now: datetime | None = None,
) -> App:
    """The integration as its provider module sees it.    Raises: Misconfigured, it lacks a client id or secret.

    `parameters`: URL parts that were chosen for a session. What the operator has set cannot be overridden by them.
    `now`: when the call is made; whoever mints, revokes, probes or judges an id token needs it.
    """
    facts = facts_of(integration)
    if integration.client_id is None:
        raise Misconfigured("client_id_missing")
    client_secrets, private_key = oauth.told_apart(integration.client_secrets)
    client_secret = client_secrets[0] if client_secrets else ""
    if not client_secret and facts.client_auth != "none":
        raise Misconfigured("client_secret_missing")
    fixed = {name: value for name, value in integration.settings.items() if isinstance(value, str)}
    return App(
        client_id=integration.client_id,
        client_secret=client_secret,
        older_secrets=client_secrets[1:],
        private_key=private_key,
        settings=integration.settings,
        parts={**facts.default_parts, **(parameters or {}), **fixed},
        redirect_uri=redirect_uri(public_url, integration),
        now=now,
    )


def facts_of(integration: Integration) -> OAuthFacts:
    """The facts for this integration's settings.

    Raises: Misconfigured, this provider connects no accounts, or the settings cannot be used.
    """
    if integration.trouble is not None:
        raise Misconfigured(UNUSABLE)
    facts = integration.provider.oauth_for(integration.settings)
    if facts is None:
        raise Misconfigured("connects_no_accounts")
    return facts


async def exchange(
    http: Http, provider: Provider, facts: OAuthFacts, app: App, asked: Asked, code: str, verifier: str | None
) -> Mapping[str, TokenSet]:
    """Exchange an authorization code: the token set of each access profile that was asked for.

    Raises: ProviderError (GrantEnded: the code is wrong, used or over).
    """
    return await _called(
        http, provider, facts, asked, oauth.token_request(facts, app, oauth.code_fields(facts, app, code, verifier))
    )


async def refresh(
    http: Http,
    provider: Provider,
    facts: OAuthFacts,
    app: App,
    access_profile: str,
    scopes: Sequence[str],
    refresh_token: str,
) -> TokenSet:
    """Refresh one grant. Where the answer brings no new refresh token, the old one goes on (RFC 6749 section 6).

    Raises: ProviderError (GrantEnded: the refresh token is dead).
    """
    asked = Asked(scopes={access_profile: tuple(scopes)})
    request = oauth.token_request(facts, app, oauth.refresh_fields(facts, app, refresh_token))
    return _one(await _called(http, provider, facts, asked, request, rotates=True), access_profile)


async def client_credentials(
    http: Http, provider: Provider, facts: OAuthFacts, app: App, access_profile: str, scopes: Sequence[str]
) -> TokenSet:
    """Mint a token of the app's own (RFC 6749 section 4.4).    Raises: ProviderError."""
    asked = Asked(scopes={access_profile: tuple(scopes)})
    request = oauth.token_request(facts, app, oauth.credentials_fields(facts, scopes))
    return _one(await _called(http, provider, facts, asked, request), access_profile)


def minted_for(parameters: Mapping[str, str]) -> tuple[str, ...]:
    """The accounts that an installation's tokens are minted for, from its grant's parameters: `installation:42`."""
    return tuple(f"{name}:{value}" for name, value in parameters.items() if name == "installation")


async def mint(http: Http, provider: Provider, app: App, accounts: Sequence[str]) -> TokenSet:
    """A token that is made anew instead of refreshed.    Raises: ProviderError (GrantEnded: it is uninstalled)."""
    if provider.mint is None or not accounts:
        raise Misconfigured("mints_no_tokens")
    return _storable(await provider.mint(http, app, accounts))


async def _called(
    http: Http, provider: Provider, facts: OAuthFacts, asked: Asked, request: Request, *, rotates: bool = False
) -> Mapping[str, TokenSet]:
    response = await http.send(request)
    refused = provider.classify(response) if provider.classify is not None else oauth.refusal(facts, response)
    if refused is not None:
        raise refused
    answer = oauth.with_lifetimes(response.json()) if rotates else response.json()
    if provider.token_sets is not None:
        sets = provider.token_sets(answer, asked)
    else:
        sets = {access_profile: oauth.token_set(facts, answer) for access_profile in asked.scopes}
    return {access_profile: _storable(tokens) for access_profile, tokens in sets.items()}


def _storable(tokens: TokenSet) -> TokenSet:
    """Without what no scope and no type can be, and a database cannot hold: a rotated token must not be lost for it."""
    scopes = None if tokens.scopes is None else frozenset(s for s in tokens.scopes if s.isprintable() and len(s) <= 500)
    kind = tokens.token_type if tokens.token_type.isascii() and tokens.token_type.isprintable() else "Bearer"
    return replace(tokens, scopes=scopes, token_type=kind)


def _one(found: Mapping[str, TokenSet], access_profile: str) -> TokenSet:
    """Raises: OddAnswer, the answer is of another access profile."""
    if access_profile not in found:
        raise OddAnswer("other_profile")
    return found[access_profile]
