"""The sandbox that comes with Posthouse: an OAuth server and API to try everything on, with webhooks of its own.

It is as strict as providers get: PKCE, `iss` with every answer, a refresh token that is dead once used (and whose second
use ends the grant), scopes that can be unticked and added later, revocation at either side. Its webhooks are Standard Webhooks, and name
the account that they are about: {"type": "note.created", "account": "user-1", "timestamp": …, "data": …}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from providers import oauth_calls, standard_items, standard_signatures
from providers.calls import Http, bearer, called
from providers.contract import Delivery, Facts, Item, Trust, Verified
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet, authorize_parameters, filled, scopes_of
from providers.signals import Said, Signal, Tells
from providers.urls import Base

FACTS = Facts(
    name="sandbox",
    title="Sandbox",
    docs_url="https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
    signature_headers=("webhook-signature",),
    identity_headers=("webhook-id", "webhook-timestamp"),
    timestamp_tolerance_s=standard_signatures.TOLERANCE_S,
    one_service=False,  # each has its own base_url
    signals=(
        Tells(
            event="grant.revoked",
            says=("revoked",),
            knows="nothing",
            source="https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
        ),
    ),
)

# The server is ours: gateway/sandbox.
OAUTH = OAuthFacts(
    authorize_url="{base_url}/oauth/authorize",
    token_url="{base_url}/oauth/token",
    revoke_url="{base_url}/oauth/revoke",
    api_base="{base_url}",
    issuer="{base_url}",
    issuer_always=True,
    client_auth="basic",
    pkce=True,
    incremental=True,
    grant_kinds=("code", "client_credentials"),
    rotation="strict",
    revoke_reach="token",
    probe_acquits=True,  # it looks tokens up with each call, and a grant ends with all of them
)


class Settings(BaseModel):
    """Where it runs."""

    model_config = ConfigDict(extra="forbid")

    base_url: Base = Field(description="Where the sandbox answers, e.g. http://127.0.0.1:8090, no slash at its end.")


def check_secret(secret: bytes) -> str | None:
    """`whsec_` and 24 to 64 bytes in base64."""
    return standard_signatures.complaint(secret)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless the sandbox signed this in the last 300 s."""
    return standard_signatures.verify(delivery, trust, now)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item, of the account that it names."""
    who = standard_items.pointed(delivery.body, "/account")
    found = standard_items.item(delivery, "webhook", (f"account:{who}",) if who else ())
    return [replace(found, signal=FACTS.is_signal(found.event))]


def interpret(said: Said) -> Sequence[Signal]:
    """It names the account, which may have given several grants: which of them is over, a probe tells."""
    who = standard_items.pointed(said.data, "/account")
    return [Signal(says="revoked", reason="grant_revoked", accounts=(f"account:{who}",))] if who else []


def authorize(asked: Asked, app: App) -> dict[str, str]:
    """A reconnect adds to what its user has given before; a first consent stands alone."""
    return authorize_parameters(OAUTH, app, asked) | ({"include_granted_scopes": "true"} if asked.again else {})


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """`sub` of the one who consented."""
    who = await oauth_calls.subject(http, _me(app), next(iter(tokens.values())), "sub")
    return Identity(subject=f"account:{who}", accounts=(f"account:{who}",))


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """RFC 7009."""
    await oauth_calls.revoke(http, OAUTH, app, tokens)


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """401 once the token is over or revoked; it tells the scopes of the token."""
    said = await called(http, bearer("GET", _me(app), tokens.access_token))
    return scopes_of(said.get("scopes"), OAUTH.scope_separator)


def _me(app: App) -> str:
    return filled("{base_url}/api/me", OAUTH, app)
