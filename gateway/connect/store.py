"""Connect sessions in their region: SQL beside the function that runs it; the caller owns the transaction.

    created --button--> opened --consent(s)--> returned --code--> completed
       |                  | ^                     |
       |                  +-+ denied, other account, provider's trouble: the same browser may begin again
       +------------------+-----------------------+--> expired (its time is over), failed (it cannot go on)

Each step has a deadline of its own, by the region's clock. Order of locks: the session, then its connection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from gateway.connect import wishes
from gateway.connect.wishes import Wish
from gateway.database import Db

State = Literal["created", "opened", "returned", "completed", "failed", "expired"]
OPEN: frozenset[State] = frozenset({"created", "opened", "returned"})
KEPT_S = 30 * 24 * 3600.0  # how long one that has ended can still be looked at

COLUMNS = """id, tenant_id, integration_id, connection_id, reconnects, end_user_id, external_id, labels, profiles, asked, parameters,
             return_url, allow_account_switch, state, outcome, reason, browser_hash, state_hash, code_hash, subject_hash,
             created_at, expires_at, expires_at <= gateway.now() AS over"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A link for one end user, and what became of it."""

    id: UUID
    tenant_id: str
    integration_id: UUID
    connection_id: UUID  # the one it makes, or the one it reconnects
    reconnects: bool
    end_user_id: str | None
    external_id: str | None
    labels: Mapping[str, str]
    profiles: Mapping[str, Wish]
    asked: tuple[str, ...]  # access profiles still to be consented to, in order
    parameters: Mapping[str, str]
    return_url: str | None
    allow_account_switch: bool
    state: State
    outcome: str | None  # what the last step came to
    reason: str | None  # a code that says more of it
    browser_hash: bytes | None = field(repr=False)
    state_hash: bytes | None = field(repr=False)
    code_hash: bytes | None = field(repr=False)
    subject_hash: UUID | None
    created_at: datetime
    expires_at: datetime  # of the next step
    over: bool  # that time has come


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session that is about to be made."""

    id: UUID
    tenant_id: str
    integration_id: UUID
    connection_id: UUID
    reconnects: bool
    end_user_id: str | None
    external_id: str | None
    labels: Mapping[str, str]
    profiles: Mapping[str, Wish]
    parameters: Mapping[str, str]
    return_url: str | None
    allow_account_switch: bool
    link_hash: bytes = field(repr=False)
    created_by: UUID | None
    ttl_s: int


# The same id comes again when a call with an Idempotency-Key is tried again. Its first link reached nobody.
CREATE = f"""
INSERT INTO gateway.connect_sessions AS s (id, tenant_id, integration_id, connection_id, reconnects, end_user_id, external_id,
            labels, profiles, asked, parameters, return_url, allow_account_switch, link_hash, created_by, state, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 'created', gateway.now(),
        gateway.now() + make_interval(secs => $16))
