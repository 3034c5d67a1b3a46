"""Many connections with their grants and token sets at once: SQL beside the function that runs it.

Rows go in as one JSON text a statement, since their columns hold arrays. The caller owns the transaction.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway.adoption.judging import Ready, ReadyGrant
from gateway.connections import rotations
from gateway.connections.rotations import Came
from gateway.connections.states import State
from gateway.database import Db
from gateway.vault.tokens import Place, Sealed


@dataclass(frozen=True, slots=True)
class Held:
    """A grant that is there already."""

    access_profile: str
    state: State
    generation: int
    token_version: int
    held: bool
    source_mac: bytes | None
    has_tokens: bool


@dataclass(frozen=True, slots=True)
class Existing:
    """A connection that is there already, locked."""

    id: UUID
    tenant_id: str
    integration_id: UUID
    external_id: str
    end_user_id: str | None
    labels: dict[str, str]
    state: State
    reason: str | None
    subject_hash: UUID | None
    accounts: tuple[UUID, ...]
    grants: dict[str, Held] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """A grant with its sealed token set, ready for its rows."""

    place: Place
    grant: ReadyGrant
    sealed: Sealed
    held: bool
    state: State  # as the machine has it


FIND = """SELECT c.id, c.tenant_id, c.integration_id, c.external_id, c.end_user_id, c.labels, c.state, c.reason, c.subject_hash,
                 ARRAY(SELECT a.account_hash FROM gateway.connection_accounts a WHERE a.connection_id = c.id AND NOT a.mark ORDER BY 1) AS accounts
            FROM gateway.connections c JOIN unnest($1::text[], $2::uuid[], $3::text[]) AS k(tenant_id, integration_id, external_id)
                 USING (tenant_id, integration_id, external_id)
           WHERE c.state <> 'closed' ORDER BY c.id FOR UPDATE OF c"""
GRANTS = """SELECT g.connection_id, g.access_profile, g.state, g.generation, g.token_version, g.held, g.source_mac,
                   t.connection_id IS NOT NULL AS has_tokens
              FROM gateway.grants g LEFT JOIN gateway.tokens t USING (connection_id, access_profile)
             WHERE g.connection_id = ANY ($1::uuid[])"""


async def locked(tx: Db, lines: Sequence[Ready]) -> dict[tuple[str, UUID, str], Existing]:
    """The open connections that these lines are about, by `Ready.key`, locked against other writers."""
    keys = [line.key for line in lines]
    rows = await tx.fetch(FIND, *(list(part) for part in zip(*keys, strict=True)))
    found = {
        row["id"]: Existing(**{**dict(row), "labels": json.loads(row["labels"]), "accounts": tuple(row["accounts"])})
        for row in rows
    }
    for row in await tx.fetch(GRANTS, list(found)):
        fields = dict(row)
        connection_id = fields.pop("connection_id")
        found[connection_id].grants[row["access_profile"]] = Held(**fields)
    return {(one.tenant_id, one.integration_id, one.external_id): one for one in found.values()}


INSERT = """
INSERT INTO gateway.connections (id, tenant_id, integration_id, external_id, end_user_id, labels, subject_hash, state,
                                 created_at, updated_at)
SELECT n.id, n.tenant_id, n.integration_id, n.external_id, n.end_user_id, n.labels, n.subject_hash, 'pending',
       gateway.now(), gateway.now()
  FROM jsonb_to_recordset($1::jsonb) AS n(id uuid, tenant_id text, integration_id uuid, external_id text, end_user_id text,
                                          labels jsonb, subject_hash uuid)
    ON CONFLICT DO NOTHING RETURNING id"""


async def insert(tx: Db, new: Sequence[tuple[UUID, Ready]]) -> int:
    """Make connections, `pending` until their grants are folded; how many. Fewer: another writer was first."""
    if not new:
        return 0
    ordered = sorted(new, key=lambda each: each[1].key)  # two imports at once wait for each other in one direction only
    return len(await tx.fetch(INSERT, _json([_described(id, line) for id, line in ordered])))


UPDATE = """
UPDATE gateway.connections c
   SET end_user_id = n.end_user_id, labels = n.labels, subject_hash = coalesce(n.subject_hash, c.subject_hash),
       updated_at = gateway.now()
  FROM jsonb_to_recordset($1::jsonb) AS n(id uuid, end_user_id text, labels jsonb, subject_hash uuid) WHERE c.id = n.id"""


async def update(tx: Db, changed: Sequence[tuple[UUID, Ready]]) -> None:
    """Put what lines say of connections that are there in the place of what was known."""
    if changed:
        await tx.execute(UPDATE, _json([_described(id, line) for id, line in changed]))


FORGET = "DELETE FROM gateway.connection_accounts WHERE connection_id = ANY ($1::uuid[])"
ACCOUNTS = """INSERT INTO gateway.connection_accounts (integration_id, account_hash, connection_id)
              SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) ON CONFLICT DO NOTHING"""


async def put_accounts(tx: Db, connections: Sequence[tuple[UUID, Ready]]) -> None:
    """The accounts of those lines that tell them, in the place of the former ones."""
    told = [(id, line, line.accounts) for id, line in connections if line.accounts is not None]
    rows = [(line.integration_id, account, id) for id, line, accounts in told for account in accounts]
    if told:
        await tx.execute(FORGET, [id for id, _, _ in told])
    if rows:
        await tx.execute(ACCOUNTS, *(list(column) for column in zip(*rows, strict=True)))


# That it came is no proof that it lives: until it is refreshed, no signal is too old to be about it.
PUT = """
INSERT INTO gateway.grants (connection_id, access_profile, state, reason, generation, token_version, held, kind, requested,
                            granted, missing, lost, optional_missing, parameters, reach_hash, source_mac, marks, alive_at, granted_at,
                            since)
