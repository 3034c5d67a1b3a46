"""Google: Pub/Sub push (Gmail) and security events at the app-wide URL, channel notifications (Calendar …) at hook endpoints.

The URL decides whether the channel's secret counts, which is no signature: there a delivery cannot choose the check it
would pass. At the app-wide URL the request tells what it is, and may: both checks there are strong by themselves, one
signature by Google each, and a body that passes the one is nothing to the other.

- Pub/Sub push carries an OIDC token. Any Google service account can have a token made for any audience, so `aud` is
  not enough: `email` must be the service account that the push subscription is configured with. The token does not
  cover the body, and Pub/Sub uses one for up to an hour, so it dates nothing (`signed_at` stays None).
- A channel notification is not signed at all. What stands in for a signature is the channel's `token`, an unguessable
  secret of the hook endpoint, which Google repeats in a header.
- Cross-Account Protection (RISC) sends security event tokens: the body is the signed token, and there is no
  Authorization header (providers/secevent.py).

Only the wrapped form of Pub/Sub push is read ("payload unwrapping" off, the default).

Accounts are known by `sub` of an id token whose signature we check, so every consent asks for `openid` too.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from providers import jwt, oauth, secevent, secevent_events, signatures
from providers.calls import Http, Request, Response, called, form
from providers.contract import Answer, Delivery, Facts, Item, Sequence, Trust, Verified, event_name
from providers.errors import (
    GrantEnded,
    Malformed,
    NotConfigured,
    OddAnswer,
    ProviderError,
    Refused,
    SignatureMismatch,
    UnknownKey,
    WrongAudience,
    WrongSender,
)
from providers.google_risc import API, host
from providers.google_risc import stream_set_up as stream_set_up  # abilities of this module
from providers.google_risc import stream_verify as stream_verify
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet
from providers.oauth_calls import key_at
from providers.reading import account, at, document, identifier, iso_instant, loads, text
from providers.signals import Said, Signal
from providers.urls import Base

RISC = "https://developers.google.com/identity/protocols/risc#supported_event_types"

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
    signals=secevent_events.tells(
        dict.fromkeys(
            (
                *("sessions-revoked", "tokens-revoked", "token-revoked", "account-disabled", "account-enabled"),
                "account-credential-change-required",
            ),
            RISC,
        )
    ),
)

# https://developers.google.com/identity/protocols/oauth2/web-server (endpoints, offline access, incremental consent,
# revocation) unless another page is named.
OAUTH = OAuthFacts(
    authorize_url="https://accounts.google.com/o/oauth2/v2/auth",
    token_url="https://oauth2.googleapis.com/token",
    revoke_url="https://oauth2.googleapis.com/revoke",  # takes either token, and no client authentication
    api_base="https://oauth2.googleapis.com",
    api_hosts=("www.googleapis.com", host(API)),  # FACTS.keys_url; security events
    issuer="https://accounts.google.com",  # https://accounts.google.com/.well-known/openid-configuration
    client_auth="post",
    pkce=True,
    # Consents of one user to one app (all client ids of a Cloud project) are one grant; its tokens are for the union.
    scopes_merge=True,
    incremental=True,
    # A refresh token comes with a consent screen only: without `prompt`, an account that has been connected before (by
    # another tenant, say) would come back without one. NangoHQ/nango, packages/providers/providers.yaml
    authorize_extra={"access_type": "offline", "include_granted_scopes": "true", "prompt": "consent"},
    access_ttl_s=3600,
    # Six months without use; seven days in all while the consent screen's publishing status is Testing; 100 live ones
    # per account and client id. https://developers.google.com/identity/protocols/oauth2#expiration
    refresh_idle_s=180 * 24 * 3600,
    rotation="none",
    # googleapis/google-auth-library-python, google/oauth2/_client.py; deleted_client and the last: not verified
    configuration=frozenset(
        {*("invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request")}
        | {"deleted_client", "redirect_uri_mismatch", "org_internal"}
    ),
    transient=frozenset({"temporarily_unavailable", "server_error", "internal_failure", "slow_down"}),
    revoke_reach="account",  # the whole grant goes, with every token of it
    # A refresh token may go alone (the oldest of more than 100: same page), and access tokens may still pass for a while
    # after a revocation (…/oauth2/web-server#tokenrevoke; how long: not verified). A refresh tells, and costs nothing.
    probe_acquits=False,
)

# The grant lives, but its owner has to log in again (session control of Google Cloud): only a person can.
# googleapis/google-auth-library-python, google/oauth2/reauth.py
REAUTH = frozenset({"invalid_rapt", "rapt_required"})

# What these are called in the answer. https://developers.google.com/identity/protocols/oauth2/scopes#openid-connect
SPELT_OUT = {
    "email": "https://www.googleapis.com/auth/userinfo.email",
    "profile": "https://www.googleapis.com/auth/userinfo.profile",
}

# Both are in use: googleapis/google-auth-library-python, google/oauth2/id_token.py
ISSUERS = frozenset({"accounts.google.com", "https://accounts.google.com"})
SUBJECT = "user"  # of account keys, as `identify` makes them
LONGEST_TOKEN = 256  # characters that Google takes as a channel's `token`


class Settings(BaseModel):
    """What tells our Pub/Sub push subscription from everybody else's, and what security events are for."""

    model_config = ConfigDict(extra="forbid")

    audience: str | None = Field(
        default=None, min_length=1, description="Of Pub/Sub's token; with its sender's address."
    )
    service_account_email: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    security_event_audiences: list[str] = Field(
        default_factory=list,
        max_length=50,
        description="Client ids of the same project, besides the integration's own.",
    )
    # `issuer` of https://accounts.google.com/.well-known/risc-configuration
    security_event_issuer: str = Field("https://accounts.google.com", pattern=r"^https://[!-~]{1,500}$")
    risc_service_account: str | None = Field(
        None, pattern=r"^[^@\s]+@[^@\s]+$", description="Whose key is a client secret here: may set up security events."
    )
    risc_key_id: str | None = Field(None, pattern=r"^[!-~]{1,200}$", description="The id of that key.")
    risc_api: Base = Field(API, description="Google's RISC API, or what stands in for it.")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.audience is None) != (self.service_account_email is None):
            raise ValueError("audience and service_account_email go together: one alone proves nothing")
        return self


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless Google sent this: by channel token at a hook endpoint, by OIDC or event token elsewhere."""
    if trust.endpoint:
        return _verify_channel(delivery, trust)
    if _is_security_event(delivery):
        return secevent.verify(delivery, _stream(trust), trust.keys, now)
    if any(name.startswith("x-goog-channel-") for name in delivery.headers):
        raise NotConfigured("channel notifications are taken at their hook endpoint only")
    return _verify_push(delivery, trust, now)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item: a notification of a channel, or a message of a Pub/Sub topic in its envelope; or a security event."""
    if verified.scheme == secevent.SCHEME:
        return secevent.items(delivery, verified, FACTS, SUBJECT)
    return [_notification(delivery) if verified.scheme == "channel_token" else _message(delivery.body)]


