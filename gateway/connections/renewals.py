"""The renewal unit of a connection, as far as the gateway knows of it: something changed, so it is to be looked at again.

The `subscriptions` package plans and runs it. Nothing calls up to it: a row that is due is all it needs.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from gateway.database import Db

# With new tokens: at half of their life, when it is known whether anybody uses them; else soon. A lease is respected: whoever
# holds it sees `asked_at`, and looks again. Rows in order, like everybody's; the queues after them.
TOUCH = """
WITH asked AS (
  SELECT c.id, c.integration_id, c.tenant_id, clock.now,
         coalesce((SELECT min(CASE WHEN t.issued_at >= clock.now - interval '5 seconds' THEN clock.now + (t.expires_at - clock.now) / 2 ELSE clock.now END)
                     FROM gateway.tokens t WHERE t.connection_id = c.id AND t.expires_at IS NOT NULL), clock.now) AS due_at
    FROM gateway.connections c CROSS JOIN (SELECT gateway.now() AS now) AS clock
   WHERE c.id = ANY ($1::uuid[]) AND c.state <> 'closed' ORDER BY c.id),
put AS (
  INSERT INTO gateway.renewals AS r (connection_id, integration_id, tenant_id, due_at, asked_at)
  SELECT id, integration_id, tenant_id, due_at, now FROM asked
      ON CONFLICT (connection_id) DO UPDATE
     SET due_at = greatest(excluded.due_at, r.lease_until), asked_at = excluded.asked_at, act = 'look', reason = 'changed'
  RETURNING integration_id, tenant_id, due_at)
INSERT INTO gateway.renewal_queues AS q (integration_id, tenant_id, turn_at)
SELECT integration_id, tenant_id, min(due_at) FROM put GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (integration_id, tenant_id) DO UPDATE SET turn_at = excluded.turn_at WHERE q.turn_at > excluded.turn_at"""
DROP = "DELETE FROM gateway.renewals WHERE connection_id = $1"


async def touch(tx: Db, connections: Collection[UUID]) -> None:
    """Something of these connections changed. The caller has locked them."""
    if connections:
        await tx.execute(TOUCH, sorted(connections))


async def drop(tx: Db, connection: UUID) -> None:
    """It is closed: nothing of it is renewed any more."""
    await tx.execute(DROP, connection)
