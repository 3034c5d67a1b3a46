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
from typing import Any, Literal
from uuid import UUID

from gateway.connections.scopes import Ledger
from gateway.connections.states import State
from gateway.database import Db
from gateway.vault.tokens import Sealed

Kind = Literal["code", "client_credentials", "installation"]  # how its tokens come

COLUMNS = """g.connection_id, g.access_profile, g.state, g.reason, g.since, g.generation, g.token_version, g.held, g.kind, g.requested,
             g.granted, g.missing, g.lost, g.optional_missing, g.parameters, g.reach_hash, g.granted_at, t.issued_at,
             t.expires_at, t.refresh_expires_at, coalesce(t.has_refresh, false) AS has_refresh, t.token_type,
             g.restored OR (SELECT e.tokens_epoch <> e.epoch OR e.identity <> gateway.identity() FROM gateway.epoch e)
               AS restored"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a consent gave for one access profile of a connection, without its tokens."""

    connection_id: UUID
    access_profile: str
    state: State
    reason: str | None
    since: datetime  # in that state, for that reason
    generation: int
    token_version: int
    held: bool
    kind: Kind
    ledger: Ledger
    parameters: Mapping[str, str]
    reach_hash: UUID | None
    granted_at: datetime
    issued_at: datetime | None  # of the token set; None: there is none (shredded)
    expires_at: datetime | None
    refresh_expires_at: datetime | None
    has_refresh: bool
    token_type: str | None
    restored: bool  # came out of a backup (or the whole database did, and grants have not been looked at yet)


def may_refresh(grant: Grant) -> bool:
    """May its refresh token be sent, or a token be minted for it, without being told to? THE rule, for every refresher.

    `held`: somebody else refreshes it until the cut-over, and two refreshers kill a rotating grant. `restored`: the
    refresh token may have been superseded after the backup, and sending it can revoke the whole family (PROTOCOLS 12).
    Unexpired access tokens are handed out all the same. Whether its state lets it be refreshed is the machine's question.
    """
    return not grant.held and not grant.restored


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A grant with its sealed token set, for whoever refreshes it. Seconds are by the region's clock."""

    grant: Grant
    tenant: str
    integration_id: UUID
    data_key_version: int | None  # None: there is no token set
    sealed_access: bytes | None = field(repr=False)
    sealed_refresh: bytes | None = field(repr=False)
    kv_path: str | None = field(repr=False)
    age_s: float | None  # of the token set
    in_state_s: float  # how long it has been in its state
    expired: bool  # the access token is of no use any more, or there is none
    refresh_left_s: float | None  # of the refresh token's life; None: not known, or for ever


STORED = f"""SELECT {COLUMNS}, c.tenant_id AS tenant, c.integration_id, t.data_key_version, t.sealed_access, t.sealed_refresh,
                    t.kv_path, extract(epoch FROM gateway.now() - t.issued_at)::float8 AS age_s,
                    extract(epoch FROM least(gateway.now() - g.since, interval '10 years'))::float8 AS in_state_s,
                    t.connection_id IS NULL OR coalesce(t.expires_at <= gateway.now(), false) AS expired,
                    extract(epoch FROM t.refresh_expires_at - gateway.now())::float8 AS refresh_left_s
               FROM gateway.grants g JOIN gateway.connections c ON c.id = g.connection_id AND c.state <> 'closed'
               LEFT JOIN gateway.tokens t USING (connection_id, access_profile)
              WHERE g.connection_id = $1 AND g.access_profile = $2"""  # noqa: S608 - a constant
OF_STORED = (
    "tenant", "integration_id", "data_key_version", "sealed_access", "sealed_refresh", "kv_path", "age_s", "in_state_s",
    "expired", "refresh_left_s",
)  # fmt: skip


async def stored(db: Db, connection_id: UUID, access_profile: str) -> Stored | None:
    """One grant of an open connection, with what a refresh needs."""
    row = await db.fetchrow(STORED, connection_id, access_profile)
    if row is None:
        return None
    fields = dict(row)
    more = {name: fields.pop(name) for name in OF_STORED}
    return Stored(grant=_grant(fields), **more)


LOCK = "SELECT state FROM gateway.connections WHERE id = $1 FOR UPDATE"


async def lock(tx: Db, connection_id: UUID) -> State | None:
    """Let no other writer at this connection and its grants; its state, or None where there is no such connection."""
    state: State | None = await tx.fetchval(LOCK, connection_id)
    return state


PUT = """
INSERT INTO gateway.grants AS g (connection_id, access_profile, state, reason, generation, token_version, held, kind, requested,
                            granted, missing, lost, optional_missing, parameters, reach_hash, granted_at, since)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, gateway.now(), gateway.now())
ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (state, reason, generation, token_version, held, kind, requested, granted, missing, lost, optional_missing, parameters,
        reach_hash, granted_at, restored, source_mac, since)
     = (excluded.state, excluded.reason, excluded.generation, excluded.token_version, excluded.held, excluded.kind,
        excluded.requested, excluded.granted, excluded.missing, excluded.lost, excluded.optional_missing,
        excluded.parameters, excluded.reach_hash, excluded.granted_at, false, NULL, excluded.since)"""


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
                            sealed_access, sealed_refresh, has_refresh, token_type, issued_at, expires_at, refresh_expires_at,
                            kv_path)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $12, $9, gateway.now(), gateway.now() + make_interval(secs => $10),
        gateway.now() + make_interval(secs => $11), $13)
ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (generation, token_version, data_key_version, sealed_access, sealed_refresh, has_refresh, token_type, issued_at,
        expires_at, refresh_expires_at, kv_path)
     = (excluded.generation, excluded.token_version, excluded.data_key_version, excluded.sealed_access,
        excluded.sealed_refresh, excluded.has_refresh, excluded.token_type, excluded.issued_at, excluded.expires_at,
        excluded.refresh_expires_at, excluded.kv_path)"""


async def put_tokens(
    tx: Db, connection_id: UUID, access_profile: str, tenant: str, generation: int, token_version: int, new: NewTokens
) -> None:
    """A grant's token set, in the place of the one there was."""
    await tx.execute(
        PUT_TOKENS, connection_id, access_profile, tenant, generation, token_version, new.sealed.data_key_version,
        new.sealed.access, new.sealed.refresh, new.token_type, new.expires_in_s, new.refresh_expires_in_s,
        new.sealed.has_refresh or new.sealed.refresh is not None, new.sealed.kv_path,
    )  # fmt: skip


# Compare and swap: whoever lost its right meanwhile (a reconnect, another refresh, a revocation) writes nothing.
# One that was suspended meanwhile keeps its state and gets its tokens: once that is lifted, the old ones are dead.
ROTATE = """UPDATE gateway.grants SET token_version = $5, granted = $8, missing = $9, lost = $10, optional_missing = $11,
                   state = CASE state WHEN 'suspended' THEN state ELSE $6 END,
                   reason = CASE state WHEN 'suspended' THEN reason ELSE $7 END,
                   since = CASE WHEN state <> 'suspended' AND (state, reason) IS DISTINCT FROM ($6, $7) THEN gateway.now() ELSE since END
             WHERE connection_id = $1 AND access_profile = $2 AND generation = $3 AND token_version = $4
               AND state IN ('active', 'suspect', 'suspended', 'reauth_required') RETURNING true"""


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


MOVE = """UPDATE gateway.grants SET state = $4, reason = $5, since = gateway.now()
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
