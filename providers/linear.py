"""Linear: webhooks of an OAuth application or a workspace, and tokens of people or of the application itself.

An organization (a workspace) is the account. The signature covers the body, whose `webhookTimestamp` is new with each
attempt; the headers that tell the time and the delivery are not signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from providers import graphql, oauth, oauth_calls
from providers.calls import Http
from providers.contract import Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import GrantEnded, Malformed, OddAnswer, SignatureMismatch, SignatureMissing
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet
from providers.oauth_calls import key_at
from providers.reading import account, document, identifier, instant, iso_instant, text
from providers.signals import Said, Says, Signal, Tells, known_by
from providers.signatures import header, hmac_hex, matching, raw, text_secret_complaint, within

SCHEMA = "https://github.com/linear/linear/blob/master/packages/sdk/src/schema.graphql"

FACTS = Facts(
    name="linear",
    title="Linear",
    docs_url="https://linear.app/developers/webhooks",
    # https://linear.app/developers/webhooks#securing-webhooks; linear/linear, packages/sdk/src/webhooks/client.ts: 60 s,
    # absolute, against `webhookTimestamp` in the body
    signature_headers=("linear-signature",),
    identity_headers=("linear-delivery", "linear-event", "linear-timestamp"),
    timestamp_tolerance_s=60,
    # Five seconds; again after a minute, an hour and six hours, and then the webhook may be switched off: not verified.
    ack_deadline_s=5.0,
    # OAuthAppWebhookPayload and OAuthAuthorizationWebhookPayload in the schema; the action's name is what others receive.
    # `createdAt` is signed and stays the same over retries.
    signals=(
        Tells(event="oauthapp.revoked", says=("revoked", "doubtful"), knows="time", source=SCHEMA),
        Tells(event="oauthauthorization.revoked", says=("revoked", "doubtful"), knows="time", source=SCHEMA),
    ),
)

# https://linear.app/developers/oauth-2-0-authentication
OAUTH = OAuthFacts(
    authorize_url="https://linear.app/oauth/authorize",
    token_url="https://api.linear.app/oauth/token",
    revoke_url="https://api.linear.app/oauth/revoke",
    api_base="https://api.linear.app",
    client_auth="post",
    pkce=True,
    scope_separator=",",  # when asking; an answer has a text or a list
    access_ttl_s=24 * 3600,
    # A grace of 30 minutes for a refresh token that was used is reported, not documented: nothing may be built on it.
    rotation="strict",
    revoke_reach="token",
    # Whether an access token ends with the refresh token that brought it is not documented; a refresh tells.
    probe_acquits=False,
)

VIEWER = "{ viewer { id } organization { id } }"


class Settings(BaseModel):
    """What an application says of itself."""

    model_config = ConfigDict(extra="forbid")

    actor: Literal["user", "app"] = Field(
        "user", description="In whose name things are done: the person's who consents, or the application's own."
    )
    oauth_client_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,100}$",
        description="The application's id in webhooks (oauthClientId), where it is not the client id.",
    )


_SIGNATURE = re.compile(r"[0-9a-f]{64}")


def check_secret(secret: bytes) -> str | None:
    """The signing secret of the webhook, or of the application."""
    if secret.startswith((b"lin_api_", b"lin_oauth_")):
        return "is a token, not the webhook's signing secret"
    return text_secret_complaint(secret)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless Linear signed this exact body in the last (or, by its clock, next) minute."""
    sent = header(delivery, "linear-signature")
    if not _SIGNATURE.fullmatch(sent):
        raise SignatureMismatch("signature is not of the expected form")
    index = matching(trust.secrets, lambda secret: hmac_hex(secret, delivery.body), [raw(sent)])
    stamp = document(delivery.body).get("webhookTimestamp")
    if stamp is None:
        raise SignatureMissing("webhookTimestamp")
    signed_at = instant(stamp, per_second=1000)
    if signed_at is None:
        raise Malformed("webhookTimestamp is no time")
    within(signed_at, now, FACTS.timestamp_tolerance_s or 0)
    return Verified(scheme="sha256", secret=index, signed_at=signed_at)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item, named by its type and action. The delivery id is not signed: it tells a retry, and is no protection."""
    sent = document(delivery.body)
    kind, action = text(sent.get("type")), text(sent.get("action"))
    name = event_name(f"{kind or 'unknown'}.{action}" if action else kind)
    return [
        Item(
            event=name,
            data=delivery.body,
            accounts=account("organization", sent.get("organizationId")) + _user(sent),
            dedupe=identifier(delivery.headers.get("linear-delivery")),
            occurred_at=iso_instant(sent.get("createdAt")),
            signal=FACTS.is_signal(name),
        )
    ]


def interpret(said: Said) -> Sequence[Signal]:
    """The application left an organization, or a person took an authorization back, of possibly several.

    Another application's end is none of ours. Whose it is cannot be told where the id is of the other kind (a UUID, and
    our client id is none): then the provider is asked.
    """
    sent = document(said.data)
    ours = _is_ours(sent.get("oauthClientId"), said)
    if ours is False:
        return []
    if said.event == "oauthapp.revoked":
        whose, reason, sure = account("organization", sent.get("organizationId")), "app_revoked", True
    else:
        whose, reason, sure = _user(sent), "authorization_revoked", sent.get("activeTokensForUser") == 0
    if not whose:
        raise Malformed("nobody's")
    says: Says = "revoked" if ours and sure else "doubtful"
    when = _happened(sent)
    return [Signal(says=says, reason=reason, accounts=whose, knows=known_by(when), at=when)]


def authorize(asked: Asked, app: App) -> Mapping[str, str]:
    """https://linear.app/developers/oauth-actor-authorization"""
    sent = oauth.authorize_parameters(OAUTH, app, asked)
    if app.settings.get("actor") == "app":
        sent["actor"] = "app"
    return sent | ({"prompt": "consent"} if asked.again else {})


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """The organization; who consented (or the application's own user there) is among the accounts."""
    said = await _asked(http, next(iter(tokens.values())))
    organization = f"organization:{key_at(said, 'organization', 'id')}"
    user = f"user:{key_at(said, 'organization', 'id')}/{key_at(said, 'viewer', 'id')}"
    return Identity(subject=organization, accounts=(organization, user))


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """Revoke the refresh token, then the access token. 400 may mean that it was revoked before: others tell.

    linear/linear, README of 2022: "400 - unable to revoke token (e.g. token was already revoked)". That it takes refresh
    tokens is not documented: where one is still good, the access token that it brings is revoked instead.
    """
    try:
        await oauth_calls.revoke(http, OAUTH, app, tokens)
    except OddAnswer as error:
        if error.status != 400:
            raise
        if await _works(http, tokens):
            raise
        fresh = await oauth_calls.last_access(http, OAUTH, app, tokens)
        if fresh is not None:
            await oauth_calls.revoke(http, OAUTH, app, TokenSet(access_token=fresh))


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """Whose token it is, which any scope tells."""
    await _asked(http, tokens)
    return None