SELECT n.connection_id, n.access_profile, n.state, n.reason, n.generation, n.token_version, n.held, n.kind, n.requested,
       n.granted, n.missing, '{}', n.optional_missing, n.parameters, n.reach_hash, decode(n.source_mac, 'base64'), n.marks,
       'epoch', gateway.now(), gateway.now()
  FROM jsonb_to_recordset($1::jsonb) AS n(connection_id uuid, access_profile text, state text, reason text, generation integer,
         token_version integer, held boolean, kind text, requested text[], granted text[], missing text[],
         optional_missing text[], parameters jsonb, reach_hash uuid, source_mac text, marks uuid[])
    ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (state, reason, generation, token_version, held, restored, kind, requested, granted, missing, lost, optional_missing,
        parameters, reach_hash, source_mac, marks, alive_at, contested, granted_at, since)
     = (excluded.state, excluded.reason, excluded.generation, excluded.token_version, excluded.held, false, excluded.kind,
        excluded.requested, excluded.granted, excluded.missing, excluded.lost, excluded.optional_missing,
        excluded.parameters, excluded.reach_hash, excluded.source_mac, excluded.marks, excluded.alive_at, false,
        excluded.granted_at, excluded.since)"""
PUT_TOKENS = """
INSERT INTO gateway.tokens (connection_id, access_profile, tenant_id, generation, token_version, data_key_version, sealed_access,
                            sealed_refresh, kv_path, has_refresh, token_type, issued_at, expires_at, refresh_expires_at)
SELECT n.connection_id, n.access_profile, n.tenant_id, n.generation, n.token_version, n.data_key_version,
       decode(n.sealed_access, 'base64'), decode(n.sealed_refresh, 'base64'), n.kv_path, n.has_refresh, n.token_type,
       gateway.now(), n.expires_at, n.refresh_expires_at
  FROM jsonb_to_recordset($1::jsonb) AS n(connection_id uuid, access_profile text, tenant_id text, generation integer,
         token_version integer, data_key_version integer, sealed_access text, sealed_refresh text, kv_path text,
         has_refresh boolean, token_type text, expires_at timestamptz, refresh_expires_at timestamptz)
    ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (generation, token_version, data_key_version, sealed_access, sealed_refresh, kv_path, has_refresh, token_type, issued_at,
        expires_at, refresh_expires_at)
     = (excluded.generation, excluded.token_version, excluded.data_key_version, excluded.sealed_access,
        excluded.sealed_refresh, excluded.kv_path, excluded.has_refresh, excluded.token_type, excluded.issued_at,
        excluded.expires_at, excluded.refresh_expires_at)"""


async def put_grants(tx: Db, placed: Sequence[Placed], now: datetime) -> None:
    """Grants and their token sets, in the place of former ones. `now`: until when a missing access token lived."""
    if placed:
        await tx.execute(PUT, _json([_grant(one) for one in placed]))
        await tx.execute(PUT_TOKENS, _json([_tokens(one, now) for one in placed]))
        await rotations.record(tx, [_came(one) for one in placed])


def _came(one: Placed) -> Came:
    place = one.place
    return Came(
        connection=place.connection, access_profile=place.profile, generation=place.generation,
        token_version=place.version, source="import", fingerprint=one.grant.fingerprint,
    )  # fmt: skip


def _described(id: UUID, line: Ready) -> dict[str, Any]:
    return {
        "id": str(id),
        "tenant_id": line.line.tenant,
        "integration_id": str(line.integration_id),
        "external_id": line.line.external_id,
        "end_user_id": line.line.end_user_id,
        "labels": dict(line.line.labels),
        "subject_hash": _uuid(line.subject),
    }


def _grant(one: Placed) -> dict[str, Any]:
    grant, ledger = one.grant, one.grant.ledger
    return {
        **_named(one),
        "state": one.state,
        "reason": grant.reason,
        "held": one.held,
        "kind": grant.tokens.kind,
        "requested": ledger.requested,
        "granted": ledger.granted,
        "missing": ledger.missing,
        "optional_missing": ledger.optional_missing,
        "parameters": dict(grant.tokens.parameters),
        "reach_hash": _uuid(grant.reach),
        "source_mac": _base64(grant.mac),
        "marks": [str(mark) for mark in grant.marks],
    }


def _tokens(one: Placed, now: datetime) -> dict[str, Any]:
    tokens, sealed = one.grant.tokens, one.sealed
    # What is minted anew and does not say how long it lives is not believed to live for ever.
    unknown = tokens.access_token is None or (tokens.kind != "code" and tokens.expires_at is None)
    expires_at = now if unknown else tokens.expires_at
    return {
        **_named(one),
        "tenant_id": one.place.tenant,
        "data_key_version": sealed.data_key_version,
        "sealed_access": _base64(sealed.access),
        "sealed_refresh": _base64(sealed.refresh),
        "kv_path": sealed.kv_path,
        "has_refresh": tokens.refresh_token is not None,
        "token_type": tokens.token_type,
        "expires_at": _time(expires_at),
        "refresh_expires_at": _time(tokens.refresh_expires_at),
    }


def _named(one: Placed) -> dict[str, Any]:
    place = one.place
    return {
        "connection_id": str(place.connection),
        "access_profile": place.profile,
        "generation": place.generation,
        "token_version": place.version,
    }


def _json(rows: list[dict[str, Any]]) -> str:
    return json.dumps(rows)


def _uuid(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
