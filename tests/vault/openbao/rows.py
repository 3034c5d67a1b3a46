"""Rows of gateway.tokens, with what they stand on, for tests that need no connect flow."""

from __future__ import annotations

from uuid import UUID, uuid4

from gateway.database import Db
from gateway.vault.tokens import Place, Sealed

CONNECTION = """INSERT INTO gateway.connections (id, tenant_id, integration_id, labels, state, created_at, updated_at)
                VALUES ($1, $2, $3, '{}', 'active', gateway.now(), gateway.now()) ON CONFLICT DO NOTHING"""
GRANT = """INSERT INTO gateway.grants (connection_id, access_profile, state, generation, token_version, granted_at)
           VALUES ($1, $2, 'active', $3, $4, gateway.now()) ON CONFLICT DO NOTHING"""
PUT = """INSERT INTO gateway.tokens (connection_id, access_profile, tenant_id, generation, token_version, data_key_version,
                                     sealed_access, sealed_refresh, kv_path, has_refresh, issued_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, true, gateway.now())
         ON CONFLICT (connection_id, access_profile) DO UPDATE SET token_version = excluded.token_version,
           data_key_version = excluded.data_key_version, sealed_access = excluded.sealed_access,
           sealed_refresh = excluded.sealed_refresh, kv_path = excluded.kv_path"""
GET = """SELECT generation, token_version, data_key_version, sealed_access, sealed_refresh, kv_path
           FROM gateway.tokens WHERE connection_id = $1 AND access_profile = $2"""


def place(tenant: str = "acme", connection: UUID | None = None, version: int = 1) -> Place:
    return Place("default", tenant, connection or uuid4(), "reader", 1, version)


async def put(db: Db, where: Place, sealed: Sealed) -> None:
    """Make `where`'s row hold `sealed`."""
    await db.execute(CONNECTION, where.connection, where.tenant, uuid4())
    await db.execute(GRANT, where.connection, where.profile, where.generation, where.version)
    await db.execute(
        PUT, where.connection, where.profile, where.tenant, where.generation, where.version, sealed.data_key_version,
        sealed.access, sealed.refresh, sealed.kv_path,
    )  # fmt: skip


async def get(db: Db, where: Place) -> Sealed:
    """What `where`'s row holds."""
    row = await db.fetchrow(GET, where.connection, where.profile)
    assert row is not None
    return Sealed(row["data_key_version"], row["sealed_access"], row["sealed_refresh"], row["kv_path"])