ON CONFLICT (id) DO UPDATE SET link_hash = excluded.link_hash WHERE s.state = 'created' RETURNING {COLUMNS}"""  # noqa: S608 - a constant


async def create(tx: Db, new: NewSession) -> Session | None:
    """None: one of that id is there and was opened already."""
    row = await tx.fetchrow(
        CREATE, new.id, new.tenant_id, new.integration_id, new.connection_id, new.reconnects, new.end_user_id,
        new.external_id, json.dumps(dict(new.labels)), json.dumps(wishes.as_json(new.profiles)), list(new.profiles),
        json.dumps(dict(new.parameters)), new.return_url, new.allow_account_switch, new.link_hash, new.created_by,
        float(new.ttl_s),
    )  # fmt: skip
    return None if row is None else _session(row)


FIND = f"SELECT {COLUMNS} FROM gateway.connect_sessions WHERE id = $1"  # noqa: S608 - a constant of this file
LOCK = FIND + " FOR UPDATE"
BY_LINK = f"SELECT {COLUMNS} FROM gateway.connect_sessions WHERE link_hash = $1"  # noqa: S608 - a constant of this file
BY_STATE = f"SELECT {COLUMNS} FROM gateway.connect_sessions WHERE state_hash = $1"  # noqa: S608 - a constant of this file


async def find(db: Db, session_id: UUID) -> Session | None:
    return _maybe(await db.fetchrow(FIND, session_id))


async def lock(tx: Db, session_id: UUID) -> Session | None:
    """The session, with no other writer at it until the transaction ends."""
    return _maybe(await tx.fetchrow(LOCK, session_id))


async def by_link(db: Db, link_hash: bytes) -> Session | None:
    return _maybe(await db.fetchrow(BY_LINK, link_hash))


async def by_state(db: Db, state_hash: bytes) -> Session | None:
    return _maybe(await db.fetchrow(BY_STATE, state_hash))


PAGE = f"""SELECT {COLUMNS} FROM gateway.connect_sessions
            WHERE ($1::uuid IS NULL OR id > $1) AND ($3::text IS NULL OR tenant_id = $3)
              AND ($4::text IS NULL OR state = $4) AND ($5::uuid IS NULL OR connection_id = $5)
            ORDER BY id LIMIT $2"""  # noqa: S608 - a constant of this file


async def page(
    db: Db, *, tenant_id: str | None, state: str | None, connection_id: UUID | None, after: UUID | None, limit: int
) -> list[Session]:
    """Sessions by age, behind `after`."""
    return [_session(row) for row in await db.fetch(PAGE, after, limit, tenant_id, state, connection_id)]


# Bound to the first browser that presses the button; that one may begin again, which ends what it had begun before.
BEGIN = """UPDATE gateway.connect_sessions
              SET state = 'opened', browser_hash = $2, state_hash = $3, sealed_verifier = $4,
                  expires_at = gateway.now() + make_interval(secs => $5)
            WHERE id = $1 AND expires_at > gateway.now() AND (state = 'created' OR state = 'opened' AND browser_hash = $2)
            RETURNING true"""


async def begin(
    tx: Db, session_id: UUID, *, browser_hash: bytes, state_hash: bytes, sealed_proof: bytes, ttl_s: float
) -> bool:
    """Send a browser on its way; False: the link is used or over."""
    return bool(await tx.fetchval(BEGIN, session_id, browser_hash, state_hash, sealed_proof, ttl_s))


# Once, whatever comes twice: whoever takes the state away may exchange the code, and nobody else.
CLAIM = """WITH found AS (SELECT id, sealed_verifier FROM gateway.connect_sessions
                           WHERE state_hash = $1 AND browser_hash = $2 AND integration_id = $3 AND state = 'opened'
                             AND expires_at > gateway.now() FOR UPDATE)
           UPDATE gateway.connect_sessions s SET state_hash = NULL, sealed_verifier = NULL
             FROM found WHERE s.id = found.id RETURNING found.sealed_verifier"""


async def claim(tx: Db, *, state_hash: bytes, browser_hash: bytes, integration_id: UUID) -> bytes | None:
    """The sealed proof of the step that this answer belongs to; None: somebody else has it, or its time is over."""
    sealed: bytes | None = await tx.fetchval(CLAIM, state_hash, browser_hash, integration_id)
    return sealed


STAGE = """INSERT INTO gateway.staged_tokens (session_id, access_profile, tenant_id, data_key_version, sealed, answered_at, epoch)
           SELECT $1, $2, $3, $4, $5, gateway.now(), epoch FROM gateway.epoch
           ON CONFLICT (session_id, access_profile) DO UPDATE
              SET (data_key_version, sealed, answered_at, epoch)
                = (excluded.data_key_version, excluded.sealed, excluded.answered_at, excluded.epoch)"""


async def stage(tx: Db, session: Session, access_profile: str, data_key_version: int, sealed: bytes) -> None:
    """Put a sealed token set where no API reads it."""
    await tx.execute(STAGE, session.id, access_profile, session.tenant_id, data_key_version, sealed)


@dataclass(frozen=True, slots=True)
class Staged:
    """A token set that waits for its session's completion, sealed."""

    access_profile: str
    data_key_version: int
    sealed: bytes = field(repr=False)
    age_s: float  # since the answer that brought it


STAGED = """SELECT access_profile, data_key_version, sealed, extract(epoch FROM gateway.now() - answered_at)::float8 AS age_s
              FROM gateway.staged_tokens WHERE session_id = $1 ORDER BY access_profile"""


async def staged(db: Db, session_id: UUID) -> list[Staged]:
    return [Staged(**dict(row)) for row in await db.fetch(STAGED, session_id)]


ONLY_HERE = """SELECT coalesce(bool_and(t.epoch = e.epoch AND e.identity = gateway.identity()), false)
                 FROM gateway.staged_tokens t CROSS JOIN gateway.epoch e WHERE t.session_id = $1"""


async def only_here(db: Db, session_id: UUID) -> bool:
    """Whether what is staged came into this very database: out of a backup, it may be in use (PROTOCOLS 12)."""
    return bool(await db.fetchval(ONLY_HERE, session_id))


