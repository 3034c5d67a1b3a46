"""Very many renewals, put into the database by the statement: what a claim meets."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from gateway.database import Database
from subscriptions import store
from subscriptions.store import Claimed, Settled

CONNECTIONS = """
INSERT INTO gateway.connections (id, tenant_id, integration_id, state, created_at, updated_at)
SELECT gen_random_uuid(), $2, $1, 'active', gateway.now(), gateway.now() FROM generate_series(1, $3)"""
RENEWALS = """
INSERT INTO gateway.renewals (connection_id, integration_id, tenant_id, due_at, asked_at)
SELECT c.id, c.integration_id, c.tenant_id, clock.now + make_interval(secs => $3), clock.now
  FROM gateway.connections c CROSS JOIN (SELECT gateway.now() AS now) AS clock
 WHERE c.integration_id = $1 AND c.tenant_id = $2
    ON CONFLICT DO NOTHING"""
TURNS = """
INSERT INTO gateway.renewal_queues (integration_id, tenant_id, turn_at)
SELECT integration_id, tenant_id, min(due_at) FROM gateway.renewals WHERE (integration_id, tenant_id) = ($1, $2) GROUP BY 1, 2
    ON CONFLICT (integration_id, tenant_id) DO UPDATE SET turn_at = excluded.turn_at"""
# What `renewal_queues` promises: nobody who is due waits for a turn that is still to come.
LATE = """
SELECT count(*) FROM gateway.renewals r LEFT JOIN gateway.renewal_queues q USING (integration_id, tenant_id)
 WHERE r.due_at < 'infinity' AND (q.turn_at IS NULL OR q.turn_at > greatest(r.due_at, (SELECT gateway.now())))"""


@dataclass
class Rows:
    """Renewals of some tenants of some integrations."""

    database: Database
    most: int = 16  # of one tenant in one claim
    served: list[Claimed] = field(default_factory=list)

    async def put(self, integration: UUID, tenant: str, number: int, due_in_s: float = -1.0) -> None:
        """So many connections of a tenant, due at once unless told otherwise."""
        await self.database.execute(CONNECTIONS, integration, tenant, number)
        await self.database.execute(RENEWALS, integration, tenant, due_in_s)
        await self.database.execute(TURNS, integration, tenant)

    async def claim(self, room: int, *integrations: UUID, free: int | None = None) -> list[Claimed]:
        """One claim with room for so many of each integration."""
        rooms = dict.fromkeys(integrations, room)
        claimed = await store.take(self.database, rooms, free or room * len(rooms), most=self.most)
        self.served += claimed
        return claimed

    async def end(self, *claimed: Claimed, due_at: float = float("inf")) -> set[UUID]:
        """They are settled; whose lease was still ours."""
        done = [Settled(one.connection, one.fence, None, due_at, "look", "unused") for one in claimed]
        return await store.settle(self.database, done)

    async def shift(self, seconds: float) -> None:
        """The region's clock goes on."""
        await self.database.execute(
            "UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)", seconds
        )

    async def late_turns(self) -> int:
        """Rows whose tenant's turn comes later than they are due: there must be none."""
        return int(await self.database.fetchval(LATE))
