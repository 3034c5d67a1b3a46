"""`keyring rotate --data`: a new data key for every tenant, and every token set sealed anew under it.

`keys` makes the new versions, tenant by tenant; `seal` walks the data keys that are older than the rotation and seals
what lies under them anew, table by table, keeping generation and token version; `drop` deletes the old data keys that
nothing refers to.

Nothing is locked meanwhile. A row that was written since it was read is left to its writer (compare-and-swap), and
whoever had not heard of a tenant's new data key may seal under the old one for `NEWEST_S` more. So `seal` goes round
again when everybody has heard (`settle`), until a round finds nothing; and an old data key is deleted only when `KEPT_S` have gone by,
which is longer than a token set may take from being sealed to being stored. The foreign keys have the last word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from gateway.database import Database, Db
from gateway.vault import cipher, sealed_tables
from gateway.vault.cipher import Aad, SealBroken
from gateway.vault.data_keys import NEWEST_S, DataKey, DataKeys
from gateway.vault.rotations import Rotation, begin, get, move
from gateway.vault.sealed_tables import SealedTable
from gateway.vault.tokens import Blob, Blobs, Place

ROWS = 2000  # sealed rows a step
NAMES = 500  # data keys whose rows are looked for in one query
SETTLE_S = 2 * NEWEST_S
KEPT_S = 120.0  # the pool (2 s), a statement (30 s), and then some
BLOBS_AT_ONCE = 16
FIRST = (UUID(int=0), "")

STALE = """SELECT tenant_id FROM gateway.data_keys WHERE tenant_id > $1
            GROUP BY tenant_id HAVING max(created_at) < $2 ORDER BY tenant_id LIMIT $3"""
OLD = """SELECT tenant_id, version FROM gateway.data_keys WHERE (tenant_id, version) >= ($1, $2) AND created_at < $3
          ORDER BY tenant_id, version LIMIT $4"""
AGE = "SELECT extract(epoch FROM gateway.now() - max(created_at))::float8 FROM gateway.data_keys WHERE created_at >= $1"
# By sub-select and not by join: each is one look into an index, whatever the planner knows of the tables.
DROP = """DELETE FROM gateway.data_keys d USING unnest($1::text[], $2::integer[]) AS o(tenant_id, version)
           WHERE d.tenant_id = o.tenant_id AND d.version = o.version
             AND (SELECT max(version) FROM gateway.data_keys n WHERE n.tenant_id = d.tenant_id) > d.version
             AND (SELECT 1 FROM gateway.tokens t WHERE t.tenant_id = d.tenant_id AND t.data_key_version = d.version LIMIT 1) IS NULL
             AND (SELECT 1 FROM gateway.staged_tokens t WHERE t.tenant_id = d.tenant_id AND t.data_key_version = d.version LIMIT 1) IS NULL
             AND (SELECT 1 FROM gateway.closing_tasks t WHERE t.tenant_id = d.tenant_id AND t.data_key_version = d.version LIMIT 1) IS NULL"""


class Reseal:
    """The work in one region."""

    def __init__(
        self,
        keys: DataKeys,
        database: Database,
        blobs: Blobs | None = None,
        *,
        rows: int | None = None,
        names: int = NAMES,
    ) -> None:
        """`blobs`: where token sets lie that rows point to; without it those stay under their old data keys."""
        self._keys, self._database, self._rows, self._names = keys, database, rows or ROWS, names
        self._blobs = blobs
        self._tables = sealed_tables.ALL if blobs is None else (*sealed_tables.ALL, sealed_tables.BLOBS)

    async def begin(self) -> Rotation:
        """Begin, or go on with what is under way.    Raises: Unavailable."""
        target = await self._keys.backend.current()
        async with self._database.transaction() as tx:
            rotation, new = await begin(tx, "data", target)
            if new:
                counts = [await tx.fetchval(table.count, rotation.began_at) for table in self._tables]
                rotation = await move(tx, rotation, {"step": "keys"}, more=sum(counts))
        return rotation

    async def run_once(self) -> Rotation | None:
        """One step.    Raises: Unavailable."""
        rotation = await get(self._database, "data")
        if rotation is None or rotation.ended_at is not None:
            return rotation
        position = {name: value for name, value in rotation.position.items() if name != "waiting"}
        steps = {"keys": self._make_keys, "seal": self._seal, "settle": self._settle, "drop": self._drop}
        return await steps[position.get("step", "keys")](rotation, position)

    async def _make_keys(self, rotation: Rotation, position: dict[str, Any]) -> Rotation:
        stale = await self._database.fetch(STALE, position.get("after", ""), rotation.began_at, self._rows)
        tenants = [row["tenant_id"] for row in stale]
        made = await self._keys.make(tenants)
        async with self._database.transaction() as tx:
            if not tenants:
                return await move(tx, rotation, {"step": "seal"})
            await self._keys.add(tx, made)
            return await move(tx, rotation, {"step": "keys", "after": tenants[-1]})

    async def _seal(self, rotation: Rotation, position: dict[str, Any]) -> Rotation:
        """A batch of rows of one table; at a table's end the next one, at the last one's end the next round."""
        table = self._tables[position.get("table", 0)]
        tenant, version, row_id, profile = position.get("after", ["", 0, str(FIRST[0]), FIRST[1]])
        old = await self._database.fetch(OLD, tenant, version, rotation.began_at, self._names)
        names = [(row["tenant_id"], row["version"]) for row in old]
        if not names:
            return await self._table_ended(rotation, position)
        behind = (UUID(row_id), profile) if names[0] == (tenant, version) else FIRST
        rows = await self._database.fetch(table.read, [n[0] for n in names], [n[1] for n in names], *behind, self._rows)
        sealed = await self._sealed_anew(table, rows)
        if len(rows) == self._rows:
            last = rows[-1]
            after = [last["tenant_id"], last["data_key_version"], str(last["id"]), last["access_profile"]]
        else:
            after = [names[-1][0], names[-1][1] + 1, str(FIRST[0]), FIRST[1]]
        position |= {"after": after, "broken": position.get("broken", 0) + len(rows) - len(sealed)}
        async with self._database.transaction() as tx:
            written = await self._write(tx, table, sealed)
            position["moved"] = position.get("moved", 0) + written
            return await move(tx, rotation, position, done=written)

    async def _table_ended(self, rotation: Rotation, position: dict[str, Any]) -> Rotation:
        table = position.get("table", 0) + 1
        position = {name: value for name, value in position.items() if name != "after"}
        async with self._database.transaction() as tx:
            if table < len(self._tables):
                return await move(tx, rotation, position | {"table": table})
            clean = position.get("late") and not position.get("moved")
            return await move(tx, rotation, {"step": "drop" if clean else "settle"}, broken=position.get("broken", 0))

    async def _settle(self, rotation: Rotation, position: dict[str, Any]) -> Rotation:
        heard = await self._age(rotation) >= SETTLE_S
        async with self._database.transaction() as tx:
            after = {"step": "seal", "late": True} if heard else {"step": "settle", "waiting": True}
            return await move(tx, rotation, after)

    async def _drop(self, rotation: Rotation, position: dict[str, Any]) -> Rotation:
        if await self._age(rotation) < KEPT_S:
            async with self._database.transaction() as tx:
                return await move(tx, rotation, {"step": "drop", "waiting": True})
        tenant, version = position.get("after", ["", 0])
        old = await self._database.fetch(OLD, tenant, version, rotation.began_at, self._rows)
        async with self._database.transaction() as tx:
            if not old:
                return await move(tx, rotation, {}, ended=True)
            await drop(tx, [(row["tenant_id"], row["version"]) for row in old])
            after = [old[-1]["tenant_id"], old[-1]["version"] + 1]
            return await move(tx, rotation, {"step": "drop", "after": after})

    async def _age(self, rotation: Rotation) -> float:
        """Seconds since the last of the new data keys was made."""
        age = await self._database.fetchval(AGE, rotation.began_at)
        return KEPT_S if age is None else float(age)

    async def _sealed_anew(self, table: SealedTable, rows: Sequence[Any]) -> list[tuple[Any, int, list[bytes | None]]]:
        """Each row that opens, with its new data key and its sealed columns."""
        tenants = {row["tenant_id"] for row in rows}
        old = await self._keys.openable({(row["tenant_id"], row["data_key_version"]) for row in rows})
        new = await self._keys.newest(tenants)
        work = []
        for row in rows:
            before, after = old.get((row["tenant_id"], row["data_key_version"])), new.get(row["tenant_id"])
            if before is not None and after is not None:
                work.append((row, before, after))
        if table is sealed_tables.BLOBS:
            moved = await self._blobs_anew([(row, table.place(self._keys.region, row), *keys) for row, *keys in work])
            return [
                (row, after.version, [path, None]) for (row, _, after), path in zip(work, moved, strict=True) if path
            ]
        sealed = []
        for row, before, after in work:
            place = table.place(self._keys.region, row)
            try:
                columns = [
                    None if row[column] is None else anew(before, after, bytes(row[column]), place.aad(purpose))
                    for column, purpose in zip(("first", "second"), table.purposes, strict=False)
                ]
            except SealBroken:
                continue
            sealed.append((row, after.version, [*columns, None][:2]))
        return sealed

    async def _blobs_anew(self, work: Sequence[tuple[Any, Place, DataKey, DataKey]]) -> list[bytes | None]:
        """The path of each one's new blob; None where the old one does not open. A few at a time.    Raises: Unavailable."""
        blobs, turns = self._blobs, asyncio.Semaphore(BLOBS_AT_ONCE)
        assert blobs is not None

        async def one(row: Any, place: Place, before: DataKey, after: DataKey) -> bytes | None:
            async with turns:
                try:
                    held = await blobs.read(bytes(row["first"]).decode())
                    access = anew(before, after, held.access, place.aad("access_token"))
                    refresh = held.refresh and anew(before, after, held.refresh, place.aad("refresh_token"))
                except SealBroken:
                    return None
                return (await blobs.write(place, Blob(access, refresh))).encode()

        return await asyncio.gather(*(one(*each) for each in work))

    async def _write(self, tx: Db, table: SealedTable, sealed: Sequence[tuple[Any, int, list[bytes | None]]]) -> int:
        if not sealed:
            return 0
        told = await tx.execute(
            table.write, [row["id"] for row, _, _ in sealed], [row["access_profile"] for row, _, _ in sealed],
            [row["generation"] for row, _, _ in sealed], [row["token_version"] for row, _, _ in sealed],
            [row["data_key_version"] for row, _, _ in sealed], [version for _, version, _ in sealed],
            [row["first"] for row, _, _ in sealed], [columns[0] for _, _, columns in sealed],
            [columns[1] for _, _, columns in sealed],
        )  # fmt: skip
        return int(told.split()[-1])


def anew(before: DataKey, after: DataKey, sealed: bytes, aad: Aad) -> bytes:
    """What is sealed under `before`, sealed under `after`.    Raises: SealBroken."""
    return cipher.seal(
        after.cipher, after.version, cipher.open_sealed({before.version: before.cipher}, sealed, aad), aad
    )


async def drop(tx: Db, names: Sequence[tuple[str, int]]) -> int:
    """Delete those of these data keys that are not their tenant's newest and that nothing refers to."""
    told = await tx.execute(DROP, [tenant for tenant, _ in names], [version for _, version in names])
    return int(told.split()[-1])
