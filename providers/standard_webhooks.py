"""Standard Webhooks: whoever signs by that specification (Svix and its customers, and many more), as one provider.

The sender is not known, so the integration says what only its sender can tell: where in the body the account is,
and how far clocks may differ. Svix sends the same three headers as `svix-*`; both names are taken, never mixed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from providers import standard_signatures
from providers.contract import Delivery, Facts, Item, Trust, Verified, event_name
from providers.errors import Malformed
from providers.reading import at, identifier, iso_instant, loads, media_type

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
)

_POINTER = r"^(/([^~/]|~[01])*)+$"
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+(; ?[A-Za-z0-9-]+=[\"A-Za-z0-9._-]+)*")


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
        pattern=_POINTER,
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
    accounts = _accounts(delivery.body, pointer) if pointer else ()
    return Verified(scheme=by_secret.scheme, secret=by_secret.secret, signed_at=by_secret.signed_at, accounts=accounts)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """One item: the body, whatever it is. Its `type` names the event where it is a JSON object with one."""
    document, content_type = _content(delivery)
    name = at(document, "type")
    return [
        Item(
            event=event_name(name) if isinstance(name, str) and name else "event",
            data=delivery.body,
            content_type=content_type,
            accounts=verified.accounts,
            dedupe=delivery.headers.get(f"{_prefix(delivery)}-id"),  # constant over retries; verified: it is signed
            occurred_at=iso_instant(at(document, "timestamp")),
        )
    ]


def _prefix(delivery: Delivery) -> str:
    return "svix" if "webhook-signature" not in delivery.headers and "svix-signature" in delivery.headers else "webhook"


def _content(delivery: Delivery) -> tuple[Any, str]:
    """The body as JSON (None where it is not) and its content type.    Raises: Malformed, it says JSON and is not."""
    stated = delivery.headers.get("content-type", "")
    kind = media_type(stated)
    claims_json = kind == "application/json" or kind.endswith("+json")
    try:
        document = loads(delivery.body)
    except Malformed:
        if claims_json:
            raise
        document = None
    if len(stated) <= 100 and _CONTENT_TYPE.fullmatch(stated):
        return document, stated
    return document, "application/octet-stream" if document is None else "application/json"


def _accounts(body: bytes, pointer: str) -> tuple[str, ...]:
    """The account that `pointer` finds; none where it finds nothing that can be one."""
    try:
        value = loads(body)
    except Malformed:
        return ()  # items() says so, where it matters
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        value = at(value, int(step) if isinstance(value, list) and re.fullmatch("0|[1-9][0-9]{0,5}", step) else step)
    found = identifier(value)
    return (f"account:{found}",) if found else ()
