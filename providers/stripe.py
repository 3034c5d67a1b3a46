"""Stripe: snapshot events and thin events (`v2.core.event`), of the own account and of connected ones; Connect OAuth.

The client secret is the platform's secret key (`sk_…`), which is also what deauthorizes an account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from providers import oauth
from providers.calls import Http, api_refusal, bearer, form
from providers.contract import Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import GrantEnded, Misconfigured, SignatureMismatch
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet
from providers.oauth_calls import key_at
from providers.reading import account, at, document, identifier, instant, iso_instant, text
from providers.signals import Said, Signal, Tells, known_by
from providers.signatures import header, hmac_hex, matching, raw, signed_time, text_secret_complaint, within

FACTS = Facts(
    name="stripe",
    title="Stripe",
    docs_url="https://docs.stripe.com/webhooks",
    # https://docs.stripe.com/webhooks#verify-manually (the default tolerance of the libraries: five minutes)
    signature_headers=("stripe-signature",),
    timestamp_tolerance_s=5 * 60,
    # https://docs.stripe.com/webhooks#retries: three days by itself; resent by hand (CLI) for 30 days
    dedupe_window_s=30 * 24 * 3600,
    # As a snapshot event and as a thin one; both have `created` inside what is signed.
    signals=(
        Tells(
            event="account.application.deauthorized",
            says=("revoked",),
            knows="time",
            source="https://docs.stripe.com/api/events/types#event_types-account.application.deauthorized",
        ),
        Tells(
            event="v1.account.application.deauthorized",
            says=("revoked",),
            knows="time",
            source="https://github.com/stripe/stripe-ruby/tree/master/lib/stripe/events",
        ),
    ),
)

# https://docs.stripe.com/connect/oauth-reference; stripe/stripe-python, stripe/_oauth.py and stripe/oauth_error.py
OAUTH = OAuthFacts(
    authorize_url="https://connect.stripe.com/oauth/authorize",
    token_url="https://connect.stripe.com/oauth/token",
    revoke_url="https://connect.stripe.com/oauth/deauthorize",
    api_base="https://api.stripe.com",
    client_auth="post",
    pkce=False,
    scopes_merge=True,  # one of read_only and read_write, the wider one staying
    access_ttl_s=None,  # it does not expire; the refresh token serves to change scope or mode
    refresh_expected=False,
    rotation="none",
    configuration=frozenset(
        {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request"}
        | {"unsupported_response_type"}
    ),
    revoke_reach="account",  # the account leaves the platform
    # The access token is an API key, looked up with each call; a deauthorized one is answered `account_invalid`:
    # https://docs.stripe.com/error-codes#account-invalid
    probe_acquits=True,
)

_SIGNATURE = re.compile(r"[0-9a-f]{64}")


def check_secret(secret: bytes) -> str | None:
    """The endpoint's signing secret (`whsec_…`); the CLI's and the SDK's own fixtures have the same form."""
    if secret.startswith((b"sk_", b"rk_", b"pk_")):
        return "is an API key, not the endpoint's signing secret (whsec_…)"
    if not secret.strip().startswith(b"whsec_"):
        return "must start with whsec_"
    return text_secret_complaint(secret)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless one `v1` of the header is ours; other schemes (`v0`, test mode's) count for nothing.

    https://docs.stripe.com/webhooks#prevent-downgrade-attacks
    """
    timestamp, signatures = _parse(header(delivery, "stripe-signature"))
    signed_at = signed_time(timestamp)
    prefix = timestamp.encode() + b"."
    index = matching(trust.secrets, lambda secret: hmac_hex(secret, prefix, delivery.body), signatures)
    within(signed_at, now, FACTS.timestamp_tolerance_s or 0)
    return Verified(scheme="v1", secret=index, signed_at=signed_at)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item. Only `id`, `type` and the account are read: the rest differs by API version."""
    sent = document(delivery.body)
    name = event_name(text(sent.get("type")))
    return [
        Item(
            event=name,
            data=delivery.body,
            accounts=_accounts(sent),
            dedupe=identifier(sent.get("id")),
            occurred_at=_created(sent),
            signal=FACTS.is_signal(name),
        )
    ]


def interpret(said: Said) -> Sequence[Signal]:
    """The connected account is at the top level; `data.object` is the application.

    Events of test mode come to the URLs of production, too, where the same account may have its real grant: only a
    probe can tell whether it is meant. https://docs.stripe.com/connect/webhooks
    """
    sent = document(said.data)
    accounts = _accounts(sent)
    when = _created(sent) if sent.get("livemode") is True else None
    told = Signal(says="revoked", reason="deauthorized", accounts=accounts, knows=known_by(when), at=when)
    return [told] if accounts else []


def token_sets(answer: Mapping[str, Any], asked: Asked) -> Mapping[str, TokenSet]:
    """With `stripe_user_id`, which API calls of the platform name in `Stripe-Account`."""
    found = oauth.token_set(OAUTH, answer)
    who = identifier(answer.get("stripe_user_id"))
    return dict.fromkeys(asked.scopes, replace(found, parameters={"stripe_user_id": who} if who else {}))


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """The connected account."""
    subject = f"account:{await _account_id(http, next(iter(tokens.values())))}"
    return Identity(subject=subject, accounts=(subject,), reach=subject)


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """Disconnect the account. `invalid_client` means that it is not connected, or that our key is wrong: a probe tells.

    https://docs.stripe.com/connect/oauth-reference#post-deauthorize-errors
    """
    assert OAUTH.revoke_url is not None
    try:
        fields = {"client_id": app.client_id, "stripe_user_id": await _account_id(http, tokens)}
    except GrantEnded:
        return
    bearing = {"authorization": f"Bearer {app.client_secret}"}
    response = await http.send(form(OAUTH.revoke_url, fields, bearing, carries_client_secret=True))
    refused = oauth.refusal(OAUTH, response)
    if isinstance(refused, Misconfigured):
        try:
            await probe(http, app, tokens)
        except GrantEnded:
            return
    if refused is not None and not isinstance(refused, GrantEnded):
        raise refused


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """https://docs.stripe.com/api/accounts/retrieve, of the token's own account."""
    await _own_account(http, tokens)
    return None


async def _account_id(http: Http, tokens: TokenSet) -> str:
    return tokens.parameters.get("stripe_user_id") or key_at(await _own_account(http, tokens), "id")


async def _own_account(http: Http, tokens: TokenSet) -> dict[str, Any]:
    request = bearer("GET", f"{OAUTH.api_base}/v1/account", tokens.access_token)
    response = await http.send(request)
    # "Application access may have been revoked", https://docs.stripe.com/error-codes#account-invalid
    if response.status == 403 and at(response.json(), "error", "code") == "account_invalid":
        raise GrantEnded("token_rejected", status=403)
    refused = api_refusal(response)
    if refused is not None:
        raise refused
    return response.json()


def _parse(value: str) -> tuple[str, list[bytes]]:
    """The timestamp, and the `v1` signatures that have the right form."""
    times: list[str] = []
    signatures: list[bytes] = []
    for part in value.split(","):
        scheme, _, rest = part.partition("=")
        if scheme == "t":
            times.append(rest)
        elif scheme == "v1" and _SIGNATURE.fullmatch(rest):
            signatures.append(raw(rest))
    if len(times) != 1 or not signatures:
        raise SignatureMismatch("header is not of the form t=…,v1=…")
    return times[0], signatures


def _created(sent: dict[str, Any]) -> datetime | None:
    """A number in snapshot events, a text in thin ones."""
    return instant(sent.get("created")) or iso_instant(sent.get("created"))


def _accounts(sent: dict[str, Any]) -> tuple[str, ...]:
    """The connected account, at the top level; `data.object` of a deauthorization is the application instead.

    A thin event names it in `context`, the last step of a path such as `org_1/acct_2`.
    https://docs.stripe.com/connect/webhooks, https://docs.stripe.com/context
    """
    if sent.get("object") == "v2.core.event":
        return account("account", text(sent.get("context")).rpartition("/")[2])
    return account("account", sent.get("account"))
