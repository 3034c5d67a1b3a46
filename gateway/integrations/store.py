"""Integrations in control. SQL beside the function that runs it; the caller owns the transaction.

An integration that a file declares is changed by that file only, and one made by API by the API only (`by`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway import ids
from gateway.database import Db
from gateway.errors import Conflict, NotFound
from gateway.integrations import secrets
from gateway.integrations.profiles import AccessProfile, as_json, from_json
from gateway.integrations.wanted import PURPOSES, DeclaredBy, Purpose, Unattributed, Wanted, checked
from gateway.vault.keyring import Keyring
from providers.registry import Provider

CHANGEABLE = (
    "client_id",
    "settings",
    "unattributed",
    "region",
    "access_profiles",
    "return_urls",
)  # by name; name and provider stay as made


@dataclass(frozen=True, slots=True)
class Stored:
    """An integration as it is listed. Of its secrets only when each was added, newest first."""

    id: UUID
    name: str
    provider: str
    region: str
    client_id: str | None
    settings: Mapping[str, Any]
    unattributed: Unattributed
    access_profiles: Mapping[str, AccessProfile]
    return_urls: tuple[str, ...]
    declared_by: DeclaredBy
    created_at: datetime
    updated_at: datetime
    secrets: Mapping[Purpose, tuple[datetime, ...]] = field(default_factory=dict)


async def lock(tx: Db) -> None:
    """Let no other writer of integrations in until this transaction ends. Every change updates this row anyway."""
    await tx.execute("SELECT FROM control.state FOR UPDATE")


FIELDS = """id, name, provider, region, client_id, settings, unattributed, access_profiles, return_urls, declared_by,
             created_at, updated_at"""
ROWS = f"SELECT {FIELDS} FROM control.integrations ORDER BY name"  # noqa: S608  # a constant


async def all_rows(db: Db) -> list[Stored]:
    """Every integration by name, without its secrets."""
    return [_stored(row) for row in await db.fetch(ROWS)]


ADDED = """array(SELECT added_at FROM control.integration_secrets AS s
                 WHERE s.integration_id = i.id AND purpose = '{0}' ORDER BY position) AS {0}"""
SELECT = f"""SELECT {FIELDS}, {ADDED.format("signing_secrets")}, {ADDED.format("client_secrets")} FROM control.integrations AS i"""  # noqa: S608  # constants
PAGE = SELECT + " WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2"
BY_NAME = SELECT + " WHERE name = $1"
BY_ID = SELECT + " WHERE id = $1"


async def page(db: Db, *, after: UUID | None = None, limit: int = 100) -> list[Stored]:
    """Integrations in the order they were made, from the one behind `after`."""
    return [_stored(row) for row in await db.fetch(PAGE, after, limit)]


async def get(db: Db, which: str | UUID) -> Stored:
    """By name, or by id.    Raises: NotFound."""
    row = await db.fetchrow(BY_NAME if isinstance(which, str) else BY_ID, which)
    if row is None:
        raise NotFound("there is no such integration")
    return _stored(row)


CREATE = """INSERT INTO control.integrations
              (id, name, provider, region, client_id, settings, unattributed, access_profiles, return_urls, declared_by,
               created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11) ON CONFLICT (name) DO NOTHING RETURNING id"""


async def create(
    tx: Db, keyring: Keyring, wanted: Wanted, now: datetime, *, by: DeclaredBy, new_id: UUID | None = None
) -> Stored:
    """Make a `checked` integration and seal its secrets.    Raises: Conflict, the name is taken."""
    made = await tx.fetchval(
        CREATE, new_id or ids.uuid7(now), wanted.name, wanted.provider, wanted.region, wanted.client_id,
        json.dumps(wanted.settings), wanted.unattributed, json.dumps(as_json(wanted.access_profiles)),
        list(wanted.return_urls), by, now,
    )  # fmt: skip
    if made is None:
        raise Conflict(f"there is already an integration {wanted.name!r}")
    for purpose in PURPOSES:
        await secrets.put(tx, keyring, made, purpose, wanted.secrets.get(purpose, ()), now)
    return await get(tx, made)


UPDATE = """UPDATE control.integrations SET region = $2, client_id = $3, settings = $4, unattributed = $5,
                   access_profiles = $6, return_urls = $7, updated_at = $8 WHERE id = $1"""


async def save(tx: Db, current: Stored, wanted: Wanted, now: datetime, *, by: DeclaredBy) -> None:
    """Put a `checked` integration's own fields in the place of `current`'s; its secrets stay.    Raises: Conflict."""
    refuse_others(current, by)
    if wanted.provider != current.provider:
        raise Conflict(f"integration {current.name!r} is of {current.provider}: delete it before it becomes another's")
    await tx.execute(
        UPDATE, current.id, wanted.region, wanted.client_id, json.dumps(wanted.settings), wanted.unattributed,
        json.dumps(as_json(wanted.access_profiles)), list(wanted.return_urls), now,
    )  # fmt: skip


async def update(
    tx: Db,
    which: str | UUID,
    changes: Mapping[str, Any],
    now: datetime,
    *,
    by: DeclaredBy,
    providers: Mapping[str, Provider],
    regions: Collection[str],
) -> Stored:
    """Change some of CHANGEABLE; what is not named stays.    Raises: NotFound, Conflict, Invalid."""
    await lock(tx)
    current = await get(tx, which)
    refuse_others(current, by)
    fields = {name: changes.get(name, getattr(current, name)) for name in CHANGEABLE}
    wanted = checked(Wanted(name=current.name, provider=current.provider, **fields), providers, regions)
    await save(tx, current, wanted, now, by=by)
    return await get(tx, current.id)


async def delete(tx: Db, which: str | UUID, *, by: DeclaredBy) -> Stored:
    """Remove it with its secrets; its deliveries are 404 within a second.    Raises: NotFound, Conflict."""
    await lock(tx)
    current = await get(tx, which)
    refuse_others(current, by)
    await tx.execute("DELETE FROM control.integrations WHERE id = $1", current.id)
    return current


def refuse_others(current: Stored, by: DeclaredBy) -> None:
    """Raises: Conflict: the integration is the other side's to change."""
    if current.declared_by == by:
        return
    if by == "api":
        raise Conflict(
            f"integration {current.name!r} is declared in posthouse.toml: change it there and `posthouse apply`"
        )
    raise Conflict(f"integration {current.name!r} was made by API: delete it there, or take it out of the file")


def _stored(row: Any) -> Stored:
    fields = dict(row)
    added: dict[Purpose, tuple[datetime, ...]] = {p: tuple(fields.pop(p)) for p in PURPOSES if p in fields}
    fields["settings"] = json.loads(fields["settings"])
    fields["access_profiles"] = from_json(json.loads(fields["access_profiles"]))
    fields["return_urls"] = tuple(fields["return_urls"])
    return Stored(**fields, secrets=added)
