"""Integrations and their sealed secrets in control: reading them. SQL beside the function that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from gateway.database import Db
from gateway.vault.cipher import Aad

Purpose = Literal["signing_secrets", "client_secrets"]
PURPOSES: tuple[Purpose, ...] = ("signing_secrets", "client_secrets")
Unattributed = Literal["keep", "drop"]
DeclaredBy = Literal["file", "api"]


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One secret's row."""

    id: UUID
    integration_id: UUID
    purpose: Purpose
    position: int  # 0 is the newest
    sealed: bytes = field(repr=False)
    fingerprint: bytes = field(repr=False)
    added_at: datetime


def secret_aad(integration: UUID, purpose: Purpose, row: UUID) -> Aad:
    """What an integration's secret is bound to: its row, so one that was moved does not open."""
    return Aad(place="control", owner=integration, purpose=purpose, row=row)


ROWS = """SELECT id, name, provider, region, client_id, settings, unattributed, declared_by, created_at, updated_at
          FROM control.integrations ORDER BY name"""


async def all_rows(db: Db) -> list[Any]:
    """Every integration's row, by name."""
    return list(await db.fetch(ROWS))


SECRETS = """SELECT id, integration_id, purpose, position, sealed, fingerprint, added_at
             FROM control.integration_secrets ORDER BY integration_id, purpose, position"""


async def all_secrets(db: Db) -> list[SealedSecret]:
    """Every secret's row; of each integration and purpose the newest first."""
    return [SealedSecret(**dict(row)) for row in await db.fetch(SECRETS)]
