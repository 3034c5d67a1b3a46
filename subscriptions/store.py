"""The scheduler's rows: claimed, read, settled. SQL beside the function that runs it.

Two tables. `renewals` says what of a connection is due when; `renewal_queues` whose turn it is, one row for each tenant of
each integration. A claim takes tenants in the order of their turns, a few rows of each, and sends whoever was served to the
end of the queue. What it costs depends on what it takes, never on how much there is.

A claim is two statements. The first locks the turns; the second sees, with a younger snapshot, everything that was
committed before they were locked, so the turn that it gives a tenant is never later than what falls due there. Whoever
writes rows of a tenant afterwards (`connections.renewals.touch`, `settle`, `gateway.traffic`) locks the turn after them, and
puts it back where it is too late.

Order of locks: rows of `renewals` by their ids, then turns by theirs. A claim goes the other way round, and waits for nobody.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.database import Database, Db
from subscriptions.shares import Turn, quotas, shares

LEASE_S = 120.0  # a few calls, each with a deadline of its own; then the rows of a process that is gone come again
ASKED = "asked"  # the reason of what somebody wants renewed now
LOCKED_S = 1.0  # what somebody else is writing to just now is looked at again so soon
MOST_OF_TENANT = 32  # rows of one tenant in one claim
MOST_SEEN = 4096  # rows that one claim may look at: keeps the planner from thinking of all of them


@dataclass(frozen=True, slots=True)
class Claimed:
    """A connection whose turn it is, and ours until the lease ends."""

    connection: UUID
    integration: UUID
    tenant: str
    fence: int
    reason: str  # that it was planned for
    tries: int
    planned_at: (
        float | None
    )  # the moment, in seconds since 1970, that was chosen for a renewal; None: it is only looked at


@dataclass(frozen=True, slots=True)
class Settled:
    """What is next for a claimed connection. `due_at`: seconds since 1970, infinity: nothing until something changes."""

    connection: UUID
    fence: int
    asked_at: datetime | None  # as it was when the plan was made; None: whatever it is (no plan was made)
    due_at: float
    act: str
    reason: str
    tries: int = 0
    last_error: str | None = None


NEXT = """SELECT a.integration_id, extract(epoch FROM least(q.turn_at, clock.now + interval '1 day') - clock.now)::float8 AS in_s
            FROM unnest($1::uuid[]) AS a(integration_id) CROSS JOIN (SELECT gateway.now() AS now) AS clock
            CROSS JOIN LATERAL (SELECT turn_at FROM gateway.renewal_queues WHERE integration_id = a.integration_id
                                 ORDER BY turn_at LIMIT 1) AS q"""


async def next_turns(db: Db, integrations: Collection[UUID]) -> dict[UUID, float]:
    """In how many seconds the first turn of each of these comes; negative: since when somebody waits. None: left out."""
    return {row["integration_id"]: row["in_s"] for row in await db.fetch(NEXT, list(integrations))}


# (SELECT gateway.now()): asked once, not for each row.
TURNS = """SELECT q.integration_id, q.tenant_id
             FROM unnest($1::uuid[], $2::integer[]) AS a(integration_id, most)
             CROSS JOIN LATERAL (
               SELECT integration_id, tenant_id FROM gateway.renewal_queues
                WHERE integration_id = a.integration_id AND turn_at <= (SELECT gateway.now())
                ORDER BY turn_at LIMIT a.most FOR UPDATE SKIP LOCKED) AS q"""


async def turns(tx: Db, most: Mapping[UUID, int]) -> list[Turn]:
    """The tenants whose turn it is, the longest waiting first: so many of each integration. They are locked."""
    rows = await tx.fetch(TURNS, list(most), list(most.values()))
    return [(row["integration_id"], row["tenant_id"]) for row in rows]


# One row more than a tenant's share is looked at: it says when the tenant's next turn is. A row that is locked by somebody
# else is left to them, and looked at again: they may not commit.
CLAIM = f"""
WITH clock AS MATERIALIZED (SELECT gateway.now() AS now),
turns AS MATERIALIZED (SELECT * FROM unnest($1::uuid[], $2::text[], $3::integer[]) AS t(integration_id, tenant_id, share)),
seen AS MATERIALIZED (
  SELECT t.integration_id, t.tenant_id, r.connection_id, r.due_at, r.due_at <= (SELECT now FROM clock)
         AND row_number() OVER (PARTITION BY t.integration_id, t.tenant_id ORDER BY r.due_at) <= t.share AS wanted
    FROM turns t CROSS JOIN LATERAL (
      SELECT connection_id, due_at FROM gateway.renewals
       WHERE integration_id = t.integration_id AND tenant_id = t.tenant_id AND due_at < 'infinity'
       ORDER BY due_at LIMIT t.share + 1) AS r
   LIMIT {MOST_SEEN}),
