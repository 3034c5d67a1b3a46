"""What the stream says of ways that are shut: of no connection, for whoever sees them all. A rate limit is everyday, and not said.

Said as the last statement of the transaction that writes or deletes the row, so once.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from gateway import ids
from gateway.breakers.store import Open
from gateway.database import Db
from gateway.stream.append import NewEvent, append

EVENT_WINDOW_S = 3600


async def opened(tx: Db, one: Open, event_id: UUID, integration: str | None) -> None:
    """`integration`: the name of an incident's."""
    await _say(tx, one, "opened", one.since, event_id, integration, {})


async def closed(tx: Db, one: Open, at: datetime, event_id: UUID, integration: str | None) -> None:
    """`one`: as it was last."""
    await _say(tx, one, "closed", at, event_id, integration, {"failures": one.failures})


async def _say(
    tx: Db, one: Open, name: str, at: datetime, event_id: UUID, integration: str | None, more: dict[str, Any]
) -> None:
    if one.why == "limited":
        return
    about, of = f"provider.breaker_{name}", {}
    if one.integration_id is not None:
        about = f"integration.incident_{name}"
        of = {"integration": integration, "integration_id": ids.show(ids.INTEGRATION, one.integration_id)}
    said = {
        **of, "provider": one.provider, "kind": one.kind, "host": one.host, "why": one.why, "code": one.code,
        "since": one.since, **more,
    }  # fmt: skip
    event = NewEvent(
        id=event_id, key=event_id, window_s=EVENT_WINDOW_S, type=f"posthouse.{about}", time=at, integration=None,
        connection=None, accounts=(), drop_unmatched=False, signal=False, content_type="application/json", delivery=None,
        data=orjson.dumps(said, option=orjson.OPT_UTC_Z),
    )  # fmt: skip
    await append(tx, [event])
