"""Items of deliveries by the Standard Webhooks specification: the body, whatever it is, under the id that was signed."""

from __future__ import annotations

import re
from typing import Any

from providers.contract import Delivery, Item, event_name
from providers.errors import Malformed
from providers.reading import at, identifier, iso_instant, loads, media_type

POINTER = r"^(/([^~/]|~[01])*)+$"  # RFC 6901
_CONTENT_TYPE = re.compile(r"[A-Za-z0-9.+-]+/[A-Za-z0-9.+-]+(; ?[A-Za-z0-9-]+=[\"A-Za-z0-9._-]+)*")


def item(delivery: Delivery, prefix: str, accounts: tuple[str, ...]) -> Item:
    """The one item of a delivery. Its `type` names the event where the body is a JSON object with one."""
    document, content_type = _content(delivery)
    name = at(document, "type")
    return Item(
        event=event_name(name) if isinstance(name, str) and name else "event",
        data=delivery.body,
        content_type=content_type,
        accounts=accounts,
        dedupe=delivery.headers.get(f"{prefix}-id"),  # constant over retries; verified: it is signed
        occurred_at=iso_instant(at(document, "timestamp")),
    )


def pointed(body: bytes, pointer: str) -> str | None:
    """The account's id that `pointer` finds in the body; None where it finds nothing that can be one."""
    try:
        value = loads(body)
    except Malformed:
        return None  # `item` says so, where it matters
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        value = at(value, int(step) if isinstance(value, list) and re.fullmatch("0|[1-9][0-9]{0,5}", step) else step)
    return identifier(value)


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
