"""An integration's secrets: sealed at once, newest first, told apart by keyed fingerprints.

Rotation: put the new one in front (`rotate_secret`), change it at the provider, and when nothing is signed with the
old one any more (`Verified.secret` tells) `retire` it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from gateway import ids
from gateway.database import Db
from gateway.errors import Invalid
from gateway.integrations.wanted import MAX_SECRETS, Purpose
from gateway.vault import direct
from gateway.vault.cipher import Aad
from gateway.vault.direct import Direct
from gateway.vault.keyring import Keyring


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


@dataclass(frozen=True, slots=True)
class Moved:
    """What putting a list of secrets did: numbers, never values."""

    total: int
    added: int = 0
    removed: int = 0
    reordered: bool = False

    @property
    def anything(self) -> bool:
        return bool(self.added or self.removed or self.reordered)


def secret_aad(integration: UUID, purpose: Purpose, row: UUID) -> Aad:
    """What an integration's secret is bound to: its row, so one that was moved does not open."""
    return Aad(place="control", owner=integration, purpose=purpose, row=row)


def fingerprint(keyring: Keyring, integration: UUID, purpose: Purpose, secret: bytes) -> bytes:
    """Equal for equal secrets of one integration and purpose only; tells nothing without the hashing key."""
    return keyring.mac(f"integration:{purpose}", integration.bytes + secret)


ALL = """SELECT id, integration_id, purpose, position, sealed, fingerprint, added_at FROM control.integration_secrets
         WHERE $1::uuid IS NULL OR integration_id = $1 ORDER BY integration_id, purpose, position"""


async def all_secrets(db: Db, integration: UUID | None = None) -> list[SealedSecret]:
    """Every secret's row (of one integration); of each integration and purpose the newest first."""
    return [SealedSecret(**dict(row)) for row in await db.fetch(ALL, integration)]


def compare(
    keyring: Keyring, integration: UUID, purpose: Purpose, held: Sequence[SealedSecret], wanted: Sequence[bytes]
) -> Moved:
    """What `put` would do."""
    before = [row.fingerprint for row in held]
    after = [fingerprint(keyring, integration, purpose, secret) for secret in wanted]
    stay = [mark for mark in before if mark in after]
    return Moved(
        total=len(after),
        added=len(set(after) - set(before)),
        removed=len(before) - len(stay),
        reordered=stay != [mark for mark in after if mark in before],
    )


INSERT = """INSERT INTO control.integration_secrets (id, integration_id, purpose, position, sealed, fingerprint, added_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)"""
MOVE = "UPDATE control.integration_secrets SET position = $2 WHERE id = $1"
REMOVE = "DELETE FROM control.integration_secrets WHERE id = ANY($1::uuid[])"


async def put(
    tx: Db, keyring: Keyring, integration: UUID, purpose: Purpose, wanted: Sequence[bytes], now: datetime
) -> Moved:
    """Make the list be `wanted` (newest first, none twice). Those that are there already keep their rows."""
    held = [row for row in await all_secrets(tx, integration) if row.purpose == purpose]
    moved = compare(keyring, integration, purpose, held, wanted)
    by_mark = {row.fingerprint: row for row in held}
    for position, secret in enumerate(wanted):
        mark = fingerprint(keyring, integration, purpose, secret)
        row = by_mark.pop(mark, None)
        if row is None:
            await _insert(tx, keyring, integration, purpose, position, secret, now)
        elif row.position != position:
            await tx.execute(MOVE, row.id, position)  # positions are compared at commit: the constraint is deferred
    if by_mark:
        await tx.execute(REMOVE, [row.id for row in by_mark.values()])
    return moved


async def rotate_secret(
    tx: Db, keyring: Keyring, integration: UUID, purpose: Purpose, new: bytes, now: datetime
) -> Moved:
    """Put `new` in front; one that is there already comes to the front.    Raises: Invalid, there are too many."""
    held = [row for row in await all_secrets(tx, integration) if row.purpose == purpose]
    mark = fingerprint(keyring, integration, purpose, new)
    rest = [row for row in held if row.fingerprint != mark]
    if len(rest) >= MAX_SECRETS:
        raise Invalid(f"there are {len(held)} {purpose} already: retire old ones first")
    known = len(rest) != len(held)
    if known and held[0].fingerprint == mark:
        return Moved(len(held))
    for position, row in enumerate(rest, start=1):
        await tx.execute(MOVE, row.id, position)
    if known:
        await tx.execute(MOVE, next(row.id for row in held if row.fingerprint == mark), 0)
    else:
        await _insert(tx, keyring, integration, purpose, 0, new, now)
    return Moved(len(rest) + 1, added=0 if known else 1, reordered=known)


async def retire(tx: Db, integration: UUID, purpose: Purpose, *, keep: int = 1) -> Moved:
    """Remove the oldest secrets, all but the newest `keep`."""
    held = [row for row in await all_secrets(tx, integration) if row.purpose == purpose]
    old = held[max(keep, 0) :]
    if old:
        await tx.execute(REMOVE, [row.id for row in old])
    return Moved(len(held) - len(old), removed=len(old))


async def _insert(
    tx: Db, keyring: Keyring, integration: UUID, purpose: Purpose, position: int, secret: bytes, now: datetime
) -> None:
    row = ids.uuid7(now)
    sealed = keyring.seal(secret, secret_aad(integration, purpose, row))
    mark = fingerprint(keyring, integration, purpose, secret)
    await tx.execute(INSERT, row, integration, purpose, position, sealed, mark, now)


SEALED = Direct(
    name="integration secrets",
    line="control",
    key=("id",),
    start=(UUID(int=0),),
    under=f"SELECT count(*) FROM control.integration_secrets WHERE substring(sealed {direct.PREFIX}) = $1",  # noqa: S608 - constants
    read=f"""SELECT id, integration_id, purpose, ARRAY[sealed] AS sealed FROM control.integration_secrets
              WHERE id > $3 AND substring(sealed {direct.PREFIX}) <> $1 ORDER BY id LIMIT $2""",  # noqa: S608 - the same
    write="UPDATE control.integration_secrets SET sealed = ($1::bytea[])[1] WHERE id = $3 AND sealed = ($2::bytea[])[1]",
    aad=lambda _, row: secret_aad(row["integration_id"], row["purpose"], row["id"]),
)
