"""Closing tasks: sealed tokens that wait for their revocation. SQL beside the function that runs it. No API reads tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from gateway.database import Db

KEPT_S = 72 * 3600  # PROTOCOLS 6: tokens of an ended connection are kept no longer than that
LEASE_S = 120.0
FIRST_RETRY_S, LONGEST_RETRY_S = 15.0, 3600.0

Outcome = Literal["done", "not_needed", "given_up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """The tokens of one grant that has ended."""

    id: UUID
    tenant: str
    connection_id: UUID
    access_profile: str
    integration_id: UUID
    data_key_version: int
    sealed: bytes = field(repr=False)
    parameters: Mapping[str, str]
    reach_hash: UUID | None
    accounts: Sequence[UUID]
    subject_hash: UUID | None


@dataclass(frozen=True, slots=True)
class Task:
    """One that this process holds until its lease ends. `fence` tells whether it still does."""

    id: UUID
    tenant_id: str
    connection_id: UUID
    access_profile: str
    integration_id: UUID
    data_key_version: int
    sealed: bytes = field(repr=False)
    parameters: Mapping[str, str]
    reach_hash: UUID | None
    accounts: tuple[UUID, ...]
    subject_hash: UUID | None
    tries: int
    fence: int
    over: bool  # its time is over: this try is the last


ADD = """INSERT INTO gateway.closing_tasks (id, tenant_id, connection_id, access_profile, integration_id, data_key_version, sealed,
                                            parameters, reach_hash, accounts, subject_hash, due_at, until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, gateway.now(), gateway.now() + make_interval(secs => $12))"""


async def add(tx: Db, new: NewTask) -> None:
    """Due at once."""
    await tx.execute(
        ADD, new.id, new.tenant, new.connection_id, new.access_profile, new.integration_id, new.data_key_version,
        new.sealed, json.dumps(dict(new.parameters)), new.reach_hash, list(new.accounts), new.subject_hash, float(KEPT_S),
    )  # fmt: skip


CLAIM = """
UPDATE gateway.closing_tasks
   SET lease_until = gateway.now() + make_interval(secs => $1), fence = fence + 1, tries = tries + 1
 WHERE id IN (SELECT id FROM gateway.closing_tasks WHERE due_at <= gateway.now() AND lease_until <= gateway.now()
               ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING id, tenant_id, connection_id, access_profile, integration_id, data_key_version, sealed, parameters, reach_hash,
          accounts, subject_hash, tries, fence, until <= gateway.now() AS over"""


async def claim(db: Db, most: int) -> list[Task]:
    """Tasks that are due, leased to this process."""
    return [_task(row) for row in await db.fetch(CLAIM, LEASE_S, most)]


# The worst that became of any of its grants is what the connection says.
END = """
WITH ended AS (DELETE FROM gateway.closing_tasks WHERE id = $1 AND fence = $2 RETURNING connection_id)
UPDATE gateway.connections c
   SET revocation = CASE WHEN 'given_up' IN ($3, c.revocation) THEN 'given_up' WHEN 'done' IN ($3, c.revocation) THEN 'done' ELSE $3 END
  FROM ended WHERE c.id = ended.connection_id"""


async def end(db: Db, task: Task, outcome: Outcome) -> None:
    """Shred a task's tokens and say what became of them; nothing where the lease was lost."""
    await db.execute(END, task.id, task.fence, outcome)


RETRY = """UPDATE gateway.closing_tasks SET lease_until = '-infinity', last_error = $3,
                  due_at = least(gateway.now() + make_interval(secs => $4), greatest(until, gateway.now()))
            WHERE id = $1 AND fence = $2"""


async def retry(db: Db, task: Task, error: str, after_s: float | None = None) -> None:
    """Try again: after `after_s` where the provider says so, else later each time."""
    wait_s = min(FIRST_RETRY_S * 2 ** min(task.tries - 1, 20), LONGEST_RETRY_S)
    await db.execute(RETRY, task.id, task.fence, error, max(wait_s, min(after_s or 0.0, LONGEST_RETRY_S)))


COUNT = "SELECT count(*) FROM gateway.closing_tasks"


async def count(db: Db) -> int:
    """How many wait."""
    return int(await db.fetchval(COUNT))


# Known to reach it too; or, where what a revocation of theirs (or this one) reaches is not known, at the same account.
SHARED = """
SELECT EXISTS (
         SELECT FROM gateway.grants g JOIN gateway.connections c ON c.id = g.connection_id
          WHERE g.reach_hash = $2 AND g.state NOT IN ('closed', 'revoked') AND c.integration_id = $1 AND c.state <> 'closed')
    OR EXISTS (
         SELECT FROM gateway.connection_accounts a JOIN gateway.connections c ON c.id = a.connection_id
           JOIN gateway.grants g ON g.connection_id = c.id
          WHERE a.integration_id = $1 AND a.account_hash = ANY ($3::uuid[]) AND c.state <> 'closed'
            AND g.state NOT IN ('closed', 'revoked') AND (g.reach_hash IS NULL OR $2::uuid IS NULL))"""
CONSENTING = """SELECT EXISTS (SELECT FROM gateway.connect_sessions
                 WHERE integration_id = $1 AND state IN ('opened', 'returned') AND subject_hash = $2 AND expires_at > gateway.now())"""


async def shared(db: Db, integration: UUID, reach: UUID | None, accounts: Sequence[UUID]) -> bool:
    """Whether a live grant of this region shares what a revocation would reach."""
    return bool(await db.fetchval(SHARED, integration, reach, list(accounts)))


async def consented(db: Db, integration: UUID, subject: UUID) -> bool:
    """Whether the account has just consented anew, and its session has yet to be completed."""
    return bool(await db.fetchval(CONSENTING, integration, subject))


REGIONS = (
    "SELECT DISTINCT region FROM control.account_regions WHERE integration_id = $1 AND account_hash = ANY ($2::uuid[])"
)


async def regions(control: Db, task: Task) -> set[str]:
    """Where others may share it, as control knows."""
    hashes = [*task.accounts, *([] if task.reach_hash is None else [task.reach_hash])]
    return {row["region"] for row in await control.fetch(REGIONS, task.integration_id, hashes)}


def _task(row: Any) -> Task:
    return Task(**{**dict(row), "parameters": json.loads(row["parameters"]), "accounts": tuple(row["accounts"])})
