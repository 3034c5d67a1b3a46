"""API keys: shown once, stored as a keyed hash.

A key reads `ph_` + 8 characters + `_` + 43 characters (32 random bytes). The beginning up to the second underscore
is kept in clear, so that people can tell keys apart; of the whole only a MAC under the keyring's hashing key is kept.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from gateway import ids
from gateway.access.roles import ADMIN, ROLES
from gateway.clock import random_bytes
from gateway.database import Db
from gateway.errors import Invalid, NotFound
from gateway.vault.keyring import Keyring

PREFIX_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # 32 characters, none like another, so 5 bits each
COLUMNS = "id, name, role, prefix, created_at, expires_at, revoked_at, last_used_at"


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it is listed: everything but the key."""

    id: UUID
    name: str
    role: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who asks: what a process keeps in memory of a key that opens the door."""

    id: UUID
    name: str
    role: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `token` is the key itself, shown this once."""

    key: Key
    token: str = field(repr=False)


def hash_of(keyring: Keyring, token: str) -> bytes:
    """What is stored of a key. The same amount of work for any text of a key's length."""
    return keyring.mac("api_key", token.encode("utf-8", "replace"))


CREATE = f"""INSERT INTO control.api_keys (id, name, role, prefix, hash, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {COLUMNS}"""  # noqa: S608  # COLUMNS is a constant


async def create(
    tx: Db,
    keyring: Keyring,
    now: datetime,
    *,
    name: str,
    role: str = ADMIN,
    expires_at: datetime | None = None,
    new_id: UUID | None = None,
) -> NewKey:
    """Make a key.    Raises: Invalid: no such role, no usable name, or an end that has passed."""
    if role not in ROLES:
        raise Invalid(f"there is no such role: one of {', '.join(ROLES)}")
    if not 1 <= len(name) <= 200 or not name.isprintable():
        raise Invalid("a key's name is 1 to 200 printable characters")
    if expires_at is not None and expires_at <= now:
        raise Invalid("expires_at has passed already")
    prefix = "ph_" + "".join(PREFIX_ALPHABET[byte % 32] for byte in random_bytes(8))
    token = prefix + "_" + base64.urlsafe_b64encode(random_bytes(32)).rstrip(b"=").decode()
    row = await tx.fetchrow(
        CREATE, new_id or ids.uuid7(now), name, role, prefix, hash_of(keyring, token), now, expires_at
    )
    return NewKey(_key(row), token)


async def ensure_first(tx: Db, keyring: Keyring, now: datetime, *, name: str = "first") -> NewKey | None:
    """An admin key, if there is no key at all yet, revoked ones included; else None. Safe against a second process."""
    await tx.execute("SELECT FROM control.state FOR UPDATE")
    # A statement of its own: only now it sees what the one that held the lock before us has committed.
    if await tx.fetchval("SELECT EXISTS (SELECT FROM control.api_keys)"):
        return None
    return await create(tx, keyring, now, name=name, role=ADMIN)


PAGE = f"""SELECT {COLUMNS} FROM control.api_keys
           WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2"""  # noqa: S608  # COLUMNS is a constant


async def page(db: Db, *, after: UUID | None = None, limit: int = 100) -> list[Key]:
    """Keys in the order they were made, from the one behind `after`."""
    return [_key(row) for row in await db.fetch(PAGE, after, limit)]


GET = f"SELECT {COLUMNS} FROM control.api_keys WHERE id = $1"  # noqa: S608  # COLUMNS is a constant


async def get(db: Db, key_id: UUID) -> Key:
    """Raises: NotFound."""
    row = await db.fetchrow(GET, key_id)
    if row is None:
        raise NotFound("there is no such key")
    return _key(row)


REVOKE = f"""UPDATE control.api_keys SET revoked_at = coalesce(revoked_at, $2)
             WHERE id = $1 RETURNING {COLUMNS}"""  # noqa: S608  # COLUMNS is a constant


async def revoke(tx: Db, key_id: UUID, now: datetime) -> Key:
    """End a key; processes learn of it within a second. Again: nothing new.    Raises: NotFound."""
    row = await tx.fetchrow(REVOKE, key_id, now)
    if row is None:
        raise NotFound("there is no such key")
    return _key(row)


LIVE = """SELECT id, name, role, hash, expires_at FROM control.api_keys
          WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)"""


async def live(db: Db, now: datetime) -> dict[bytes, ApiKey]:
    """By hash: the keys that are neither revoked nor over at `now`."""
    rows = await db.fetch(LIVE, now)
    return {row["hash"]: ApiKey(row["id"], row["name"], row["role"], row["expires_at"]) for row in rows}


# A column that the trigger does not watch: use moves no revision. Several processes note the same key: the latest
# time stands, and one who comes within the minute after another writes nothing.
NOTE = """UPDATE control.api_keys AS k SET last_used_at = used.at
          FROM unnest($1::uuid[], $2::timestamptz[]) AS used (id, at)
          WHERE k.id = used.id AND (k.last_used_at IS NULL OR k.last_used_at < used.at - interval '1 minute')"""


async def note_used(tx: Db, used: Mapping[UUID, datetime]) -> None:
    """Note when keys were used last. Callers batch: about once a minute."""
    ordered = sorted(used.items())  # one order of row locks in every process
    await tx.execute(NOTE, [key for key, _ in ordered], [at for _, at in ordered])


def _key(row: Any) -> Key:
    return Key(**dict(row))
