"""How an event looks outside: a pure CloudEvent, and beside it what only a stream can say.

    {"cursor": "…", "partitions": [7], "connections": ["conn_…"], "tenants": ["acme"],
     "event": {"specversion": "1.0", "id": "evt_…", "type": "posthouse.delivery.github.push", "source": "…",
               "subject": "conn_…", "time": "…", "datacontenttype": "application/json", "data_base64": "…",
               "integration": "my-github"},
     "delivery": {"received_at": "…", "headers": {…}, "verification": {…}, "request": {"digest": …, "size": …}}}

CloudEvents attributes are flat by rule, so lists and headers stand beside the event and any CloudEvents SDK reads
`event` as it is. A delivery's bytes come as `data_base64`, exactly as they were sent; events of our own have `data`.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson

from gateway import ids
from gateway.stream.consumers import partition_of
from gateway.stream.read import Event, Filter

NameOf = Callable[[UUID], str | None]  # an integration's name, while it exists


def entry(event: Event, epoch: int, seen_by: Filter, name_of: NameOf) -> bytes:
    """`event` as JSON, naming only the connections that the reader's filter lets it see."""
    pairs = [
        (connection, tenant)
        for connection, tenant in zip(event.connections, event.tenants, strict=True)
        if (seen_by.tenant is None or tenant == seen_by.tenant)
        and (seen_by.connection is None or connection == seen_by.connection)
        and (seen_by.partitions is None or partition_of(connection) in seen_by.partitions)
    ]
    connections = [ids.show(ids.CONNECTION, connection) for connection, _ in pairs]
    return orjson.dumps(
        {
            "cursor": str(event.cursor(epoch)),
            "partitions": event.partitions
            if seen_by.partitions is None
            else [p for p in event.partitions if p in seen_by.partitions],
            "connections": connections,
            "tenants": sorted({tenant for _, tenant in pairs}),
            "event": _cloud_event(event, connections, name_of),
            "delivery": None if event.delivery is None else orjson.Fragment(event.delivery),
        },
        option=orjson.OPT_UTC_Z,
    )


def _cloud_event(event: Event, connections: list[str], name_of: NameOf) -> dict[str, Any]:
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": ids.show(ids.EVENT, event.id),
        "type": event.type,
        "source": "/posthouse",
        "time": event.time,
        "datacontenttype": event.content_type,
    }
    if event.integration is not None:
        body["source"] = "/integrations/" + ids.show(ids.INTEGRATION, event.integration)
        if (name := name_of(event.integration)) is not None:
            body["integration"] = name
    if len(connections) == 1:
        body["subject"] = connections[0]
    if event.delivery is None:
        body["data"] = orjson.Fragment(event.data)
    else:
        body["data_base64"] = base64.b64encode(event.data).decode("ascii")
    return body
