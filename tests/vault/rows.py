"""Sealed rows in any number: connections with their grants and tokens, whose plaintext is told by their id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from gateway import ids
from gateway.vault.data_keys import DataKeys
from gateway.vault.tokens import Place, sealed_text

PROFILE = "reader"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHUNK = 20_000


def access_of(connection: UUID) -> str:
    return f"access-{connection.hex}"


def refresh_of(connection: UUID) -> str:
    return f"refresh-{connection.hex}"


def place_of(region: str, row: Any) -> Place:
    """Where a row of `gateway.tokens` lies."""
    return Place(
        region, row["tenant_id"], row["connection_id"], row["access_profile"], row["generation"], row["token_version"]
    )


async def fill(dsn: str, keys: DataKeys, tenants: Sequence[str], per_tenant: int) -> list[UUID]:
    """`per_tenant` sealed token sets for each tenant: the connections' ids."""
    made: list[UUID] = []
    db = await asyncpg.connect(dsn, command_timeout=600)
    try:
        step = max(CHUNK // per_tenant, 1)
        for at in range(0, len(tenants), step):
            chunk = tenants[at : at + step]
            newest = await keys.for_sealing_all(chunk)
            connections, grants, tokens = [], [], []
            for tenant in chunk:
                key = newest[tenant]
                for _ in range(per_tenant):
                    connection = ids.uuid7(NOW)
                    place = Place(keys.region, tenant, connection, PROFILE, 1, 1)
                    access = sealed_text(key, access_of(connection), place.aad("access_token"))
                    refresh = sealed_text(key, refresh_of(connection), place.aad("refresh_token"))
                    made.append(connection)
                    connections.append((connection, tenant, ids.of(b"integration-------"[:16]), NOW, NOW))
                    grants.append((connection, PROFILE, "active", 1, 1, NOW))
                    tokens.append((connection, PROFILE, tenant, 1, 1, key.version, access, refresh, True, NOW))
            for table, columns, records in (
                ("connections", "id tenant_id integration_id created_at updated_at", connections),
                ("grants", "connection_id access_profile state generation token_version granted_at", grants),
                (
                    "tokens",
                    "connection_id access_profile tenant_id generation token_version data_key_version sealed_access "
                    "sealed_refresh has_refresh issued_at",
                    tokens,
                ),
            ):
                await db.copy_records_to_table(table, schema_name="gateway", columns=columns.split(), records=records)
    finally:
        await db.close()
    return made
