"""Standard Webhooks: whoever signs by that specification (Svix and its customers, and many more), as one provider.

The sender is not known, so the integration says what only its sender can tell: where in the body the account is,
and how far clocks may differ. Svix sends the same three headers as `svix-*`; both names are taken, never mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from providers import standard_items, standard_signatures
from providers.contract import Delivery, Facts, Item, Trust, Verified

FACTS = Facts(
    name="standard-webhooks",
    title="Standard Webhooks",
    docs_url="https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#webhook-headers-sending-metadata-to-consumers
    # https://docs.svix.com/receiving/verifying-payloads/how-manual
    signature_headers=("webhook-signature", "svix-signature"),
    identity_headers=("webhook-id", "webhook-timestamp", "svix-id", "svix-timestamp"),
    timestamp_tolerance_s=standard_signatures.TOLERANCE_S,
    # "15s to 30s" before a sender gives up, by the same specification.
    ack_deadline_s=15.0,
    one_service=False,  # a specification: each integration has a sender of its own
)


class Settings(BaseModel):
    """What an integration may say about its sender."""

    model_config = ConfigDict(extra="forbid")

    tolerance_s: int = Field(
        standard_signatures.TOLERANCE_S,
        ge=10,
        le=3600,
        description="How far a signed time may be from ours, both ways.",
    )
    account_pointer: str | None = Field(
        None,
        max_length=500,
        pattern=standard_items.POINTER,
        description="JSON pointer (RFC 6901) to the account's id in the body; the account key is `account:` and the id.",
    )


def check_secret(secret: bytes) -> str | None:
    """`whsec_` and 24 to 64 bytes in base64, or `whpk_` and 32."""
    return standard_signatures.complaint(secret)


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless one of the listed signatures is by one of the secrets, now."""
    tolerance_s = int(trust.settings.get("tolerance_s") or standard_signatures.TOLERANCE_S)
    by_secret = standard_signatures.verify(delivery, trust, now, prefix=_prefix(delivery), tolerance_s=tolerance_s)
    pointer = trust.settings.get("account_pointer")
    found = standard_items.pointed(delivery.body, pointer) if pointer else None
    accounts = (f"account:{found}",) if found else ()
    return Verified(scheme=by_secret.scheme, secret=by_secret.secret, signed_at=by_secret.signed_at, accounts=accounts)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item: the body, whatever it is."""
    return [standard_items.item(delivery, _prefix(delivery), verified.accounts)]


def _prefix(delivery: Delivery) -> str:
    return "svix" if "webhook-signature" not in delivery.headers and "svix-signature" in delivery.headers else "webhook"
