"""Holding and activating grants, around a cut-over: while two sides know a refresh token, one of them must not use it.

A held grant is neither refreshed nor renewed; its access token is handed out until it expires. Before moving in,
connections are imported held and activated when the other side has stopped; before moving out, they are held here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from gateway.connections import renewals, telling
from gateway.connections.telling import Because, Word
from gateway.database import Db
from gateway.regions import Region

CHUNK = 500  # connections in one transaction
WHICH = """SELECT c.id FROM gateway.connections c
            WHERE c.id > $5 AND c.state <> 'closed' AND ($1::text IS NULL OR c.tenant_id = $1) AND ($2::uuid IS NULL OR c.integration_id = $2)
              AND EXISTS (SELECT FROM gateway.grants g WHERE g.connection_id = c.id AND g.held <> $3 AND g.state <> 'closed')
            ORDER BY c.id LIMIT $4 FOR UPDATE OF c"""
SET = """UPDATE gateway.grants SET held = $2 WHERE connection_id = ANY ($1::uuid[]) AND held <> $2 AND state <> 'closed'
         RETURNING connection_id"""


@dataclass(frozen=True, slots=True)
class Counted:
    """How much was moved."""

    connections: int
    grants: int


async def put(
    region: Region, *, held: bool, tenant: str | None, integration: UUID | None, new_id: Callable[[], UUID]
) -> Counted:
    """Hold, or activate, the grants of a region that match; said on the stream for each connection.

    In transactions of their own, so a call that breaks off is made again and goes on.    Raises: Unavailable.
    """
    connections_moved = grants_moved = 0
    after = UUID(int=0)
    while True:
        async with region.database.transaction() as tx:
            found, grants = await _some(tx, held, tenant, integration, after, new_id)
        connections_moved, grants_moved = connections_moved + len(found), grants_moved + grants
        if len(found) < CHUNK:
            return Counted(connections_moved, grants_moved)
        after = found[-1]


async def _some(
    tx: Db, held: bool, tenant: str | None, integration: UUID | None, after: UUID, new_id: Callable[[], UUID]
) -> tuple[list[UUID], int]:
    found = [row["id"] for row in await tx.fetch(WHICH, tenant, integration, held, CHUNK, after)]
    if not found:
        return [], 0
    moved = await tx.fetch(SET, found, held)
    name = "held" if held else "activated"
    word = Word(Because(cause=name, source="operator"), name)
    await renewals.touch(tx, {row["connection_id"] for row in moved})
    await telling.settle(tx, {row["connection_id"]: word for row in moved}, new_id)
    return found, len(moved)
