"""Accounts that are about to be revoked: connections whose grants and sealed tokens have been there for an hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from gateway import ids
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.regions import account_hash
from gateway.vault.backend import LocalKeys
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Keyring
from gateway.vault.tokens import Place, TokenVault

PER_TENANT = 10
SCOPES = ["chat:write", "channels:read"]
TABLES = {
    "connections": "id tenant_id integration_id state created_at updated_at",
    "connection_accounts": "integration_id account_hash connection_id",
    "grants": "connection_id access_profile state generation token_version requested granted granted_at alive_at",
    "tokens": "connection_id access_profile tenant_id generation token_version data_key_version sealed_access sealed_refresh "
    "has_refresh issued_at expires_at",
}


@dataclass(frozen=True, slots=True)
class Account:
    """One connected account. `name`: a workspace of Slack's, an account of the sandbox's."""

    connection: UUID
    name: str
    profile: str  # the one whose token is asked for

    @property
    def shown(self) -> str:
        return ids.show(ids.CONNECTION, self.connection)


def slack_keys(name: str) -> tuple[str, ...]:
    """What Slack calls an installation, and the person who made it."""
    return (f"team:{name}", f"user:{name}/U{name}")


def sandbox_keys(name: str) -> tuple[str, ...]:
    return (f"account:{name}",)


async def fill(
    dsn: str, keyring: Keyring, integration: UUID, names: Sequence[str], *, profiles: Sequence[str], slack: bool
) -> list[Account]:
    """A connection for each name, with an active grant and its token set for each profile; the vault seals them."""
    database, now = Database(dsn), datetime.now(UTC)
    past = now - timedelta(hours=1)  # a signed time must be later than this, by more than the clocks' margin
    await database.open()
    vault = TokenVault(DataKeys("default", database, LocalKeys(keyring), SystemClock()))
    tenants = [f"{names[at]}-tenant" for at in range(0, len(names), PER_TENANT)]
    await vault.keys.for_sealing_all(tenants)
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
    made = []
    for number, name in enumerate(names):
        one, tenant = ids.uuid7(past), tenants[number // PER_TENANT]
        made.append(Account(one, name, profiles[0]))
        rows["connections"].append((one, tenant, integration, "active", past, past))
        for key in slack_keys(name) if slack else sandbox_keys(name):
            rows["connection_accounts"].append((integration, account_hash(keyring, integration, key), one))
        for profile in profiles:
            sealed = await vault.seal(Place("default", tenant, one, profile, 1, 1), f"xoxb-{name}", f"xoxe-{name}")
            rows["grants"].append((one, profile, "active", 1, 1, SCOPES, SCOPES, past, past))
            rows["tokens"].append(
                (
                    one, profile, tenant, 1, 1, sealed.data_key_version, sealed.access, sealed.refresh, True, past,
                    now + timedelta(days=1),
                )
            )  # fmt: skip
    db = await asyncpg.connect(dsn)
    for table, columns in TABLES.items():
        await db.copy_records_to_table(table, schema_name="gateway", records=rows[table], columns=columns.split())
    await db.execute("VACUUM (ANALYZE)")
    await db.close()
    await database.close()
    return made
