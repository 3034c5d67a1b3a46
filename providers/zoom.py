"""Zoom: event subscriptions of an app, its endpoint validation, and OAuth tokens of users and of whole accounts.

An app is managed by users (each adds it for themselves) or by admins (one adds it for the account). Webhooks do not say
for whose installation they come: those of a user are known by the host or the user in them, those of an account by it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from providers import oauth, oauth_calls
from providers.calls import Http, Response, api_refusal, bearer
from providers.contract import Answer, Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import (
    GrantEnded,
    HandshakeRefused,
    Malformed,
    OddAnswer,
    ProviderError,
    ScopeLacking,
    SignatureMismatch,
)
from providers.oauth import App, Identity, OAuthFacts, TokenSet
from providers.reading import account, at, document, identifier, instant, iso_instant, text
from providers.signals import Said, Signal, Tells, known_by
from providers.signatures import header, hmac_hex, matching, raw, signed_time, text_secret_complaint, within
from providers.slicing import blank, value_at

FACTS = Facts(
    name="zoom",
    title="Zoom",
    docs_url="https://developers.zoom.us/docs/api/webhooks/",
    # https://developers.zoom.us/docs/api/webhooks/#verify-webhook-events; zoom/webhook-sample hashes JSON that it made
    # itself, which is not what came.
    signature_headers=("x-zm-signature",),
    identity_headers=("x-zm-request-timestamp",),
    kept_headers=("x-zm-trackingid",),
    timestamp_tolerance_s=5 * 60,  # Zoom names none; what apps use
    # Three seconds, and three more attempts after 5, 30 and 90 minutes: not verified.
    ack_deadline_s=3.0,
    signals=(
        Tells(
            event="app_deauthorized",
            says=("revoked",),
            knows="time",  # `deauthorization_time` is inside what is signed
            source="https://developers.zoom.us/docs/api/marketplace/events/",
        ),
    ),
)

# https://developers.zoom.us/docs/integrations/oauth/
OAUTH = OAuthFacts(
    authorize_url="https://zoom.us/oauth/authorize",
    token_url="https://zoom.us/oauth/token",
    revoke_url="https://zoom.us/oauth/revoke",
    api_base="https://api.zoom.us/v2",
    client_auth="basic",
    pkce=True,
    scope_separator=" ",  # as in the answer; others join by commas. What is granted are the app's own scopes: not verified
    # "The last token issued is considered valid, and the previous ones are invalidated" (the page below, 4741)
    scopes_merge=True,
    access_ttl_s=3600,
    refresh_idle_s=90 * 24 * 3600,  # "about", and it "may change"
    rotation="strict",
    # https://developers.zoom.us/docs/integrations/oauth-error-messages/: numbers; what each means for the grant is our
    # reading of that page. invalid_grant, and a reason with it, are what clients report (see `classify`).
    terminal=frozenset(
        {"invalid_grant"}
        | {"4733", "4734"}  # the code is over, or is none
        | {"4735", "4737", "4741"}  # its owner is gone; it is not found; it was revoked
        | {"4738", "4740"}  # disabled by an admin; an old kind of token, used too often
    ),
    # Likewise: an old refresh token was used again, more often than is tolerated.
    reuse=frozenset({"4740"}),
    configuration=frozenset(
        {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request"}
        | {"4702", "4704", "4705", "4706", "4709", "4711", "4717"}
    ),
    transient=frozenset({"temporarily_unavailable", "server_error", "slow_down"} | {"4700", "4732"}),
    revoke_reach="account",  # one valid token for a user and an app
    # Access tokens are JWTs; whether Zoom asks anybody before it takes one is not documented.
    probe_acquits=False,
)


class Settings(BaseModel):
    """What an app says of itself."""

    model_config = ConfigDict(extra="forbid")

    managed: Literal["user", "admin"] = Field(
        "user", description="Who adds the app: each user for themselves, or an admin for the account."
    )


_SIGNATURE = re.compile(r"v0=[0-9a-f]{64}")
_PLAIN_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")  # no colon: nobody gets "v0:…:body" signed by us


def check_secret(secret: bytes) -> str | None:
    """The app's Secret Token, of its Feature page; not the client secret, nor the verification token of before 2023."""
    return text_secret_complaint(secret)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless Zoom signed these bytes in the last (or, by its clock, next) five minutes."""
    index, signed_at = _signed(delivery, trust)
    within(signed_at, now, FACTS.timestamp_tolerance_s or 0)
    return Verified(scheme="v0", secret=index, signed_at=signed_at)


def challenge(delivery: Delivery, trust: Trust) -> Answer | None:
    """Answer a signed `endpoint.url_validation`, which comes again every 72 hours, by the secret that signed it.

    https://developers.zoom.us/docs/api/webhooks/#validate-your-webhook-endpoint
    Raises: HandshakeRefused, the token is not one that Zoom makes.
    """
    if b"url_validation" not in delivery.body:
        return None
    sent = document(delivery.body)
    if sent.get("event") != "endpoint.url_validation":
        return None
    token = at(sent, "payload", "plainToken")
    if not isinstance(token, str) or not _PLAIN_TOKEN.fullmatch(token):
        raise HandshakeRefused("plainToken is not of the expected form")
    index, _ = _signed(delivery, trust)
    proof = hmac_hex(trust.secrets[index], token.encode()).decode()
    return Answer(200, orjson.dumps({"plainToken": token, "encryptedToken": proof}), "application/json")


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item. Zoom gives a delivery no id; a retry has the same payload and the same `event_ts`."""
    sent = document(delivery.body)
    name = event_name(text(sent.get("event")))
    return [
        Item(
            event=name,
            data=delivery.body,
            accounts=_accounts(sent),
            dedupe=_dedupe(delivery.body, name, sent),
            occurred_at=_happened(sent),
            signal=FACTS.is_signal(name),
        )
    ]


