"""What all processes know of ways that are shut: rows of `gateway.breakers`, which are there while they are.

SQL beside the function that runs it. Due times are judged by the database's clock, so a canary's turn is one over all
processes; what a process keeps in memory of them only spares it questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.breakers.breaker import Trouble, Turn
from gateway.breakers.ways import Kind, Way
from gateway.database import Db
from gateway.processes import SILENT_S

CHANNEL = "posthouse_breakers"
TURN_S = (
    30.0  # a canary that says nothing by then (its process was killed) leaves its turn; calls have shorter deadlines
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """One way that is shut. A column each."""

    scope: str
    provider: str
    kind: Kind
    host: str | None
    integration_id: UUID | None  # of an incident
    why: Trouble
    code: str | None
    since: datetime
    canary_at: datetime
    pause_s: float
    passed: int
    failures: int
    setup: UUID | None  # of an incident: with which set-up of the integration it was seen …
    setup_revision: int  # … and as of which revision of control
    left_s: float  # until the next canary; below 0: it is due


@dataclass(frozen=True, slots=True)
class Seen:
    """All that there is to know, as of one moment."""

    live: int  # processes
    guarded: dict[str, float]  # providers at which the guard holds for token calls: how long until its next canary
    open: list[Open]


@dataclass(frozen=True, slots=True)
class Setup:
    """How an integration was set up, as a process knows it."""

    fingerprint: UUID | None = None
    revision: int = 0


COLUMNS = """b.scope, b.provider, b.kind, b.host, b.integration_id, b.why, b.code, b.since, b.canary_at, b.pause_s, b.passed,
             b.failures, b.setup, b.setup_revision, extract(epoch FROM b.canary_at - gateway.now())::float8 AS left_s"""
ALL = f"SELECT {COLUMNS} FROM gateway.breakers b ORDER BY b.since, b.scope"  # noqa: S608 - constants
# One question for everything, so that an idle process asks next to nothing.
LOOK = f"""
SELECT n.live, n.guarded, n.turns, {COLUMNS}
  FROM (SELECT (SELECT count(*) FROM gateway.processes
                 WHERE NOT dead AND seen_at > gateway.now() - make_interval(secs => {SILENT_S})) AS live,
               coalesce(g.names, '{{}}') AS guarded, coalesce(g.turns, '{{}}') AS turns
          FROM (SELECT array_agg(c.provider) AS names,
                       array_agg(extract(epoch FROM c.canary_at - gateway.now())::float8) AS turns
                  FROM gateway.provider_conditions c
                 WHERE c.degraded_since IS NOT NULL AND c.error_class = 'refused') AS g) AS n
  LEFT JOIN gateway.breakers b ON true"""  # noqa: S608 - constants
# Whoever trips first opens it; what fails after that is counted. A rate limit's later end counts.
OPEN = f"""
INSERT INTO gateway.breakers AS b (scope, provider, kind, host, integration_id, why, code, since, canary_at, pause_s,
                                   setup, setup_revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, gateway.now(), gateway.now() + make_interval(secs => $8), $9, $10, $11)
    ON CONFLICT (scope) DO UPDATE SET failures = b.failures + 1, code = excluded.code, canary_at =
       CASE WHEN b.why = 'limited' THEN greatest(b.canary_at, excluded.canary_at) ELSE b.canary_at END
