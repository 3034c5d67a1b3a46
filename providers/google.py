"""Google: Pub/Sub push (Gmail) at the app-wide URL, channel notifications (Calendar, Drive …) at hook endpoints.

The URL decides which of the two schemes counts, never the request: a delivery cannot choose the check it would pass.

- Pub/Sub push carries an OIDC token. Any Google service account can have a token made for any audience, so `aud` is
  not enough: `email` must be the service account that the push subscription is configured with. The token does not
  cover the body, and Pub/Sub uses one for up to an hour, so it dates nothing (`signed_at` stays None).
- A channel notification is not signed at all. What stands in for a signature is the channel's `token`, an unguessable
  secret of the hook endpoint, which Google repeats in a header.

Only the wrapped form of Pub/Sub push is read ("payload unwrapping" off, the default).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from google.auth import crypt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from providers import signatures
from providers.contract import Delivery, Facts, Item, Sequence, Trust, Verified, event_name
from providers.errors import (
    Malformed,
    NotConfigured,
    Refused,
    SignatureMismatch,
    TimestampOutOfRange,
    UnknownKey,
    WrongAudience,
    WrongSender,
)
from providers.reading import account, at, document, identifier, iso_instant, loads, text

FACTS = Facts(
    name="google",
    title="Google",
    docs_url="https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions",
    signature_headers=("authorization", "x-goog-channel-token"),
    # https://developers.google.com/calendar/api/guides/push
    identity_headers=("x-goog-channel-id", "x-goog-message-number"),
    kept_headers=(
        "x-goog-resource-id",
        "x-goog-resource-uri",
        "x-goog-resource-state",
        "x-goog-channel-expiration",
        "x-goog-changed",  # Drive: what changed of the file
    ),
    # Pub/Sub sends again until the message retention of the subscription ends: 7 days by default.
    # https://cloud.google.com/pubsub/docs/push
    dedupe_window_s=7 * 24 * 3600,
    signs_with="keys",
    keys_url="https://www.googleapis.com/oauth2/v1/certs",
    keys_format="pem",
    ack_deadline_s=10.0,  # Pub/Sub's default ackDeadlineSeconds, which is the timeout of the push too
)

# Both are in use: googleapis/google-auth-library-python, google/oauth2/id_token.py
ISSUERS = frozenset({"accounts.google.com", "https://accounts.google.com"})
SKEW_S = 60  # how far our clock and Google's may differ at both ends of a token's life
LONGEST_TOKEN = 256  # characters that Google takes as a channel's `token`


class Settings(BaseModel):
    """What tells our Pub/Sub push subscription from everybody else's. Both, or neither where only channels are used."""

    model_config = ConfigDict(extra="forbid")

    audience: str | None = Field(default=None, min_length=1)
    service_account_email: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.audience is None) != (self.service_account_email is None):
            raise ValueError("audience and service_account_email go together: one alone proves nothing")
        return self


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless Google sent this: by channel token at a hook endpoint, by OIDC token elsewhere."""
    if trust.endpoint:
        return _verify_channel(delivery, trust)
    if any(name.startswith("x-goog-channel-") for name in delivery.headers):
        raise NotConfigured("channel notifications are taken at their hook endpoint only")
    return _verify_push(delivery, trust, now)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item: a notification of a channel, or a message of a Pub/Sub topic in its envelope."""
    return [_notification(delivery) if verified.scheme == "channel_token" else _message(delivery.body)]


def check_secret(secret: bytes) -> str | None:
    """What is wrong with a channel token."""
    if len(secret) > LONGEST_TOKEN:
        return f"is longer than the {LONGEST_TOKEN} characters that a channel takes"
    return signatures.text_secret_complaint(secret)


def _verify_channel(delivery: Delivery, trust: Trust) -> Verified:
    signatures.header(delivery, "x-goog-channel-id")
    token = signatures.raw(signatures.header(delivery, "x-goog-channel-token"))
    return Verified("channel_token", secret=signatures.matching(trust.secrets, lambda secret: secret, [token]))