def interpret(said: Said) -> Sequence[Signal]:
    """What a security event says."""
    return secevent_events.interpret(said)


def redact(data: bytes) -> bytes:
    """Token identifiers of security events."""
    return secevent.redact(data)


def decline(delivery: Delivery, refused: Refused) -> Answer | None:
    """A security event is answered as RFC 8935 has it, also at a hook endpoint, where none is taken."""
    return secevent.decline(delivery, refused) if _is_security_event(delivery) else None


def token_marks(tokens: TokenSet) -> tuple[str, ...]:
    """How `token-revoked` names a refresh token."""
    return secevent_events.token_marks(tokens)


def oauth_facts(settings: Mapping[str, Any]) -> OAuthFacts:
    """With the host of the RISC API, where the settings name another one."""
    api = settings.get("risc_api") or API
    return OAUTH if api == API else replace(OAUTH, api_hosts=(*OAUTH.api_hosts, host(api)))


def check_secret(secret: bytes) -> str | None:
    """What is wrong with a channel token."""
    if len(secret) > LONGEST_TOKEN:
        return f"is longer than the {LONGEST_TOKEN} characters that a channel takes"
    return signatures.text_secret_complaint(secret)


def authorize(asked: Asked, app: App) -> Mapping[str, str]:
    """With `openid`, for the id token; the nonce binds that one to this consent."""
    scopes = {name: tuple(dict.fromkeys(("openid", *of))) for name, of in asked.scopes.items()}
    sent = oauth.authorize_parameters(OAUTH, app, replace(asked, scopes=scopes or {"": ("openid",)}))
    more = {"nonce": asked.nonce, "login_hint": asked.login_hint}
    return sent | {name: value for name, value in more.items() if value is not None}


def token_sets(answer: Mapping[str, Any], asked: Asked) -> Mapping[str, TokenSet]:
    """Users untick scopes: the answer tells what is left, in the long spelling of `email` and `profile`."""
    found = oauth.token_set(OAUTH, answer)
    return dict.fromkeys(asked.scopes, replace(found, scopes=_both_spellings(found.scopes)))


