"""Ending a connection: one transaction closes it, takes its tokens out of the vault's reach, and says so on the stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from gateway.catalog import Catalog, Integration
from gateway.connections import grants, transitions
from gateway.connections import store as connections
from gateway.database import Db
from gateway.ending import tasks
from gateway.ending.tasks import NewTask
from gateway.exchange import facts_of
from gateway.regions import Region
from gateway.vault import cipher
from gateway.vault.tokens import Place, SealBroken, closing_place
from providers.errors import Misconfigured

HELD = """SELECT g.access_profile, g.state, g.held, g.generation, g.token_version, g.parameters, g.reach_hash,
                 t.data_key_version, t.sealed_access, t.sealed_refresh, t.kv_path, t.has_refresh, t.token_type
            FROM gateway.grants g JOIN gateway.tokens t USING (connection_id, access_profile) WHERE g.connection_id = $1"""
SHRED = "DELETE FROM gateway.tokens WHERE connection_id = $1"
REVOKED = "SELECT EXISTS (SELECT FROM gateway.grants WHERE connection_id = $1 AND state = 'revoked')"
NOT_NEEDED = "UPDATE gateway.connections SET revocation = 'not_needed' WHERE id = $1"


async def end(region: Region, catalog: Catalog, connection_id: UUID, new_id: Callable[[], UUID]) -> None:
    """End a connection: no token of it is handed out from this commit on. Again: nothing new.

    `new_id()` gives ids. Tokens that can be revoked at the provider are sealed again, for that alone.

    Raises: NotFound; Unavailable (the database, or what opens the tokens, is away: nothing has been done).
    """
    paths = []
    async with region.database.transaction() as tx:
        state = await grants.lock(tx, connection_id)
        if state != "closed":
            connection = await connections.get(tx, connection_id)
            integration = catalog.integration_by_id(connection.integration_id)
            rows = await tx.fetch(HELD, connection_id)
            accounts = sorted(await connections.accounts_of(tx, connection_id))
            pending = False
            for row in rows:
                paths.append(row["kv_path"])
                if _can_be_revoked(integration, row):
                    pending |= await _move(tx, region, connection, row, accounts, new_id())
            if rows:
                await tx.execute(SHRED, connection_id)
            if not pending and (rows or await tx.fetchval(REVOKED, connection_id)):  # its tokens were shredded then
                await tx.execute(NOT_NEEDED, connection_id)
        await transitions.close(tx, connection_id, new_id)
    await region.tokens.discard(paths)


def _can_be_revoked(integration: Integration | None, row: Any) -> bool:
    """Held tokens are another system's still: it would lose them. Revoked ones are gone already."""
    if integration is None or integration.provider.oauth is None or integration.provider.revoke is None:
        return False  # one that is only broken may be mended in time: the worker tries
    return not row["held"] and row["state"] != "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A token set that nobody is to have any more, and whose it was."""

    tenant: str
    connection_id: UUID
    access_profile: str
    integration_id: UUID
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    token_type: str
    parameters: Mapping[str, str]
    reach_hash: UUID | None
    accounts: Sequence[UUID] = ()
    subject_hash: UUID | None = None


async def leave(tx: Db, region: Region, it: Leaving, task_id: UUID) -> None:
    """Seal a token set for its revocation, and for nothing else.    Raises: Unavailable, SealBroken."""
    key = await region.tokens.keys.for_sealing(it.tenant)
    told = {"access_token": it.access_token, "refresh_token": it.refresh_token, "token_type": it.token_type}
    aad = closing_place(region.name, it.tenant, task_id, it.access_profile).aad("closing")
    new = NewTask(
        id=task_id, tenant=it.tenant, connection_id=it.connection_id, access_profile=it.access_profile,
        integration_id=it.integration_id, data_key_version=key.version,
        sealed=cipher.seal(key.cipher, key.version, orjson.dumps(told), aad), parameters=it.parameters,
        reach_hash=it.reach_hash, accounts=it.accounts, subject_hash=it.subject_hash,
    )  # fmt: skip
    await tasks.add(tx, new)


def ends_alone(integration: Integration | None) -> bool:
    """Whether a revocation at its provider ends the token set that is sent, and nothing else."""
    if integration is None or integration.provider.revoke is None:
        return False
    try:
        return facts_of(integration).revoke_reach == "token"
    except Misconfigured:
        return False


async def _move(
    tx: Db, region: Region, connection: connections.Connection, row: Any, accounts: list[UUID], task_id: UUID
) -> bool:
    """Seal a grant's tokens for their revocation; False: they do not open any more, so nothing can be sent."""
    place = Place(
        region.name, connection.tenant_id, connection.id, row["access_profile"], row["generation"], row["token_version"]
    )
    version, path, vault = row["data_key_version"], row["kv_path"], region.tokens
    try:
        access = await vault.open(place, "access_token", version, row["sealed_access"], path)
        refresh = (
            await vault.open(place, "refresh_token", version, row["sealed_refresh"], path)
            if row["has_refresh"]
            else None
        )
        leaving = Leaving(
            tenant=connection.tenant_id, connection_id=connection.id, access_profile=row["access_profile"],
            integration_id=connection.integration_id, access_token=access, refresh_token=refresh,
            token_type=row["token_type"], parameters=json.loads(row["parameters"]), reach_hash=row["reach_hash"],
            accounts=accounts, subject_hash=connection.subject_hash,
        )  # fmt: skip
        await leave(tx, region, leaving, task_id)
    except SealBroken:
        return False
    return True
