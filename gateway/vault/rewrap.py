"""`keyring rotate`: every wrapped data key under the region key's current version.

The walk goes along the index (wrapped_under, tenant_id, version) behind the last batch; when it comes to the end it
begins again, until a whole round finds nothing to do: a process that had not heard of the new version may have wrapped
keys under the old one behind its back. No reader notices: the data key is the same, and the old version still opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gateway.database import Database, Db
from gateway.vault.backend import rewrap, that_open
from gateway.vault.data_keys import DataKeys
from gateway.vault.rotations import Rotation, begin, get, move

BATCH = 2000

LEFT = "SELECT count(*) FROM gateway.data_keys WHERE wrapped_under <> $1"
UNDER = "SELECT count(*) FROM gateway.data_keys WHERE wrapped_under = $1"
READ = """SELECT tenant_id, version, wrapped, wrapped_under FROM gateway.data_keys
           WHERE wrapped_under <> $1 AND (wrapped_under, tenant_id, version) > ($2, $3, $4)
           ORDER BY wrapped_under, tenant_id, version LIMIT $5"""
WRITE = """UPDATE gateway.data_keys d SET wrapped = n.new, wrapped_under = n.under
             FROM unnest($1::text[], $2::integer[], $3::bytea[], $4::bytea[], $5::integer[]) AS n(tenant_id, version, old, new, under)
            WHERE d.tenant_id = n.tenant_id AND d.version = n.version AND d.wrapped = n.old"""


class Rewrap:
    """The work in one region."""

    def __init__(self, keys: DataKeys, database: Database, *, batch: int | None = None) -> None:
        self._keys, self._database, self._batch = keys, database, batch or BATCH

    async def begin(self) -> Rotation:
        """Begin, or go on with what is under way.    Raises: Unavailable."""
        target = await self._keys.backend.current()
        async with self._database.transaction() as tx:
            rotation, new = await begin(tx, "wrap", target)
            if new:
                rotation = await move(tx, rotation, {}, more=await tx.fetchval(LEFT, target))
        return rotation

    async def run_once(self) -> Rotation | None:
        """One batch, in one call of the backend.    Raises: Unavailable."""
        rotation = await get(self._database, "wrap")
        if rotation is None or rotation.ended_at is not None:
            return rotation
        if await self._keys.backend.current() != rotation.target:
            return replace(rotation, position={"waiting": True})  # not heard of here yet; the row stays as it is
        position = dict(rotation.position)
        after = position.get("after", [0, "", 0])
        rows = await self._database.fetch(READ, rotation.target, *after, self._batch)
        if not rows:
            return await self._round_ended(rotation, position)
        last = rows[-1]
        blobs = [(bytes(row["wrapped"]), self._keys.aad(row["tenant_id"], row["version"])) for row in rows]
        anew = await that_open(lambda some: rewrap(self._keys.backend, some), blobs)
        position |= {"after": [last["wrapped_under"], last["tenant_id"], last["version"]]}
        position["broken"] = position.get("broken", 0) + anew.count(None)
        async with self._database.transaction() as tx:
            written = await self._write(tx, rows, anew)
            position["moved"] = position.get("moved", 0) + written
            return await move(tx, rotation, position, done=written)

    async def _round_ended(self, rotation: Rotation, position: dict[str, Any]) -> Rotation:
        moved, broken = position.get("moved", 0), position.get("broken", 0)
        async with self._database.transaction() as tx:
            return await move(tx, rotation, {}, broken=broken, ended=moved == 0)

    async def _write(self, tx: Db, rows: Sequence[Any], anew: Sequence[bytes | None]) -> int:
        new = [(row, blob) for row, blob in zip(rows, anew, strict=True) if blob is not None]
        told = await tx.execute(
            WRITE, [row["tenant_id"] for row, _ in new], [row["version"] for row, _ in new],
            [row["wrapped"] for row, _ in new], [blob for _, blob in new],
            [self._keys.backend.version_of(blob) for _, blob in new],
        )  # fmt: skip
        return int(told.split()[-1])


async def left(db: Db, target: int) -> int:
    """How many data keys are under another version than `target`."""
    return int(await db.fetchval(LEFT, target))


async def under(db: Db, version: int) -> int:
    """How many data keys are wrapped under `version`."""
    return int(await db.fetchval(UNDER, version))
