"""Events as platform code sees them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """A CloudEvent 1.0. Of a delivery, `data` is exactly what the provider sent; its repr does not show it."""

    id: str
    type: str
    source: str
    time: datetime
    datacontenttype: str
    data: bytes = field(repr=False)
    subject: str | None = None  # the connection, where it concerns exactly one
    integration: str | None = None  # its name, while it exists

    def json(self) -> Any:
        """`data` as JSON.    Raises: ValueError, it is something else."""
        return json.loads(self.data)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event with its place in the stream."""

    cursor: str
    partitions: tuple[int, ...]
    connections: tuple[str, ...]
    tenants: tuple[str, ...]
    event: CloudEvent
    # Headers, verification, digests of a delivery; None for events of the gateway's own.
    delivery: Mapping[str, Any] | None = field(default=None, repr=False)


def entry(sent: Mapping[str, Any]) -> Entry:
    """An entry as the API has it."""
    event = sent["event"]
    encoded = event.get("data_base64")
    return Entry(
        cursor=sent["cursor"],
        partitions=tuple(sent["partitions"]),
        connections=tuple(sent["connections"]),
        tenants=tuple(sent["tenants"]),
        event=CloudEvent(
            id=event["id"],
            type=event["type"],
            source=event["source"],
            time=datetime.fromisoformat(event["time"]),
            datacontenttype=event["datacontenttype"],
            data=json.dumps(event.get("data")).encode() if encoded is None else base64.b64decode(encoded),
            subject=event.get("subject"),
            integration=event.get("integration"),
        ),
        delivery=sent["delivery"],
    )
