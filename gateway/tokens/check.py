"""The check before every token read (PROTOCOLS 10): state, generation and version as they stand in the database, and the
audit row, in one statement that many reads share.

A read joins only a statement that is sent after the read arrived. So whatever was committed before a request came,
a revocation say, its answer has seen; and the audit row is committed before the token leaves. What the statement found
is never kept for a later read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway import metrics
from gateway.batches import Batches
from gateway.connections.states import State
from gateway.database import Database

MOST_READS = 256  # of one statement


@dataclass(slots=True)  # not frozen: one is made for each request
class Read:
    """One request for a token."""

    connection: UUID
    access_profile: str | None  # None: the only one
    min_ttl_s: int
    actor: UUID  # API key


@dataclass(slots=True)  # not frozen: one is made for each read
class Found:
    """A grant and its sealed token set, as the statement saw them. The fields are the statement's columns."""

    served: bool  # the token may leave, and its audit row is committed
    tenant: str
    integration: UUID
    access_profile: str | None  # None: the connection has no such grant; so are all that follow but `state`
    state: State
    reason: str | None
    generation: int
    token_version: int
    held: bool
    contested: bool  # a verified signal says that it is over, and a check decides: nothing is handed out
    granted: str  # JSON, as it goes out
    lacking: str  # likewise
    token_type: str
    issued_at: datetime
    expires_at: datetime | None
    data_key_version: int | None  # None: it has no token set (shredded)
    sealed: bytes | None = field(repr=False)
    kv_path: str | None = field(repr=False)


# Half of a token's life is the most that can be asked for: a new one is not renewed again for having come just now.
CHECK = """
WITH found AS (
  SELECT a.n, a.actor, clock.now, c.id AS connection_id, c.tenant_id, c.integration_id, g.access_profile,
         CASE WHEN c.state = 'closed' THEN c.state ELSE coalesce(g.state, c.state) END AS state, g.reason, g.generation,
         g.token_version, g.held, g.contested, array_to_json(g.granted)::text AS granted,
         array_to_json(g.missing || g.lost || g.optional_missing)::text AS lacking, t.token_type, t.issued_at,
         t.expires_at, t.data_key_version, t.sealed_access, t.kv_path,
         g.state IN ('active', 'suspect') AND NOT g.contested AND c.state <> 'closed' AND t.data_key_version IS NOT NULL
           AND (t.expires_at IS NULL OR t.expires_at - clock.now
                > least(make_interval(secs => a.min_ttl_s), (t.expires_at - t.issued_at) / 2))
           AND (a.access_profile IS NOT NULL OR NOT EXISTS (
             SELECT FROM gateway.grants o WHERE o.connection_id = c.id AND o.access_profile <> g.access_profile
                AND o.state <> 'closed')) AS served
    FROM unnest($1::text::uuid[], $2::text::text[], $3::text::integer[], $4::text::uuid[]) WITH ORDINALITY
           AS a(connection_id, access_profile, min_ttl_s, actor, n)
    CROSS JOIN (SELECT gateway.now() AS now) AS clock
    JOIN gateway.connections c ON c.id = a.connection_id
    LEFT JOIN gateway.grants g ON g.connection_id = c.id
          AND g.access_profile = coalesce(a.access_profile, g.access_profile)
    LEFT JOIN gateway.tokens t ON t.connection_id = g.connection_id AND t.access_profile = g.access_profile
          AND t.generation = g.generation AND t.token_version = g.token_version),
audited AS (
  INSERT INTO gateway.audit (at, action, actor, tenant_id, connection_id, access_profile, generation, token_version)
  SELECT now, 'token.read', actor, tenant_id, connection_id, access_profile, generation, token_version
    FROM found WHERE served)
SELECT n, coalesce(served, false), tenant_id, integration_id, access_profile, state, reason, generation, token_version, held,
       contested, granted, lacking, token_type, issued_at, expires_at, data_key_version, sealed_access, kv_path
  FROM found"""


async def check(connection: Any, reads: Sequence[Read]) -> list[list[Found]]:
    """For each read the grants it may mean: none where there is no such connection, several where it names none."""
    # Arrays as their literals: asyncpg looks into each entry of an array twice.
    rows = await connection.fetch(
        CHECK, _array([r.connection.hex for r in reads]),
        _array(["NULL" if r.access_profile is None else f'"{r.access_profile}"' for r in reads]),
        _array([str(r.min_ttl_s) for r in reads]), _array([r.actor.hex for r in reads]),
    )  # fmt: skip
    told: list[list[Found]] = [[] for _ in reads]
    for row in rows:
        n, *columns = row
        told[n - 1].append(Found(*columns))
    return told


def _array(entries: list[str]) -> str:
    return "{" + ",".join(entries) + "}"


class Checks(Batches[Read, list[Found]]):
    """The checks of one process in one region."""

    name = "token_check"

    def __init__(self, database: Database, deadline_s: float, late_s: float = 5.0) -> None:
        super().__init__(database, deadline_s, late_s, MOST_READS, MOST_READS)

    async def prepare(self, connection: Any) -> None:
        # The arrays differ, the plan does not: planning costs more than running.
        await connection.execute("SET plan_cache_mode = force_generic_plan")

    async def write(self, connection: Any, asked: Sequence[Read], *, again: bool) -> Sequence[list[Found]]:
        """`again`: audit rows may stand twice then; one too many is the right side to err on."""
        metrics.TOKEN_CHECK_BATCH_READS.observe(len(asked))
        return await check(connection, asked)
