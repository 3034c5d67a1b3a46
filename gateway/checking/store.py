"""Checks that are due: claimed, put off, done. SQL beside the function that runs it.

A check has a lease with a fence: it is single-flight over all processes, and what a slow holder found out after somebody
asked anew (`connections.checks.ask` moves the fence on) decides nothing. Leases are judged by the database's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.connections.checks import Why
from gateway.connections.guard import LIMITS, Limits
from gateway.connections.machine import Signal
from gateway.database import Db

LEASE_S = 60  # a check is a call or two, each with a deadline of its own

COLUMNS = """k.connection_id, k.access_profile, k.provider, k.why, k.signal, k.reason, k.evidence, k.occurred_at, k.tries, k.fence,
             k.waits"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claimed check."""

    connection_id: UUID
    access_profile: str
    provider: str
    why: Why
    signal: Signal | None
    reason: str | None
    evidence: UUID | None
    occurred_at: datetime | None
    tries: int
    fence: int
    waits: bool  # a canary: the provider is unwell

    @property
    def name(self) -> tuple[UUID, str]:
        return self.connection_id, self.access_profile


TAKE = f"""UPDATE gateway.grant_checks k SET lease_until = gateway.now() + make_interval(secs => {LEASE_S}), fence = nextval('gateway.fences'),
                  tries = k.tries + 1"""  # noqa: S608 - a constant
ONE = f"""{TAKE} WHERE k.lease_until <= gateway.now() AND k.connection_id = $1 AND k.access_profile = $2 AND NOT k.waits
             AND k.due_at <= gateway.now() RETURNING {COLUMNS}"""
# Picked first, and once: as a condition of the update the choice may be made anew for each row, and takes more than its limit.
PICKED = f"""{TAKE} FROM picked p WHERE (k.connection_id, k.access_profile) = (p.connection_id, p.access_profile)
             AND k.lease_until <= gateway.now() RETURNING {COLUMNS}"""
# (SELECT gateway.now()): asked once, not for each row, so that what is due later costs nothing.
# FOR UPDATE SKIP LOCKED: whoever changes the connection holds the row, and will say what comes of it.
DUE = f"""WITH picked AS MATERIALIZED (
            SELECT d.connection_id, d.access_profile FROM gateway.grant_checks d
             WHERE NOT d.waits AND d.due_at <= (SELECT gateway.now()) AND d.lease_until <= (SELECT gateway.now())
               AND d.provider <> ALL ($2::text[])
             ORDER BY d.due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
          {PICKED}"""  # noqa: S608 - likewise
# One that has failed is asked again when it is due: a few that are dead must not be all that is ever asked. Where there is none to
# be asked the turn is left to ordinary calls (`conditions.turn`).
ASKABLE = "d.waits AND d.lease_until <= (SELECT gateway.now()) AND (d.tries = 0 OR d.due_at <= (SELECT gateway.now()))"
CANARY = f"""WITH turn AS (
              UPDATE gateway.provider_conditions c SET canary_at = gateway.now() + make_interval(secs => $1)
               WHERE c.degraded_since IS NOT NULL AND c.canary_at <= gateway.now()
                 AND EXISTS (SELECT FROM gateway.grant_checks d WHERE d.provider = c.provider AND {ASKABLE})
              RETURNING c.provider),
            picked AS MATERIALIZED (
              SELECT d.connection_id, d.access_profile FROM turn CROSS JOIN LATERAL (
                SELECT connection_id, access_profile FROM gateway.grant_checks d
                 WHERE d.provider = turn.provider AND {ASKABLE}
                 ORDER BY d.due_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS d)
            {PICKED}"""  # noqa: S608 - likewise
RENEW = f"""UPDATE gateway.grant_checks SET lease_until = gateway.now() + make_interval(secs => {LEASE_S})
             WHERE connection_id = $1 AND access_profile = $2 AND fence = $3 RETURNING true"""  # noqa: S608 - a constant
HOLDS = (
    "SELECT true FROM gateway.grant_checks WHERE connection_id = $1 AND access_profile = $2 AND fence = $3 FOR UPDATE"
)
LATER = """UPDATE gateway.grant_checks
              SET lease_until = '-infinity', due_at = gateway.now() + make_interval(secs => $4), last_error = $5
            WHERE connection_id = $1 AND access_profile = $2 AND fence = $3"""
DONE = "DELETE FROM gateway.grant_checks WHERE connection_id = $1 AND access_profile = $2 AND fence = $3"


async def one(db: Db, connection_id: UUID, access_profile: str) -> Check | None:
    """The check of this grant; None: there is none that is due, or somebody is at it."""
    row = await db.fetchrow(ONE, connection_id, access_profile)
    return None if row is None else _check(row)


async def due(db: Db, limit: int, busy: Sequence[str] = ()) -> list[Check]:
    """Some that are due, at other providers than these."""
    return [_check(row) for row in await db.fetch(DUE, limit, list(busy))]


async def canaries(db: Db, limits: Limits = LIMITS) -> list[Check]:
    """One for each provider that is unwell and whose turn it is."""
    return [_check(row) for row in await db.fetch(CANARY, limits.canary_s)]


async def renewed(db: Db, check: Check) -> bool:
    """Is it still ours, after it has waited for its turn? Its lease begins anew."""
    return bool(await db.fetchval(RENEW, *check.name, check.fence))


async def holds(tx: Db, check: Check) -> bool:
    """Is it still ours to decide? Locks it against whoever asks anew."""
    return bool(await tx.fetchval(HOLDS, *check.name, check.fence))


async def later(db: Db, check: Check, after_s: float, error: str) -> None:
    """Nothing was found out: again after `after_s`."""
    await db.execute(LATER, *check.name, check.fence, after_s, error)


async def done(db: Db, check: Check) -> None:
    """It is decided, or there is nothing to decide any more."""
    await db.execute(DONE, *check.name, check.fence)


def _check(row: Any) -> Check:
    return Check(**dict(row))
