"""Grants and their token sets in their region: SQL beside the function that runs it; the caller owns the transaction.

Lock order, for every writer: the connection's row first (`lock`), then its grants. A change of a grant is followed by
`settle`, which folds the states into the connection's and says on the stream what changed: the last statement of its
transaction (`gateway.append` takes the log's lock).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.connections.scopes import Ledger
from gateway.connections.states import State
from gateway.database import Db
from gateway.vault.tokens import Sealed

COLUMNS = """g.connection_id, g.access_profile, g.state, g.reason, g.generation, g.token_version, g.held, g.kind, g.requested,
             g.granted, g.missing, g.lost, g.optional_missing, g.parameters, g.reach_hash, g.granted_at, t.issued_at,
             t.expires_at, t.refresh_expires_at, coalesce(t.has_refresh, false) AS has_refresh, t.token_type"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a consent gave for one access profile of a connection, without its tokens."""

    connection_id: UUID
    access_profile: str
    state: State
    reason: str | None
    generation: int
    token_version: int
    held: bool
    kind: str
    ledger: Ledger
    parameters: Mapping[str, str]
    reach_hash: UUID | None
    granted_at: datetime
    issued_at: datetime | None  # of the token set; None: there is none (shredded)
    expires_at: datetime | None
    refresh_expires_at: datetime | None
    has_refresh: bool
    token_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTokens:
    """A token set that is about to be stored, sealed."""

    sealed: Sealed = field(repr=False)
    token_type: str
    expires_in_s: int | None
    refresh_expires_in_s: int | None


OF = f"""SELECT {COLUMNS} FROM gateway.grants g LEFT JOIN gateway.tokens t USING (connection_id, access_profile)
          WHERE g.connection_id = ANY ($1::uuid[]) ORDER BY g.connection_id, g.access_profile"""  # noqa: S608 - a constant


async def of(db: Db, connections: Collection[UUID]) -> list[Grant]:
    """The grants of these connections."""
    return [_grant(row) for row in await db.fetch(OF, list(connections))]


LOCK = "SELECT state FROM gateway.connections WHERE id = $1 FOR UPDATE"


async def lock(tx: Db, connection_id: UUID) -> State | None:
    """Let no other writer at this connection and its grants; its state, or None where there is no such connection."""
    state: State | None = await tx.fetchval(LOCK, connection_id)
    return state


PUT = """
INSERT INTO gateway.grants AS g (connection_id, access_profile, state, reason, generation, token_version, held, kind, requested,
                            granted, missing, lost, optional_missing, parameters, reach_hash, granted_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, gateway.now())
ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (state, reason, generation, token_version, held, kind, requested, granted, missing, lost, optional_missing, parameters,
        reach_hash, granted_at)
     = (excluded.state, excluded.reason, excluded.generation, excluded.token_version, excluded.held, excluded.kind,
        excluded.requested, excluded.granted, excluded.missing, excluded.lost, excluded.optional_missing,
        excluded.parameters, excluded.reach_hash, excluded.granted_at)"""


async def put(
    tx: Db,
    connection_id: UUID,
    access_profile: str,
    *,
    state: State,
    reason: str | None,
    generation: int,
    token_version: int,
    ledger: Ledger,
    parameters: Mapping[str, str],
    reach_hash: UUID | None,
    kind: str = "code",
    held: bool = False,
) -> None:
    """A consent's grant, in the place of the former generation's."""
    await tx.execute(
        PUT, connection_id, access_profile, state, reason, generation, token_version, held, kind, list(ledger.requested),
        list(ledger.granted), list(ledger.missing), list(ledger.lost), list(ledger.optional_missing),
        json.dumps(dict(parameters)), reach_hash,
    )  # fmt: skip


PUT_TOKENS = """
INSERT INTO gateway.tokens (connection_id, access_profile, tenant_id, generation, token_version, data_key_version,
                            sealed_access, sealed_refresh, has_refresh, token_type, issued_at, expires_at, refresh_expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8 IS NOT NULL, $9, gateway.now(), gateway.now() + make_interval(secs => $10),
        gateway.now() + make_interval(secs => $11))
ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (generation, token_version, data_key_version, sealed_access, sealed_refresh, has_refresh, token_type, issued_at,
        expires_at, refresh_expires_at)
     = (excluded.generation, excluded.token_version, excluded.data_key_version, excluded.sealed_access,
        excluded.sealed_refresh, excluded.has_refresh, excluded.token_type, excluded.issued_at, excluded.expires_at,
        excluded.refresh_expires_at)"""


async def put_tokens(
    tx: Db, connection_id: UUID, access_profile: str, tenant: str, generation: int, token_version: int, new: NewTokens
) -> None:
    """A grant's token set, in the place of the one there was."""
    await tx.execute(
        PUT_TOKENS, connection_id, access_profile, tenant, generation, token_version, new.sealed.data_key_version,
        new.sealed.access, new.sealed.refresh, new.token_type, new.expires_in_s, new.refresh_expires_in_s,
    )  # fmt: skip


# Compare and swap: whoever lost its right meanwhile (a reconnect, another refresh, a revocation) writes nothing.
ROTATE = """UPDATE gateway.grants SET token_version = $5, state = $6, reason = $7, granted = $8, missing = $9, lost = $10,
                   optional_missing = $11
             WHERE connection_id = $1 AND access_profile = $2 AND generation = $3 AND token_version = $4
               AND state IN ('active', 'suspect', 'reauth_required') RETURNING true"""


async def rotate(
    tx: Db, grant: Grant, tenant: str, token_version: int, *, state: State, reason: str | None, ledger: Ledger,
    new: NewTokens,
) -> bool:  # fmt: skip
    """Put a refreshed token set in the place of `grant`'s; False: the grant is no longer the one that was refreshed."""
    moved = await tx.fetchval(
        ROTATE, grant.connection_id, grant.access_profile, grant.generation, grant.token_version, token_version, state,
        reason, list(ledger.granted), list(ledger.missing), list(ledger.lost), list(ledger.optional_missing),
    )  # fmt: skip
    if moved is None:
        return False
    await put_tokens(tx, grant.connection_id, grant.access_profile, tenant, grant.generation, token_version, new)
    return True


MOVE = """UPDATE gateway.grants SET state = $4, reason = $5
           WHERE connection_id = $1 AND access_profile = ANY ($2::text[]) AND ($3::integer IS NULL OR generation = $3)
             AND state <> 'closed' AND (state, reason) IS DISTINCT FROM ($4, $5) RETURNING access_profile"""


async def move(
    tx: Db,
    connection_id: UUID,
    profiles: Sequence[str],
    state: State,
    reason: str | None,
    *,
    generation: int | None = None,
) -> list[str]:
    """Put grants into a state, those of an older `generation` left alone; which of them moved."""
    rows = await tx.fetch(MOVE, connection_id, list(profiles), generation, state, reason)
    return [row["access_profile"] for row in rows]


SHRED = "DELETE FROM gateway.tokens WHERE connection_id = $1 AND access_profile = ANY ($2::text[])"


async def shred(tx: Db, connection_id: UUID, profiles: Sequence[str]) -> None:
    """Forget the sealed tokens of these grants. Backups still hold them; the data key's end is theirs too."""
    await tx.execute(SHRED, connection_id, list(profiles))


def _grant(row: Any) -> Grant:
    fields = dict(row)
    ledger = Ledger(
        *(tuple(fields.pop(name)) for name in ("requested", "granted", "missing", "lost", "optional_missing"))
    )
    return Grant(**{**fields, "ledger": ledger, "parameters": json.loads(fields["parameters"])})
