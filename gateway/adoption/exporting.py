"""Letting connections out with their tokens, sealed to a recipient, one line each: `open` makes an import's lines of them.

What goes out: every connection that holds a token set of a grant that may still work (active, suspect, suspended, needing
a new consent), held ones included. Revoked, pending and closed grants have none to give. Before a line leaves, the
audit says for each token set who took it; both are one statement, committed first.

A line holds the export's id and its number, and the last line says how many there were: one that was
cut short, mixed or put in another order shows. Nothing says who made it: a recipient trusts the way it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from gateway import ids
from gateway.adoption.judging import mark_of
from gateway.adoption.lines import TokenLine
from gateway.database import Db
from gateway.regions import Region
from gateway.service import Gateway
from gateway.vault.jwe import Recipient, seal
from gateway.vault.tokens import Place, SealBroken

CHUNK = 200  # connections of one statement
ACTION = "token.export"
COMMAND_LINE = UUID(int=0)  # the audit's actor where no API key asked

TAKE = """
WITH page AS MATERIALIZED (
  SELECT c.id, c.tenant_id, c.integration_id, c.external_id, c.end_user_id, c.labels, c.state, c.reason, c.subject_hash
    FROM gateway.connections c
   WHERE c.id > $1 AND c.state NOT IN ('closed', 'pending') AND ($2::text IS NULL OR c.tenant_id = $2)
     AND ($3::uuid IS NULL OR c.integration_id = $3)
     AND EXISTS (SELECT FROM gateway.tokens t JOIN gateway.grants g USING (connection_id, access_profile)
                  WHERE t.connection_id = c.id AND g.state NOT IN ('revoked', 'pending', 'closed'))
   ORDER BY c.id LIMIT $4),
sets AS MATERIALIZED (
  SELECT p.*, g.access_profile, g.state AS grant_state, g.reason AS grant_reason, g.generation, g.token_version, g.held, g.kind,
         g.granted, g.parameters, g.reach_hash, t.data_key_version, t.sealed_access, t.sealed_refresh, t.kv_path, t.has_refresh,
         t.token_type, t.expires_at, t.refresh_expires_at,
         ARRAY(SELECT a.account_hash FROM gateway.connection_accounts a WHERE a.connection_id = p.id AND NOT a.mark ORDER BY 1) AS accounts
    FROM page p JOIN gateway.grants g ON g.connection_id = p.id JOIN gateway.tokens t USING (connection_id, access_profile)
   WHERE g.state NOT IN ('revoked', 'pending', 'closed')),
audited AS (
  INSERT INTO gateway.audit (at, action, actor, tenant_id, connection_id, access_profile, generation, token_version)
  SELECT gateway.now(), $5, $6, tenant_id, id, access_profile, generation, token_version FROM sets)
SELECT * FROM sets ORDER BY id, access_profile"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which connections, for whom, and who asked."""

    recipient: Recipient
    actor: UUID
    tenant: str | None = None
    integration: UUID | None = None


async def lines(gateway: Gateway, wanted: Wanted) -> AsyncIterator[str]:
    """The export's lines, each ended; the last says how many connections there were.    Raises: Unavailable."""
    export, number, unopened = ids.uuid7(gateway.clock.now()), 0, 0

    def sealed(told: dict[str, Any], place: dict[str, Any]) -> str:
        place |= {"export": export.hex, "line": number + 1}
        return seal(wanted.recipient, orjson.dumps(told, option=orjson.OPT_UTC_Z)) + "\n"

    for region in gateway.regions:
        after = UUID(int=0)
        while rows := await _taken(region.database, wanted, after):
            after = rows[-1]["id"]
            names = {(row["tenant_id"], row["data_key_version"]) for row in rows}
            await region.tokens.keys.openable(names)  # in one call; what does not open shows below
            for of_one in _by_connection(rows):
                try:
                    told = await _told(gateway, region, of_one)
                except SealBroken:
                    unopened += 1
                    continue
                yield sealed(told, told["posthouse"])
                number += 1
    end = {"connections": number, "unopened": unopened}
    yield sealed({"end": end}, end)


async def _taken(db: Db, wanted: Wanted, after: UUID) -> Sequence[Any]:
    return await db.fetch(TAKE, after, wanted.tenant, wanted.integration, CHUNK, ACTION, wanted.actor)


def _by_connection(rows: Sequence[Any]) -> list[list[Any]]:
    of: dict[UUID, list[Any]] = {}
    for row in rows:
        of.setdefault(row["id"], []).append(row)
    return list(of.values())


async def _told(gateway: Gateway, region: Region, rows: Sequence[Any]) -> dict[str, Any]:
    """One connection, as an import's line has it.    Raises: SealBroken, Unavailable."""
    first = rows[0]
    integration = gateway.catalog.integration_by_id(first["integration_id"])
    shown = ids.show(ids.CONNECTION, first["id"])
    return {
        "tenant": first["tenant_id"],
        "integration": None if integration is None else integration.name,
        "external_id": first["external_id"] or shown,
        "end_user_id": first["end_user_id"],
        "labels": orjson.loads(first["labels"]),
        "access_profiles": {row["access_profile"]: (await _tokens(region, row)).as_json() for row in rows},
        "posthouse": {
            "connection": shown,
            "state": first["state"],
            "reason": first["reason"],
            "grants": {
                row["access_profile"]: {"state": row["grant_state"], "reason": row["grant_reason"], "held": row["held"]}
                for row in rows
            },
            "hashes": {
                "of": mark_of(gateway.control_keyring, first["integration_id"]).hex,
                "accounts": [account.hex for account in first["accounts"]],
                "subject": None if first["subject_hash"] is None else first["subject_hash"].hex,
                "reach": {row["access_profile"]: row["reach_hash"].hex for row in rows if row["reach_hash"] is not None},
            },
        },
    }  # fmt: skip


async def _tokens(region: Region, row: Any) -> TokenLine:
    place = Place(
        region.name, row["tenant_id"], row["id"], row["access_profile"], row["generation"], row["token_version"]
    )
    version, path = row["data_key_version"], row["kv_path"]
    access = await region.tokens.open(place, "access_token", version, row["sealed_access"], path)
    refresh = (
        await region.tokens.open(place, "refresh_token", version, row["sealed_refresh"], path)
        if row["has_refresh"]
        else None
    )
    return TokenLine(
        access_token=access or None,  # none came in: then there is nothing that expires either
        refresh_token=refresh,
        token_type=row["token_type"],
        expires_at=row["expires_at"] if access else None,
        refresh_expires_at=row["refresh_expires_at"],
        scopes=tuple(row["granted"]),
        parameters=orjson.loads(row["parameters"]),
        kind=row["kind"],
    )