async def _asked(http: Http, tokens: TokenSet) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {tokens.access_token}"}
    return graphql.data(await http.send(graphql.query(f"{OAUTH.api_base}/graphql", VIEWER, headers)))


async def _works(http: Http, tokens: TokenSet) -> bool:
    try:
        await _asked(http, tokens)
    except GrantEnded:
        return False
    return True


def _user(sent: Mapping[str, Any]) -> tuple[str, ...]:
    """Whose authorization it is about; other webhooks name users who only acted."""
    if sent.get("type") != "OAuthAuthorization":
        return ()
    return account("user", sent.get("organizationId"), sent.get("userId"))


def _happened(sent: Mapping[str, Any]) -> datetime | None:
    """`createdAt`. The time of the attempt is new with each, so it can only pull one from the future back."""
    created, attempted = iso_instant(sent.get("createdAt")), instant(sent.get("webhookTimestamp"), per_second=1000)
    return min(created, attempted) if created is not None and attempted is not None else created


def _is_ours(named: Any, said: Said) -> bool | None:
    """None: it cannot be told."""
    own = said.settings.get("oauth_client_id")
    if not isinstance(named, str) or not named:
        return False
    if named in (said.client_id, own):
        return True
    return None if own is None and _is_uuid(named) and not _is_uuid(said.client_id or "") else False


def _is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value.lower()
    except ValueError:
        return False
