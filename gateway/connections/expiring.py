"""Telling in time that only a reconnect will keep a grant: `posthouse.connection.expiring_soon`.

What runs out is the refresh token, or the access token where nothing refreshes it. Told once for a grant and an end: a new
consent, or an end that has moved on by more than a day, is told anew. An end that a refresh may put off is told no sooner than
in the second half of the life that is left, or short lives that slide on would be told of at each refresh.

Several processes share the work: whoever locks a connection tells, and the others pass it by. That it was told already is
asked again under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from gateway.connections import grants, store, telling
from gateway.connections.grants import Grant
from gateway.connections.store import Connection
from gateway.database import Database, Db
from gateway.stream.append import NewEvent, append

EVERY_S = 300.0
BATCH = 100  # connections in one transaction
NAME = "expiring_soon"

What = Literal["refresh_token", "access_token"]

# The migration's index is over this expression. Tokens that are minted anew do not run out.
END = "(CASE WHEN t.has_refresh THEN t.refresh_expires_at ELSE t.expires_at END)"
DUE = f"""g.kind = 'code' AND g.state IN ('active', 'suspect') AND {END} > (SELECT gateway.now())
      AND {END} <= (SELECT gateway.now()) + least(make_interval(days => $2), ({END} - t.issued_at) / 2)
      AND (g.expiring_told_until IS NULL OR {END} > g.expiring_told_until + interval '1 day')"""
WHICH = f"""SELECT c.id FROM gateway.connections c
             WHERE c.state <> 'closed'
               AND c.id IN (SELECT g.connection_id FROM gateway.grants g JOIN gateway.tokens t USING (connection_id, access_profile)
                             WHERE {END} IS NOT NULL AND {END} <= (SELECT gateway.now()) + make_interval(days => $2) AND {DUE})
             ORDER BY c.id LIMIT $1 FOR UPDATE OF c SKIP LOCKED"""  # noqa: S608 - constants
TELL = f"""UPDATE gateway.grants g SET expiring_told_until = {END} FROM gateway.tokens t
            WHERE (t.connection_id, t.access_profile) = (g.connection_id, g.access_profile)
              AND g.connection_id = ANY ($1::uuid[]) AND {DUE}
          RETURNING g.connection_id, g.access_profile, {END} AS ends_at, t.has_refresh, gateway.now() AS told_at"""  # noqa: S608 - likewise


@dataclass(frozen=True, slots=True)
class Ending:
    """What of a grant runs out, and when."""

    access_profile: str
    what: What
    at: datetime


class Expiring:
    """Of one region."""

    def __init__(self, database: Database, days: int, new_id: Callable[[], UUID]) -> None:
        self._database, self._days, self._new_id = database, days, new_id

    async def run_once(self) -> int:
        """Tell of everything that is due; of how many connections.    Raises: Unavailable."""
        told = 0
        while True:
            async with self._database.transaction() as tx:
                which = [row["id"] for row in await tx.fetch(WHICH, BATCH, self._days)]
                told += await self.tell(tx, which) if which else 0
            if len(which) < BATCH:
                return told

    async def tell(self, tx: Db, which: Sequence[UUID]) -> int:
        """Tell of these connections, which the caller has locked, as far as they are still due; of how many."""
        endings: dict[UUID, list[Ending]] = {}
        now = None
        for row in await tx.fetch(TELL, which, self._days):
            what: What = "refresh_token" if row["has_refresh"] else "access_token"
            endings.setdefault(row["connection_id"], []).append(Ending(row["access_profile"], what, row["ends_at"]))
            now = row["told_at"]
        if now is None:
            return 0
        held = {(one.connection_id, one.access_profile): one for one in await grants.of(tx, endings)}
        connections = await store.of(tx, endings)
        await append(tx, [_event(one, endings[one.id], held, self._new_id(), now) for one in connections])
        return len(connections)


def _event(
    connection: Connection, endings: Sequence[Ending], held: dict[grants.Name, Grant], id: UUID, now: datetime
) -> NewEvent:
    """The soonest end stands in front; each grant that is meant has its own."""
    first = min(endings, key=lambda ending: ending.at)
    said: dict[str, Any] = {
        "action": "reconnect",
        "reason": connection.reason,
        "expires_at": first.at,
        "expires": first.what,
        "access_profiles": {
            one.access_profile: {
                **telling.told(held[connection.id, one.access_profile]), "expires_at": one.at, "expires": one.what,
            }
            for one in endings
        },
    }  # fmt: skip
    return replace(telling.event(connection, NAME, id, said), time=now)