RETURNING {COLUMNS}, b.xmax = 0 AS fresh"""  # noqa: S608 - constants
# Who still goes by an older set-up than the incident was seen with does not try it.
CLAIM = f"""UPDATE gateway.breakers b SET canary_at = gateway.now() + make_interval(secs => {TURN_S})
             WHERE b.scope = $1 AND b.canary_at <= gateway.now() AND b.setup_revision <= $2 RETURNING {COLUMNS}"""  # noqa: S608 - constants
GO_ON = f"""UPDATE gateway.breakers b SET pause_s = $3, passed = $4, failures = b.failures + $5, code = coalesce($6, b.code),
                   canary_at = gateway.now() + make_interval(secs => $7)
             WHERE b.scope = $1 AND b.since = $2 RETURNING {COLUMNS}"""  # noqa: S608 - constants
CLOSE = f"""DELETE FROM gateway.breakers b WHERE b.scope = $1 AND b.since = $2
         RETURNING {COLUMNS}, gateway.now() AS at"""  # noqa: S608 - constants
AFRESH = f"""UPDATE gateway.breakers b SET canary_at = gateway.now(), setup = $3, setup_revision = $4
              WHERE b.scope = $1 AND b.since = $2 AND b.setup IS DISTINCT FROM $3 AND b.setup_revision < $4
          RETURNING {COLUMNS}"""  # noqa: S608 - constants
RETRY = f"""UPDATE gateway.breakers b SET canary_at = least(b.canary_at, gateway.now()) WHERE b.integration_id = $1
         RETURNING {COLUMNS}"""  # noqa: S608 - constants
NOTICE = f"SELECT pg_notify('{CHANNEL}', '')"


async def look(db: Db) -> Seen:
    """What is shut, where the guard holds, and how many processes share the budgets."""
    rows = await db.fetch(LOOK)
    first = rows[0]
    guarded = dict(zip(first["guarded"], first["turns"], strict=True))
    return Seen(first["live"], guarded, [_open(row) for row in rows if row["scope"] is not None])


async def all_open(db: Db) -> list[Open]:
    """What is shut, the oldest first."""
    return [_open(row) for row in await db.fetch(ALL)]


async def shut(
    tx: Db, scope: str, way: Way, why: Trouble, code: str | None, turn: Turn, setup: Setup
) -> tuple[Open, bool]:
    """Shut a way, or find it shut; whether it was us."""
    incident = why == "misconfigured"
    row = await tx.fetchrow(
        OPEN, scope, way.provider, way.kind, way.host, way.integration if incident else None, why, code, turn.wait_s,
        turn.pause_s, setup.fingerprint if incident else None, setup.revision if incident else 0,
    )  # fmt: skip
    assert row is not None
    return _open(row), row["fresh"]


async def claim(tx: Db, scope: str, revision: int) -> Open | None:
    """Take the canary's turn; None: it is not due, somebody else's, or the way is not shut any more."""
    row = await tx.fetchrow(CLAIM, scope, revision)
    return None if row is None else _open(row)


async def go_on(db: Db, was: Open, turn: Turn, *, failed: bool, code: str | None) -> Open | None:
    """A canary has ended, and the way stays shut; None: somebody has opened it."""
    row = await db.fetchrow(
        GO_ON, was.scope, was.since, turn.pause_s, turn.passed, int(failed), code, turn.wait_s
    )  # fmt: skip
    return None if row is None else _open(row)


async def close(tx: Db, was: Open) -> tuple[Open, datetime] | None:
    """Open the way; None: somebody has. How it was, and when that ends."""
    row = await tx.fetchrow(CLOSE, was.scope, was.since)
    return None if row is None else (_open(row), row["at"])


async def afresh(db: Db, was: Open, setup: Setup) -> Open | None:
    """The integration is set up otherwise than when the incident was seen: one canary may go at once. Once, over all processes."""
    row = await db.fetchrow(AFRESH, was.scope, was.since, setup.fingerprint, setup.revision)
    return None if row is None else _open(row)


async def retry(db: Db, integration: UUID) -> list[Open]:
    """On an operator's word: a canary of each of its incidents may go at once."""
    return [_open(row) for row in await db.fetch(RETRY, integration)]


async def notice(tx: Db) -> None:
    """Let every process look."""
    await tx.execute(NOTICE)


def _open(row: Any) -> Open:
    return Open(**{name: row[name] for name in Open.__dataclass_fields__})