ADVANCE = (
    """UPDATE gateway.connect_sessions SET asked = $2, subject_hash = $3, outcome = NULL, reason = NULL WHERE id = $1"""
)


async def advance(tx: Db, session_id: UUID, asked: Sequence[str], subject_hash: UUID) -> None:
    """A consent came back; `asked`: what is still to be consented to."""
    await tx.execute(ADVANCE, session_id, list(asked), subject_hash)


RETURN = """UPDATE gateway.connect_sessions SET state = 'returned', outcome = $2, code_hash = $3, state_hash = NULL, sealed_verifier = NULL,
                   expires_at = gateway.now() + make_interval(secs => $4) WHERE id = $1"""


async def returned(tx: Db, session_id: UUID, outcome: str, code_hash: bytes, ttl_s: float) -> None:
    """All consents are there: from now on the one-time code completes it."""
    await tx.execute(RETURN, session_id, outcome, code_hash, ttl_s)


NOTE = """UPDATE gateway.connect_sessions SET outcome = $2, reason = $3 WHERE id = $1 AND state = 'opened'"""


async def note(tx: Db, session_id: UUID, outcome: str, reason: str | None) -> None:
    """What a step came to that did not succeed; the same browser may begin it again."""
    await tx.execute(NOTE, session_id, outcome, reason)


COMPLETE = "UPDATE gateway.connect_sessions SET state = 'completed', outcome = $2 WHERE id = $1"
FAIL = """UPDATE gateway.connect_sessions SET state = 'failed', outcome = $2, reason = $3, state_hash = NULL, sealed_verifier = NULL
           WHERE id = $1 AND state IN ('created', 'opened', 'returned')"""
UNSTAGE = "DELETE FROM gateway.staged_tokens WHERE session_id = ANY ($1::uuid[])"


async def complete(tx: Db, session_id: UUID, outcome: str) -> None:
    """Its tokens are where they belong."""
    await tx.execute(COMPLETE, session_id, outcome)
    await tx.execute(UNSTAGE, [session_id])


async def fail(tx: Db, session: Session, outcome: str, reason: str | None) -> None:
    """It cannot go on: what was staged is forgotten."""
    await tx.execute(FAIL, session.id, outcome, reason)
    await tx.execute(UNSTAGE, [session.id])
    await tx.execute(ABANDON, [] if session.reconnects else [session.connection_id])


GUESSED = "UPDATE gateway.connect_sessions SET wrong_codes = wrong_codes + 1 WHERE id = $1 RETURNING wrong_codes"


async def guessed(tx: Db, session_id: UUID) -> int:
    """A wrong code was tried: how many by now."""
    return int(await tx.fetchval(GUESSED, session_id))


EXPIRE = f"""UPDATE gateway.connect_sessions SET state = 'expired', state_hash = NULL, sealed_verifier = NULL
             WHERE id IN (SELECT id FROM gateway.connect_sessions
                           WHERE state IN ('created', 'opened', 'returned') AND expires_at <= gateway.now()
                           ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING {COLUMNS}"""  # noqa: S608 - a constant of this file
ABANDON = "DELETE FROM gateway.connections WHERE id = ANY ($1::uuid[]) AND state = 'pending'"
FORGET = """DELETE FROM gateway.connect_sessions WHERE id IN (
              SELECT id FROM gateway.connect_sessions
               WHERE state IN ('completed', 'failed', 'expired') AND expires_at <= gateway.now() - make_interval(secs => $2)
               ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)"""


async def expire(tx: Db, limit: int) -> list[Session]:
    """End sessions whose time is over."""
    return [_session(row) for row in await tx.fetch(EXPIRE, limit)]


async def forget(tx: Db, expired: Sequence[Session], limit: int) -> None:
    """The staged tokens and pending connections of sessions that have expired; and sessions that ended long ago."""
    await tx.execute(UNSTAGE, [one.id for one in expired])
    await tx.execute(ABANDON, [one.connection_id for one in expired if not one.reconnects])
    await tx.execute(FORGET, limit, KEPT_S)


def _maybe(row: Any) -> Session | None:
    return None if row is None else _session(row)


def _session(row: Any) -> Session:
    fields = dict(row)
    read = {name: json.loads(fields[name]) for name in ("labels", "parameters")}
    return Session(
        **{
            **fields,
            **read,
            "profiles": wishes.from_json(json.loads(fields["profiles"])),
            "asked": tuple(fields["asked"]),
        }
    )
