"""Grants and their token sets in their region: SQL beside the function that runs it; the caller owns the transaction.

Lock order, for every writer: the connection's row first (`lock`), then its grants. No state is decided here: whoever puts a
grant into one is told which by the machine (`transitions.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from gateway.connections import checks
from gateway.connections.scopes import Ledger
from gateway.connections.states import State
from gateway.database import Db
from gateway.vault.tokens import Sealed

Kind = Literal["code", "client_credentials", "installation"]  # how its tokens come

NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # `alive_at` of an import: nothing has proven it alive here

COLUMNS = """g.connection_id, g.access_profile, g.state, g.reason, g.since, g.generation, g.token_version, g.held, g.kind, g.requested,
             g.granted, g.missing, g.lost, g.optional_missing, g.parameters, g.reach_hash, g.granted_at, g.alive_at, g.contested, g.marks, t.issued_at,
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
    alive_at: datetime  # the last proof that it lived, by the region's clock: what fences compare signed times with
    contested: bool  # a verified signal of unknown generation is being checked: no token is handed out
    marks: tuple[UUID, ...]  # keyed hashes of what its provider may call its refresh token by
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


@dataclass(frozen=True, slots=True)
class Doubt:
    """A check of a grant that is to come."""

    why: checks.Why
    due_at: datetime
    waits: bool  # for its provider to be well
    tries: int
    last_error: str | None


SHOWN = f"""SELECT {COLUMNS}, k.why AS check_why, k.due_at AS check_due_at, k.waits AS check_waits, k.tries AS check_tries,
                   k.last_error AS check_last_error
              FROM gateway.grants g LEFT JOIN gateway.tokens t USING (connection_id, access_profile)
              LEFT JOIN gateway.grant_checks k USING (connection_id, access_profile)
             WHERE g.connection_id = ANY ($1::uuid[]) ORDER BY g.connection_id, g.access_profile"""  # noqa: S608 - a constant
OF_DOUBT = ("check_why", "check_due_at", "check_waits", "check_tries", "check_last_error")


async def shown(db: Db, connections: Collection[UUID]) -> list[tuple[Grant, Doubt | None]]:
    """The grants of these connections with the checks that are to come, for whoever looks at them."""
    found = []
    for row in await db.fetch(SHOWN, list(connections)):
        fields = dict(row)
        why, *more = (fields.pop(name) for name in OF_DOUBT)
        found.append((_grant(fields), None if why is None else Doubt(why, *more)))
    return found


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
    check: checks.Why | None  # it is in doubt, and a check is to come:
    check_in_s: float | None  # in so many seconds (it may be under way already)
    refresh_left_s: float | None  # of the refresh token's life; None: not known, or for ever
    since_consent_s: float


STORED = f"""SELECT {COLUMNS}, c.tenant_id AS tenant, c.integration_id, t.data_key_version, t.sealed_access, t.sealed_refresh,
                    t.kv_path, extract(epoch FROM gateway.now() - t.issued_at)::float8 AS age_s,
                    extract(epoch FROM least(gateway.now() - g.since, interval '10 years'))::float8 AS in_state_s,
                    t.connection_id IS NULL OR coalesce(t.expires_at <= gateway.now(), false) AS expired, k.why AS check,
                    CASE WHEN k.waits THEN 60 ELSE extract(epoch FROM k.due_at - gateway.now())::float8 END AS check_in_s,
                    extract(epoch FROM t.refresh_expires_at - gateway.now())::float8 AS refresh_left_s,
                    extract(epoch FROM gateway.now() - g.granted_at)::float8 AS since_consent_s
               FROM gateway.grants g JOIN gateway.connections c ON c.id = g.connection_id AND c.state <> 'closed'
               LEFT JOIN gateway.tokens t USING (connection_id, access_profile)
               LEFT JOIN gateway.grant_checks k USING (connection_id, access_profile)
              WHERE g.connection_id = $1 AND g.access_profile = $2"""  # noqa: S608 - a constant
