"""Where tokens lie: in tables of their own, tied to their connection, beside no API key and no user's credential."""

from __future__ import annotations

import re

import pytest

from gateway.cli import rotating
from gateway.database import Database
from gateway.vault import rewrap, sealed_tables

# Exactly these columns. One that is added is looked at here first: is it a credential of anybody else's?
COLUMNS = {
    "tokens": {
        "connection_id", "access_profile", "tenant_id", "generation", "token_version", "data_key_version", "sealed_access",
        "sealed_refresh", "kv_path", "has_refresh", "token_type", "issued_at", "expires_at", "refresh_expires_at",
    },
    "staged_tokens": {"session_id", "access_profile", "tenant_id", "data_key_version", "sealed", "answered_at", "epoch"},
    "closing_tasks": {
        "id", "tenant_id", "connection_id", "access_profile", "integration_id", "data_key_version", "sealed", "parameters",
        "due_at", "until", "tries", "last_error", "lease_until", "fence",
        "reach_hash", "accounts", "subject_hash",  # keyed hashes: whom else a revocation would reach
    },
    "data_keys": {"tenant_id", "version", "wrapped", "wrapped_under", "created_at"},
}  # fmt: skip
KEYS = {
    "tokens": {
        "FOREIGN KEY (connection_id, access_profile) REFERENCES gateway.grants(connection_id, access_profile) ON DELETE CASCADE",
        "FOREIGN KEY (tenant_id, data_key_version) REFERENCES gateway.data_keys(tenant_id, version)",
    },
    "grants": {"FOREIGN KEY (connection_id) REFERENCES gateway.connections(id) ON DELETE CASCADE"},
    "staged_tokens": {
        "FOREIGN KEY (session_id) REFERENCES gateway.connect_sessions(id) ON DELETE CASCADE",
        "FOREIGN KEY (tenant_id, data_key_version) REFERENCES gateway.data_keys(tenant_id, version)",
    },
    "closing_tasks": {"FOREIGN KEY (tenant_id, data_key_version) REFERENCES gateway.data_keys(tenant_id, version)"},
}
CREDENTIAL = re.compile(r"api_key|key_hash|password|role|browser|link|code|verifier|client_secret|cookie|actor")


@pytest.mark.parametrize("table", COLUMNS)
async def test_token_tables_hold_tokens_and_nothing_else(database: Database, table: str) -> None:
    """Exactly these columns, none of which names a credential of an API client or a user."""
    found = await database.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'gateway' AND table_name = $1", table
    )
    names = {row["column_name"] for row in found}
    assert names == COLUMNS[table]
    assert not [name for name in names if CREDENTIAL.search(name)]


@pytest.mark.parametrize("table", KEYS)
async def test_token_tables_have_their_foreign_keys(database: Database, table: str) -> None:
    """A token without its connection, its grant or its data key cannot be."""
    found = await database.fetch(
        "SELECT pg_get_constraintdef(oid) AS told FROM pg_constraint WHERE contype = 'f' AND conrelid = $1::regclass",
        f"gateway.{table}",
    )
    assert {row["told"] for row in found} == KEYS[table]


# Columns of bytes that are no sealed value: keyed hashes and marks, which tell nothing back, and the log's own.
TOLD = re.compile(r"hash|_mac|fingerprint|proof|digest|cursor_mark|^gateway\.events\.data$")
SEALED = {
    "control.idempotency_keys.sealed_answer", "control.integration_secrets.sealed", "gateway.closing_tasks.sealed",
    "gateway.connect_sessions.sealed_verifier", "gateway.data_keys.wrapped", "gateway.hook_endpoints.sealed_secrets",
    "gateway.staged_tokens.sealed", "gateway.tokens.sealed_access", "gateway.tokens.sealed_refresh",
}  # fmt: skip


async def test_whatever_is_sealed_is_known_to_the_rotations(database: Database) -> None:
    """Every column of bytes is a keyed hash or one of these; each of these is sealed anew by a rotation, or ends by itself."""
    found = await database.fetch(
        """SELECT table_schema || '.' || table_name || '.' || column_name AS told FROM information_schema.columns
            WHERE table_schema IN ('gateway', 'control') AND (data_type = 'bytea' OR udt_name = '_bytea')
              AND table_name !~ '^events_[0-9]+$'"""
    )
    assert {row["told"] for row in found if not TOLD.search(row["told"])} == SEALED
    walked = [table.write for table in sealed_tables.ALL] + [table.under for table in rotating.DIRECT] + [rewrap.WRITE]
    for column in SEALED:
        schema, table, name = column.split(".")
        assert [sql for sql in walked if f"{schema}.{table}" in sql and name in sql], column