def _verify_push(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    audience, sender = trust.settings.get("audience"), trust.settings.get("service_account_email")
    if not audience or not sender:
        raise NotConfigured("audience and service_account_email are not set")
    scheme, _, token = signatures.header(delivery, "authorization").partition(" ")
    if scheme != "Bearer":
        raise SignatureMismatch("not a bearer token")
    claims = _claims(token, trust.keys)
    if text(claims.get("iss")) not in ISSUERS:
        raise WrongSender("iss")
    if claims.get("aud") != audience:
        raise WrongAudience("aud")
    if claims.get("email") != sender or claims.get("email_verified") is not True:
        raise WrongSender("email")
    _judge_time(claims, now)
    return Verified("oidc")


def _claims(token: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """What the JWT `token` says, its signature checked; times are not.    Raises: SignatureMismatch, UnknownKey.

    google-auth checks the signature. Its `jwt.decode` is not used: it asks its own clock, takes several algorithms,
    and its lenient base64 lets different texts pass for one signature.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise SignatureMismatch("not a JWT")
    head, claims, signature = _segment(parts[0]), _segment(parts[1]), _unbase64url(parts[2])
    # RS256 alone: "none" has no signature, and HS256 would take the public key for a secret. `crit` names
    # extensions that a verifier must know; we know none.
    if head.get("alg") != "RS256" or "crit" in head:
        raise SignatureMismatch("alg")
    kid = text(head.get("kid"))
    if not kid:
        raise SignatureMismatch("kid")
    pem = keys.get(kid)
    if not isinstance(pem, str):
        raise UnknownKey("kid")
    if not _verifier(pem).verify(f"{parts[0]}.{parts[1]}".encode(), signature):
        raise SignatureMismatch
    return claims


@lru_cache(maxsize=16)  # Google publishes two or three; reading a certificate costs as much as checking a signature
def _verifier(pem: str) -> crypt.RSAVerifier:
    try:
        key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    except ValueError:
        raise UnknownKey("the published key is no PEM certificate") from None
    if not isinstance(key, RSAPublicKey):
        raise UnknownKey("the published key is not RSA")
    return crypt.RSAVerifier(key)  # type: ignore[no-untyped-call]  # google-auth has no types here


def _segment(segment: str) -> dict[str, Any]:
    try:
        return document(_unbase64url(segment))
    except Malformed:
        raise SignatureMismatch("not a JWT") from None


def _unbase64url(segment: str) -> bytes:
    """The bytes of which `segment` is the one unpadded base64url form.    Raises: SignatureMismatch."""
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise SignatureMismatch("not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode():
        raise SignatureMismatch("not base64url")
    return data


def _judge_time(claims: Mapping[str, Any], now: datetime) -> None:
    """Between `iat` and `exp`, give or take `SKEW_S`, by `now` and no other clock."""
    issued, expires, moment = _time(claims.get("iat")), _time(claims.get("exp")), now.timestamp()
    if not issued - SKEW_S <= moment <= expires + SKEW_S:
        raise TimestampOutOfRange("iat, exp", skew_s=moment - issued)


def _time(value: Any) -> int:
    """`value` as whole seconds since 1970.    Raises: SignatureMismatch."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 53:
        raise SignatureMismatch("iat, exp")
    return value


def _notification(delivery: Delivery) -> Item:
    """A channel notification: everything is in the headers; Calendar and Drive send no body worth the name."""
    headers, body = delivery.headers, delivery.body
    if body:
        loads(body)  # Raises: Malformed
    channel, number = identifier(headers.get("x-goog-channel-id")), identifier(headers.get("x-goog-message-number"))
    return Item(
        event=f"channel.{event_name(headers.get('x-goog-resource-state', ''))}",  # "channel.sync" comes first
        data=body,
        content_type="application/json" if body else "application/octet-stream",  # empty text is not JSON
        accounts=account("channel", channel),
        dedupe=f"{channel}/{number}" if channel and number else None,
    )


def _message(body: bytes) -> Item:
    """A Pub/Sub message in its envelope; `gmail` where its data is a mailbox notification."""
    envelope = document(body)
    message = envelope.get("message")
    if not isinstance(message, dict):
        raise Malformed("no message")
    # https://cloud.google.com/pubsub/docs/reference/rest/v1/PubsubMessage: messageId is unique within the topic
    subscription, number = identifier(envelope.get("subscription"), 512), identifier(message.get("messageId"))
    mailbox = _mailbox(message.get("data"))
    return Item(
        event="gmail" if mailbox else "pubsub",
        data=body,
        accounts=account("email", mailbox) if mailbox else (),
        dedupe=f"{subscription}/{number}" if subscription and number else None,
        occurred_at=iso_instant(message.get("publishTime")),
    )


def _mailbox(data: Any) -> str | None:
    """The address in Gmail's `{"emailAddress": …, "historyId": …}`, lower case; None if `data` is something else.

    Source: https://developers.google.com/gmail/api/guides/push (base64url there, plain base64 in other messages)."""
    if not isinstance(data, str):
        return None
    try:
        said = loads(base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True))
    except (ValueError, Refused):
        return None
    if at(said, "historyId") is None:
        return None
    return identifier(text(at(said, "emailAddress")).lower())
