"""HubSpot: signature v3 over method, public URL, body and time; arrays of events from many portals.

HubSpot sends v1 or v2 of its signature beside v3. They cover no time (and v1 not even the URL): whoever accepts them
as a fallback accepts a replay of anything ever sent. They are not looked at, and never stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from providers import signatures
from providers.contract import Delivery, Facts, Item, Sequence, Trust, Verified, event_name
from providers.errors import Malformed
from providers.reading import account, document, identifier, instant, text
from providers.slicing import elements

FACTS = Facts(
    name="hubspot",
    title="HubSpot",
    docs_url="https://developers.hubspot.com/docs/guides/apps/authentication/validating-requests",
    signature_headers=("x-hubspot-signature-v3", "x-hubspot-signature", "x-hubspot-signature-version"),
    identity_headers=("x-hubspot-request-timestamp",),
    timestamp_tolerance_s=300,  # HubSpot's own SDKs forget the future half of it
    signs_with="client_secrets",
    ack_deadline_s=5.0,  # up to 10 more attempts over 24 h after any 4xx, 5xx or timeout
)

# "In the request URI, decode any of the URL-encoded characters listed": these twelve and no other (same page).
ESCAPES = {
    "%3A": ":",
    "%2F": "/",
    "%3F": "?",
    "%40": "@",
    "%21": "!",
    "%24": "$",
    "%27": "'",
    "%28": "(",
    "%29": ")",
    "%2A": "*",
    "%2C": ",",
    "%3B": ";",
}
_ESCAPE = re.compile("|".join(ESCAPES), re.IGNORECASE)

# `eventId` alone is not unique. The last four are not in every event; where they are, they tell more apart.
DEDUPE = ("appId", "portalId", "subscriptionId", "eventId", "occurredAt", "objectId")
ALSO = ("subscriptionType", "propertyName", "fromObjectId", "toObjectId")


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless HubSpot signed this exact request in the last 300 s."""
    sent = signatures.raw(signatures.header(delivery, "x-hubspot-signature-v3"))
    stamp = signatures.header(delivery, "x-hubspot-request-timestamp")
    signed_at = signatures.signed_time(stamp, "ms")
    start = (delivery.method + signed_url(delivery.url)).encode("utf-8", "surrogatepass")
    secret = signatures.matching(
        trust.secrets,
        lambda secret: signatures.hmac_base64(secret, start, delivery.body, stamp.encode()),
        [sent],
    )
    signatures.within(signed_at, now, FACTS.timestamp_tolerance_s or 0)
    return Verified("v3", secret=secret, signed_at=signed_at)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """An item for each event of the array; a lone object (workflow actions send one) is one item."""
    body = delivery.body
    slices = [body] if body.lstrip()[:1] == b"{" else elements(body)
    if not slices:
        raise Malformed("an empty array says nothing")
    return [_item(data) for data in slices]


def check_secret(secret: bytes) -> str | None:
    """What is wrong with a client secret."""
    return signatures.text_secret_complaint(secret)


def signed_url(url: str) -> str:
    """`url` as HubSpot signs it: twelve escapes decoded, once."""
    return _ESCAPE.sub(lambda escape: ESCAPES[escape[0].upper()], url)


def _item(data: bytes) -> Item:
    event = document(data)
    return Item(
        event=event_name(text(event.get("subscriptionType"))),
        data=data,
        accounts=account("portal", event.get("portalId")),
        dedupe=_dedupe(event),
        occurred_at=instant(event.get("occurredAt"), per_second=1000),
    )


def _dedupe(event: Mapping[str, Any]) -> str | None:
    """What stays the same when HubSpot tries again (`attemptNumber` does not); None where no event id is given."""
    if identifier(event.get("eventId")) is None or identifier(event.get("occurredAt")) is None:
        return None
    return "/".join(identifier(event.get(name)) or "" for name in DEDUPE + ALSO)