picked AS MATERIALIZED (
  SELECT r.connection_id, s.due_at FROM seen s JOIN gateway.renewals r USING (connection_id)
   WHERE s.wanted AND r.due_at <= (SELECT now FROM clock) FOR UPDATE OF r SKIP LOCKED),
taken AS (
  UPDATE gateway.renewals r SET fence = nextval('gateway.fences'), lease_until = clock.now + make_interval(secs => $4),
         due_at = clock.now + make_interval(secs => $4)
    FROM picked p CROSS JOIN clock WHERE r.connection_id = p.connection_id
  RETURNING r.connection_id, r.integration_id, r.tenant_id, r.fence, r.reason, r.tries,
            CASE WHEN r.act = 'renew' THEN extract(epoch FROM p.due_at)::float8 END AS planned_at),
turned AS (
  UPDATE gateway.renewal_queues q SET turn_at = n.turn_at
    FROM (SELECT t.integration_id, t.tenant_id, min(CASE
                   WHEN s.connection_id IS NULL THEN 'infinity'
                   WHEN NOT s.wanted THEN greatest(s.due_at, clock.now)
                   WHEN p.connection_id IS NULL THEN clock.now + make_interval(secs => $5)
                   ELSE clock.now + make_interval(secs => $4) END) AS turn_at
            FROM turns t CROSS JOIN clock LEFT JOIN seen s USING (integration_id, tenant_id)
            LEFT JOIN picked p ON p.connection_id = s.connection_id GROUP BY 1, 2) AS n
   WHERE (q.integration_id, q.tenant_id) = (n.integration_id, n.tenant_id))
SELECT * FROM taken"""  # noqa: S608 - a constant


async def take(
    database: Database, rooms: Mapping[UUID, int], free: int, *, most: int = MOST_OF_TENANT, lease_s: float = LEASE_S
) -> list[Claimed]:  # fmt: skip
    """Claim what is due: so many of each integration (those that stand first go first), `free` in all.

    `most` of one tenant. What one integration leaves over is the others' with the next claim."""
    wanted = {integration: quota for integration, quota in quotas(rooms, free).items() if quota > 0}
    async with database.transaction() as tx:
        whose = await turns(tx, wanted)
        return await claim(tx, shares(whose, wanted, free, most), lease_s) if whose else []


async def claim(tx: Db, served: Mapping[Turn, int], lease_s: float = LEASE_S) -> list[Claimed]:
    """What is due of tenants whose turns are locked, as many rows of each as are its share."""
    names = list(served)
    rows = await tx.fetch(
        CLAIM, [name[0] for name in names], [name[1] for name in names], list(served.values()), lease_s, LOCKED_S
    )  # fmt: skip
    return [Claimed(*row) for row in rows]


# What was asked for since the plan was made is looked at now.
SETTLE = """
WITH clock AS MATERIALIZED (SELECT gateway.now() AS now),
done AS MATERIALIZED (
  SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::float8[], $5::text[], $6::text[], $7::integer[], $8::text[])
           AS d(connection_id, fence, asked_at, due_at, act, reason, tries, last_error)),
held AS MATERIALIZED (
  SELECT r.connection_id FROM done d JOIN gateway.renewals r USING (connection_id) WHERE r.fence = d.fence
   ORDER BY r.connection_id FOR UPDATE OF r),
put AS (
  UPDATE gateway.renewals r
     SET due_at = CASE WHEN r.asked_at <> d.asked_at THEN clock.now ELSE greatest(to_timestamp(d.due_at), clock.now) END,
         act = CASE WHEN r.asked_at <> d.asked_at THEN r.act ELSE d.act END,
         reason = CASE WHEN r.asked_at <> d.asked_at THEN r.reason ELSE d.reason END,
         tries = d.tries, last_error = d.last_error, lease_until = '-infinity'
    FROM held h JOIN done d USING (connection_id) CROSS JOIN clock
   WHERE r.connection_id = h.connection_id AND r.fence = d.fence
  RETURNING r.connection_id, r.integration_id, r.tenant_id, r.due_at),
turned AS (
  INSERT INTO gateway.renewal_queues AS q (integration_id, tenant_id, turn_at)
  SELECT integration_id, tenant_id, min(due_at) FROM put GROUP BY 1, 2 ORDER BY 1, 2
      ON CONFLICT (integration_id, tenant_id) DO UPDATE SET turn_at = excluded.turn_at WHERE q.turn_at > excluded.turn_at)
SELECT connection_id FROM put"""


