"""Checks that are asked for, one row a grant: SQL beside the function that runs it; the caller owns the transaction.

Weak evidence asks for a check before anything is said to a user; a contested signal for one before anything moves. Who asks
again finds the row that is there: the graver reason stays, a check that is due sooner is due sooner. `checking/` runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.connections.machine import Signal
from gateway.database import Db

# From the weakest: something hinted at it; an API refused its access token; the token endpoint refused to refresh it; a
# verified signal of unknown generation.
Why = Literal["hint", "rejected", "refused", "contested"]
WHYS: tuple[Why, ...] = ("hint", "rejected", "refused", "contested")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A check of one grant. The fields are the columns; `due_in_s` from now."""

    connection_id: UUID
    access_profile: str
    provider: str  # whose condition counts
    why: Why
    signal: Signal | None = None  # of a contested one: applied if it turns out true, with the three that follow
    reason: str | None = None
    evidence: UUID | None = None
    occurred_at: datetime | None = None
    due_in_s: float = 0.0
    waits: bool = False  # for the provider to be well


# What an event of the log says anew is asked anew: an answer that is under way is to an older question, and its lease is over.
# `revoked` is graver than any other contested signal, which then only has it asked anew. Rows in order: a release locks them so.
PUT = """
INSERT INTO gateway.grant_checks AS k (connection_id, access_profile, provider, why, signal, reason, evidence, occurred_at,
                                       asked_at, due_at, waits)
SELECT i.connection_id, i.access_profile, i.provider, i.why, i.signal, i.reason, i.evidence, i.occurred_at, gateway.now(),
       gateway.now() + make_interval(secs => i.due_in_s), i.waits
  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::timestamptz[],
              $9::float8[], $10::bool[])
         AS i(connection_id, access_profile, provider, why, signal, reason, evidence, occurred_at, due_in_s, waits)
 ORDER BY i.connection_id, i.access_profile
    ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (provider, why, signal, reason, evidence, occurred_at, asked_at, due_at, waits, lease_until, tries, fence)
     = (SELECT excluded.provider, excluded.why, s.signal, s.reason, s.evidence, s.occurred_at, excluded.asked_at,
               excluded.due_at, excluded.waits, '-infinity'::timestamptz, 0, nextval('gateway.fences')
          FROM (SELECT 1 AS place, k.signal, k.reason, k.evidence, k.occurred_at
                 WHERE (k.why, k.signal) = ('contested', 'revoked') AND excluded.signal IS DISTINCT FROM 'revoked'
                 UNION ALL
                SELECT 2, excluded.signal, excluded.reason, excluded.evidence, excluded.occurred_at
                 ORDER BY place LIMIT 1) AS s)
 WHERE array_position($11::text[], excluded.why) > array_position($11::text[], k.why)
    OR excluded.why = k.why
       AND (excluded.why = 'contested' OR excluded.waits AND NOT k.waits
            OR NOT k.waits AND (excluded.due_at < k.due_at
                                OR excluded.evidence IS NOT NULL AND excluded.evidence IS DISTINCT FROM k.evidence))"""
DROP = """DELETE FROM gateway.grant_checks k USING unnest($1::uuid[], $2::text[]) AS d(connection_id, access_profile)
           WHERE (k.connection_id, k.access_profile) = (d.connection_id, d.access_profile)"""
# Spread by chance that is the connection's own, so that a provider that is well again is not run over.
RELEASE = """UPDATE gateway.grant_checks
                SET waits = false, due_at = gateway.now() + (get_byte(uuid_send(connection_id), 14) / 256.0) * make_interval(secs => $2)
              WHERE (connection_id, access_profile) IN (
                SELECT connection_id, access_profile FROM gateway.grant_checks WHERE provider = $1 AND waits
                 ORDER BY connection_id, access_profile FOR UPDATE) AND waits"""


async def ask(tx: Db, asked: Sequence[Ask]) -> None:
    """Have grants checked; each is named once."""
    if asked:
        columns = [[getattr(one, field.name) for one in asked] for field in fields(Ask)]
        await tx.execute(PUT, *columns, list(WHYS))


async def drop(tx: Db, grants: Sequence[tuple[UUID, str]]) -> None:
    """What was in doubt is decided, or is no more."""
    if grants:
        await tx.execute(DROP, [connection for connection, _ in grants], [profile for _, profile in grants])


async def release(tx: Db, provider: str, spread_s: float) -> None:
    """The provider is well: whatever waited for that is due within `spread_s`."""
    await tx.execute(RELEASE, provider, spread_s)