def classify(response: Response) -> ProviderError | None:
    """`invalid_grant` says by its subtype whether a login is all that is missing."""
    refused = oauth.refusal(OAUTH, response)
    if isinstance(refused, GrantEnded):
        subtype = text(response.json().get("error_subtype"))
        return GrantEnded(subtype, status=refused.status) if subtype in REAUTH else refused
    return refused


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """By the id token of the consent; tokens that were imported have none: Google is asked for whom and whose they are.

    https://developers.google.com/identity/openid-connect/openid-connect#obtainuserinfo: `sub` is the one stable key.
    """
    of = next(iter(tokens.values()))
    if of.id_token is not None:
        said = await _id_token(http, app, of.id_token)
    elif app.nonce is not None:  # a consent was asked for one: what nothing binds to it is not looked at
        raise OddAnswer("no_id_token")
    else:
        said = await _token_info(http, of)
        if said.get("aud") != app.client_id:
            raise OddAnswer("other_client")
    subject = f"user:{key_at(said, 'sub')}"
    verified = said.get("email_verified") in (True, "true")  # tokeninfo answers in texts
    mailbox = identifier(text(said.get("email")).lower()) if verified else None
    return Identity(subject=subject, accounts=(subject, *account("email", mailbox)), reach=subject)


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """`invalid_token` says that it is gone."""
    assert OAUTH.revoke_url is not None
    response = await http.send(form(OAUTH.revoke_url, {"token": tokens.refresh_token or tokens.access_token}))
    refused = oauth.refusal(replace(OAUTH, terminal=OAUTH.terminal | {"invalid_token"}), response)
    if refused is not None and not isinstance(refused, GrantEnded):
        raise refused


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """Raises what tokeninfo says, and tells the scopes that it tells."""
    said = await _token_info(http, tokens)
    return _both_spellings(oauth.scopes_of(said.get("scope"), OAUTH.scope_separator))


def _both_spellings(scopes: frozenset[str] | None) -> frozenset[str] | None:
    """With the short names of those that are told by their long ones."""
    return None if scopes is None else scopes | {short for short, long in SPELT_OUT.items() if long in scopes}


async def _token_info(http: Http, tokens: TokenSet) -> dict[str, Any]:
    """Asked by POST, so that the token is in no URL (oauth2.v2 of Google's API discovery; in a form: not verified)."""
    response = await http.send(form(f"{OAUTH.api_base}/tokeninfo", {"access_token": tokens.access_token}))
    if response.status == 400:
        said = response.json()
        # The second comes alone, too. Any other 400 would be about the request, and would be the answer to every token.
        if said.get("error") == "invalid_token" or said.get("error_description") == "Invalid Value":
            raise GrantEnded("token_rejected", status=400)
    refused = oauth.refusal(OAUTH, response)
    if refused is not None:
        raise refused
    return response.json()


async def _id_token(http: Http, app: App, token: str) -> dict[str, Any]:
    """Its claims, checked by the published keys: those at hand, else as they are published now."""
    try:
        try:
            claims = jwt.verified(token, app.keys)
        except UnknownKey:
            assert FACTS.keys_url is not None
            claims = jwt.verified(token, await called(http, Request("GET", FACTS.keys_url)))
    except Refused as refused:
        raise OddAnswer(f"id_token_{refused.reason}") from None
    jwt.check_id_token(claims, app, ISSUERS)
    return claims


def _is_security_event(delivery: Delivery) -> bool:
    """By its content type; which one Google sends is not verified, so the look of a JWT (`{"` in base64url) does too."""
    return "authorization" not in delivery.headers and (secevent.carries(delivery) or delivery.body[:3] == b"eyJ")


def _stream(trust: Trust) -> secevent.Stream:
    issuer, more = trust.settings.get("security_event_issuer"), trust.settings.get("security_event_audiences") or ()
    return secevent.Stream(
        issuer=issuer if isinstance(issuer, str) else "https://accounts.google.com",
        audiences=frozenset(one for one in (trust.client_id, *more) if one),
        subject=SUBJECT,
        subject_issuers=ISSUERS,
    )


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
    claims = jwt.verified(token, trust.keys)
    if text(claims.get("iss")) not in ISSUERS:
        raise WrongSender("iss")
    if claims.get("aud") != audience:
        raise WrongAudience("aud")
    if claims.get("email") != sender or claims.get("email_verified") is not True:
        raise WrongSender("email")
    jwt.judge_time(claims, now)
    return Verified("oidc")


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
