"""Refresh tokens in other hands: what shows that somebody else has one, and `posthouse.security.refresh_token_reuse`.

What was seen is written to the row of the token set whose refresh token it is (`gateway.rotations`), so it is said once. A
row says no word of what may have been our own doing: an answer about it went missing (its token was spent, by us), or the
database was put back since (a later one may have replaced it). The caller appends the event, last in its transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from gateway import ids, metrics
from gateway.connections.rotations import Reuse, Source
from gateway.connections.store import Connection
from gateway.database import Db
from gateway.stream.append import NewEvent

EVENT = "posthouse.security.refresh_token_reuse"
EVENT_WINDOW_S = 3600

# Of a consent's or an import's token it is not known who else has always had it; what the provider says itself is believed.
SEEN = """
UPDATE gateway.rotations r SET reuse = $4, reuse_at = gateway.now() FROM gateway.epoch e
 WHERE r.connection_id = $1 AND r.access_profile = $2 AND r.token_version = $3 AND r.reuse IS NULL
   AND ($4 = 'superseded_import' OR NOT r.unanswered AND r.epoch = e.epoch)
   AND ($4 <> 'refused_current' OR r.source IN ('refresh', 'spool'))
RETURNING r.connection_id, r.access_profile, r.generation, r.token_version, r.at, r.source, r.reuse AS kind, r.reuse_at"""
UNANSWERED = """UPDATE gateway.rotations SET unanswered = true
                 WHERE connection_id = $1 AND access_profile = $2 AND token_version = $3 AND NOT unanswered"""


@dataclass(frozen=True, slots=True)
class Seen:
    """It was seen now, for the first time."""

    connection_id: UUID
    access_profile: str
    generation: int
    token_version: int
    at: datetime  # when the token came
    source: Source
    kind: Reuse
    reuse_at: datetime


async def seen(tx: Db, connection: UUID, access_profile: str, token_version: int, kind: Reuse) -> Seen | None:
    """Somebody else showed to have the refresh token of that token set; None: that was said, or is not known to be so."""
    row = await tx.fetchrow(SEEN, connection, access_profile, token_version, kind)
    if row is None:
        return None
    metrics.REUSE.labels(kind).inc()
    return Seen(**dict(row))


async def unanswered(tx: Db, connection: UUID, access_profile: str, token_version: int) -> None:
    """Its refresh token was spent, and no answer came: what is refused from now on may be so by our own doing."""
    await tx.execute(UNANSWERED, connection, access_profile, token_version)


def event(connection: Connection, seen: Seen, id: UUID, *, code: str | None = None) -> NewEvent:
    """What the stream says of it. `code`: the provider's own, where it is a plain word. No token, no hash of one."""
    said = {
        "kind": seen.kind,
        "connection": ids.show(ids.CONNECTION, connection.id),
        "tenant": connection.tenant_id,
        "external_id": connection.external_id,
        "end_user_id": connection.end_user_id,
        "labels": dict(connection.labels),
        "access_profile": seen.access_profile,
        "generation": seen.generation,
        "token_version": seen.token_version,
        "issued_at": seen.at,
        "source": seen.source,
        "code": code,
        "action": "reconnect",
    }
    return NewEvent(
        id=id, key=id, window_s=EVENT_WINDOW_S, type=EVENT, time=seen.reuse_at, integration=connection.integration_id,
        connection=connection.id, accounts=(), drop_unmatched=False, signal=False, content_type="application/json",
        delivery=None, data=orjson.dumps(said, option=orjson.OPT_UTC_Z),
    )  # fmt: skip