async def settle(db: Db, settled: Sequence[Settled]) -> set[UUID]:
    """Write what is next; of which connections. Whose lease another one has taken over by now keeps what that one writes."""
    rows = await db.fetch(
        SETTLE, [s.connection for s in settled], [s.fence for s in settled], [s.asked_at for s in settled],
        [s.due_at for s in settled], [s.act for s in settled], [s.reason for s in settled],
        [s.tries for s in settled], [s.last_error for s in settled],
    )  # fmt: skip
    return {row["connection_id"] for row in rows}


ASK = """
WITH put AS (
  UPDATE gateway.renewals r SET due_at = greatest(clock.now, r.lease_until), act = 'renew', reason = $2, asked_at = clock.now
    FROM (SELECT gateway.now() AS now) AS clock WHERE r.connection_id = $1 RETURNING r.integration_id, r.tenant_id, r.due_at),
turned AS (
  INSERT INTO gateway.renewal_queues AS q (integration_id, tenant_id, turn_at) SELECT * FROM put
      ON CONFLICT (integration_id, tenant_id) DO UPDATE SET turn_at = excluded.turn_at WHERE q.turn_at > excluded.turn_at)
SELECT true FROM put"""


async def ask(db: Db, connection: UUID) -> bool:
    """Have a connection renewed now, whatever its plan; False: there is nothing of it to renew."""
    return bool(await db.fetchval(ASK, connection, ASKED))


@dataclass(frozen=True, slots=True)
class Row:
    """How a connection's renewal stands, for whoever looks."""

    due_at: datetime | None  # None: nothing to do until something changes
    act: str
    reason: str
    tries: int
    last_error: str | None
    used_at: datetime | None
    leased: bool  # somebody is at it


ROW = """SELECT CASE WHEN due_at < 'infinity' THEN due_at END AS due_at, act, reason, tries, last_error, used_at,
                lease_until > gateway.now() AS leased FROM gateway.renewals WHERE connection_id = $1"""


async def row(db: Db, connection: UUID) -> Row | None:
    """None: nothing of it was ever planned, or it is closed."""
    found = await db.fetchrow(ROW, connection)
    return None if found is None else Row(**dict(found))


@dataclass(frozen=True, slots=True)
class Extra:
    """What the plan of a grant needs beside the grant itself. Times in seconds since 1970."""

    now: float
    asked_at: datetime
    used_at: float | None  # of the connection
    data_key_version: int | None
    again_at: float | None
    last_error: str | None  # of its last refresh


EXTRAS = """SELECT g.connection_id, g.access_profile, extract(epoch FROM clock.now)::float8 AS now, r.asked_at,
                   extract(epoch FROM r.used_at)::float8 AS used_at, t.data_key_version,
                   CASE WHEN f.again_at > clock.now THEN extract(epoch FROM f.again_at)::float8 END AS again_at, f.last_error
              FROM gateway.renewals r JOIN gateway.grants g USING (connection_id)
              CROSS JOIN (SELECT gateway.now() AS now) AS clock
              LEFT JOIN gateway.tokens t USING (connection_id, access_profile)
              LEFT JOIN gateway.refreshes f USING (connection_id, access_profile)
             WHERE r.connection_id = ANY ($1::uuid[])"""


async def extras(db: Db, connections: Collection[UUID]) -> dict[tuple[UUID, str], Extra]:
    """By connection and access profile. Ask before you read the grants: what changes meanwhile is noticed then."""
    found: dict[tuple[UUID, str], Extra] = {}
    for row in await db.fetch(EXTRAS, list(connections)):
        connection, profile, *more = row
        found[connection, profile] = Extra(*more)
    return found


NOW = "SELECT extract(epoch FROM gateway.now())::float8"


async def now(db: Db) -> float:
    """The region's clock, in seconds since 1970."""
    found: float = await db.fetchval(NOW)
    return found


OUTLOOK = """SELECT integration_id, act, floor(extract(epoch FROM due_at - clock.now) / $2)::integer AS slot, count(*) AS renewals
               FROM gateway.renewals CROSS JOIN (SELECT gateway.now() AS now) AS clock
              WHERE due_at < clock.now + make_interval(secs => $1) GROUP BY 1, 2, 3"""


async def outlook(db: Db, ahead_s: float, slot_s: float) -> Sequence[Any]:
    """How many fall due in each slot from now on, by integration and act. It reads the whole table."""
    return await db.fetch(OUTLOOK, ahead_s, slot_s)


def finite(at: float) -> float | None:
    """None for a time that does not come."""
    return None if math.isinf(at) else at