OF_STORED = (
    "tenant", "integration_id", "data_key_version", "sealed_access", "sealed_refresh", "kv_path", "age_s", "in_state_s",
    "expired", "check", "check_in_s", "refresh_left_s", "since_consent_s",
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


VERSION = "SELECT generation, token_version FROM gateway.grants WHERE connection_id = $1 AND access_profile = $2"


async def version(db: Db, connection_id: UUID, access_profile: str) -> tuple[int, int] | None:
    """Generation and token version of a grant."""
    row = await db.fetchrow(VERSION, connection_id, access_profile)
    return None if row is None else (row["generation"], row["token_version"])


PUT = """
INSERT INTO gateway.grants AS g (connection_id, access_profile, state, reason, generation, token_version, held, kind, requested,
                            granted, missing, lost, optional_missing, parameters, reach_hash, marks, alive_at, granted_at,
                            since)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, gateway.now() - make_interval(secs => $17),
        gateway.now(), gateway.now())
ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (state, reason, generation, token_version, held, kind, requested, granted, missing, lost, optional_missing, parameters,
        reach_hash, marks, alive_at, granted_at, restored, contested, source_mac, expiring_told_until, since)
     = (excluded.state, excluded.reason, excluded.generation, excluded.token_version, excluded.held, excluded.kind,
        excluded.requested, excluded.granted, excluded.missing, excluded.lost, excluded.optional_missing,
        excluded.parameters, excluded.reach_hash, excluded.marks, excluded.alive_at, excluded.granted_at, false, false, NULL, NULL,
        excluded.since)"""


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
    marks: Sequence[UUID] = (),
    age_s: float = 0.0,
) -> None:
    """A consent's grant, in the place of the former generation's. `age_s`: since its tokens came."""
    await tx.execute(
        PUT, connection_id, access_profile, state, reason, generation, token_version, held, kind, list(ledger.requested),
        list(ledger.granted), list(ledger.missing), list(ledger.lost), list(ledger.optional_missing),
        json.dumps(dict(parameters)), reach_hash, list(marks), age_s,
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


ROTATE = """UPDATE gateway.grants SET token_version = $3, granted = $4, missing = $5, lost = $6, optional_missing = $7,
                   marks = $8, alive_at = greatest(alive_at, gateway.now() - make_interval(secs => $9))
             WHERE connection_id = $1 AND access_profile = $2"""


async def rotate(
    tx: Db, grant: Grant, tenant: str, token_version: int, *, ledger: Ledger, marks: Sequence[UUID], age_s: float,
    new: NewTokens,
) -> None:  # fmt: skip
    """Put a refreshed token set, asked for `age_s` ago, in the place of `grant`'s. Under the fence of `transitions`."""
    await tx.execute(
        ROTATE, grant.connection_id, grant.access_profile, token_version, list(ledger.granted), list(ledger.missing),
        list(ledger.lost), list(ledger.optional_missing), list(marks), age_s,
    )  # fmt: skip
    await put_tokens(tx, grant.connection_id, grant.access_profile, tenant, grant.generation, token_version, new)


LEDGER = """UPDATE gateway.grants SET granted = $3, missing = $4, lost = $5, optional_missing = $6
             WHERE connection_id = $1 AND access_profile = $2"""


async def put_ledger(tx: Db, connection_id: UUID, access_profile: str, ledger: Ledger) -> None:
    """The scopes that it has now, as its provider says."""
    lists = [list(of) for of in (ledger.granted, ledger.missing, ledger.lost, ledger.optional_missing)]
    await tx.execute(LEDGER, connection_id, access_profile, *lists)


Name = tuple[UUID, str]  # connection and access profile


@dataclass(frozen=True, slots=True)
class Standing:
    """How a grant stands after a signal."""

    state: State
    reason: str | None
    contested: bool


STAND = """UPDATE gateway.grants g
              SET state = n.state, reason = n.reason, contested = n.contested,
                  since = CASE WHEN (g.state, g.reason) IS DISTINCT FROM (n.state, n.reason) THEN gateway.now() ELSE g.since END
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bool[]) AS n(connection_id, access_profile, state, reason, contested)
            WHERE (g.connection_id, g.access_profile) = (n.connection_id, n.access_profile)"""


async def stand(tx: Db, standings: Mapping[Name, Standing]) -> None:
    """Put grants into the states that the machine gave them."""
    if standings:
        names, told = zip(*standings.items(), strict=True)
        await tx.execute(
            STAND, [id for id, _ in names], [profile for _, profile in names], [one.state for one in told],
            [one.reason for one in told], [one.contested for one in told],
        )  # fmt: skip


LEAVE = """UPDATE gateway.grants SET generation = generation + 1, marks = '{}'
            WHERE connection_id = $1 AND access_profile = $2"""


async def leave(tx: Db, grant: Grant) -> None:
    """Its account is not the connection's any more: nothing that is under way for it is about this grant from now on."""
    await tx.execute(LEAVE, grant.connection_id, grant.access_profile)
    await shred(tx, [(grant.connection_id, grant.access_profile)])


LIVED = """UPDATE gateway.grants SET alive_at = greatest(alive_at, gateway.now() - make_interval(secs => $3))
            WHERE connection_id = $1 AND access_profile = $2"""


async def lived(tx: Db, connection_id: UUID, access_profile: str, age_s: float) -> None:
    """It was proven alive by a question that was sent `age_s` ago."""
    await tx.execute(LIVED, connection_id, access_profile, age_s)


SHRED = """DELETE FROM gateway.tokens t USING unnest($1::uuid[], $2::text[]) AS n(connection_id, access_profile)
            WHERE (t.connection_id, t.access_profile) = (n.connection_id, n.access_profile)"""


async def shred(tx: Db, named: Collection[Name]) -> None:
    """Forget the sealed tokens of these grants. Backups still hold them; the data key's end is theirs too."""
    if named:
        await tx.execute(SHRED, [id for id, _ in named], [profile for _, profile in named])


def _grant(row: Any) -> Grant:
    fields = dict(row)
    ledger = Ledger(
        *(tuple(fields.pop(name)) for name in ("requested", "granted", "missing", "lost", "optional_missing"))
    )
    parameters, marks = orjson.loads(fields["parameters"]), tuple(fields["marks"])
    return Grant(**{**fields, "ledger": ledger, "parameters": parameters, "marks": marks})