def interpret(said: Said) -> Sequence[Signal]:
    """Of the user who took the app away; of an app that admins manage, of the account. Another app's says nothing to us."""
    sent = document(said.data)
    client = at(sent, "payload", "client_id")
    if client is not None and said.client_id is not None and client != said.client_id:
        return []
    kind, name = ("account", "account_id") if said.settings.get("managed") == "admin" else ("user", "user_id")
    whose = account(kind, at(sent, "payload", name))
    if not whose:
        raise Malformed("nobody's")
    when = _happened(sent)
    return [Signal(says="revoked", reason="app_deauthorized", accounts=whose, knows=known_by(when), at=when)]


def redact(data: bytes) -> bytes:
    """Blank the token that opens recordings to whoever has it, for a day; a connection's access token opens them too.

    https://developers.zoom.us/docs/api/meetings/events/#tag/recording/POSTrecording.completed
    """
    return blank(data, "download_token")


def classify(response: Response) -> ProviderError | None:
    """By the number in `errorCode`, else by `error`; a dead refresh token may be called an invalid request.

    The numbers come as {"status": false, "errorCode": 4702, …}, the rest as {"reason": "Invalid Token!", "error": …}: both
    as clients have seen them, neither is documented.
    """
    refused = oauth.refusal(OAUTH, response)
    if refused is None or refused.status == 429 or response.status >= 500:
        return refused
    try:
        said = response.json()
    except OddAnswer:
        return refused
    number = identifier(said.get("errorCode"), longest=8)
    if number is not None:
        numbered = Response(response.status, response.headers, orjson.dumps({"error": number}))
        return oauth.refusal(OAUTH, numbered)
    if said.get("error") == "invalid_request" and said.get("reason") == "Invalid Token!":
        return GrantEnded("invalid_grant", status=response.status)
    return refused


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """The user, or the account of an app that admins manage. The app must have a scope that lets users be read.

    https://developers.zoom.us/docs/api/users/#tag/users/get/users/{userId}
    """
    said = await _me(http, next(iter(tokens.values())))
    user = f"user:{oauth_calls.key_at(said, 'id')}"
    if app.settings.get("managed") != "admin":
        return Identity(subject=user, accounts=(user,), reach=user)
    whole = f"account:{oauth_calls.key_at(said, 'account_id')}"
    return Identity(subject=whole, accounts=(whole, user), reach=user)


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """Revoke an access token that is still good, and with it the grant: that Zoom takes others there is not documented.

    https://developers.zoom.us/docs/integrations/oauth/#revoke-an-access-token
    """
    access: str | None = tokens.access_token
    try:
        await _me(http, tokens)
    except GrantEnded:
        access = await oauth_calls.last_access(http, OAUTH, app, tokens)
    except ScopeLacking:
        pass  # it works
    if access is None:
        return
    response = await http.send(oauth.revoke_request(OAUTH, app, access, "access_token"))
    refused = classify(response)
    if refused is not None and not isinstance(refused, GrantEnded):
        raise refused


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """Whose token it is."""
    await _me(http, tokens)
    return None


async def _me(http: Http, tokens: TokenSet) -> dict[str, Any]:
    """https://developers.zoom.us/docs/api/errors: `code` 4711 and 4700, with other statuses, are about scopes."""
    response = await http.send(bearer("GET", f"{OAUTH.api_base}/users/me", tokens.access_token))
    refused = api_refusal(response)
    if refused is None:
        return response.json()
    if isinstance(refused, OddAnswer) and response.status == 400 and _code(response) == 4711:
        raise ScopeLacking(status=400)
    raise refused


def _code(response: Response) -> Any:
    try:
        return response.json().get("code")
    except OddAnswer:
        return None


def _signed(delivery: Delivery, trust: Trust) -> tuple[int, datetime]:
    """Which secret signed this, and when.    Raises: Refused."""
    stamp = header(delivery, "x-zm-request-timestamp")
    signature = header(delivery, "x-zm-signature")
    signed_at = signed_time(stamp)
    if not _SIGNATURE.fullmatch(signature):
        raise SignatureMismatch("signature is not of the form v0=…")
    start = f"v0:{stamp}:".encode()
    index = matching(trust.secrets, lambda key: b"v0=" + hmac_hex(key, start, delivery.body), [raw(signature)])
    return index, signed_at


def _accounts(sent: Mapping[str, Any]) -> tuple[str, ...]:
    """The account, and the user whose meeting, recording or own record it is. Never the operator, who may be anybody."""
    payload = sent.get("payload")
    users = [at(payload, "user_id"), at(payload, "object", "host_id")]
    if text(sent.get("event")).startswith("user."):
        users.append(at(payload, "object", "id"))
    keys = [account("account", at(payload, "account_id")), *(account("user", user) for user in users)]
    return tuple(dict.fromkeys(key for some in keys for key in some))


def _happened(sent: Mapping[str, Any]) -> datetime | None:
    """When it was taken away, where that is told; else `event_ts`, in milliseconds. A retry has them unchanged."""
    told = iso_instant(at(sent, "payload", "deauthorization_time"))
    stamped = instant(sent.get("event_ts"), per_second=1000)
    return min((when for when in (told, stamped) if when is not None), default=None)


def _dedupe(body: bytes, name: str, sent: Mapping[str, Any]) -> str | None:
    """By the payload's bytes: what stands beside it (`download_token`) may be new each time."""
    stamp, payload = identifier(sent.get("event_ts")) or "", value_at(body, ["payload"])
    if payload is None:
        return None
    return f"{name}:{stamp}:{hashlib.sha256(payload).hexdigest()}"
