"""Stripe: snapshot events and thin events (`v2.core.event`), of the own account and of connected ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from providers.contract import Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import SignatureMismatch
from providers.reading import account, document, identifier, instant, iso_instant, text
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
    # https://docs.stripe.com/api/events/types#event_types-account.application.deauthorized
    signals=("account.application.deauthorized",),
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
            occurred_at=instant(sent.get("created")) or iso_instant(sent.get("created")),
            signal=name in FACTS.signals,
        )
    ]


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


def _accounts(sent: dict[str, Any]) -> tuple[str, ...]:
    """The connected account, at the top level; `data.object` of a deauthorization is the application instead.

    A thin event names it in `context`, the last step of a path such as `org_1/acct_2`.
    https://docs.stripe.com/connect/webhooks, https://docs.stripe.com/context
    """
    if sent.get("object") == "v2.core.event":
        return account("account", text(sent.get("context")).rpartition("/")[2])
    return account("account", sent.get("account"))
