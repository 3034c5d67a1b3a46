"""Data keys: one a tenant (and version), wrapped by the region's key in the database, opened in a bounded memory.

What is in memory opens without the database and without the key backend, so token reads go on while either is away.
A tenant's rows are its tokens' life: `destroy` ends it, and every other process forgets within `ttl_s`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.clock import Clock, random_bytes
from gateway.database import Database, Db
from gateway.vault.backend import KeyBackend
from gateway.vault.cipher import KEY_BYTES, Aad, SealBroken

TTL_S = 300.0  # how long an opened key may serve
MOST = 100_000  # keys in memory: about 40 MB

Name = tuple[str, int]  # tenant and version


@dataclass(frozen=True, slots=True)
class DataKey:
    """An opened data key. Its repr shows nothing of it."""

    tenant: str
    version: int
    cipher: AESGCM = field(repr=False)


GET = """SELECT d.tenant_id, d.version, d.wrapped FROM gateway.data_keys d
          JOIN unnest($1::text[], $2::integer[]) AS w(tenant_id, version) USING (tenant_id, version)"""
NEWEST = "SELECT tenant_id, version, wrapped FROM gateway.data_keys WHERE tenant_id = $1 ORDER BY version DESC LIMIT 1"
ADD = """INSERT INTO gateway.data_keys (tenant_id, version, wrapped, wrapped_under, created_at)
         VALUES ($1, $2, $3, $4, gateway.now()) ON CONFLICT DO NOTHING"""
DESTROY = "DELETE FROM gateway.data_keys WHERE tenant_id = $1"


class DataKeys:
    """The data keys of one region."""

    def __init__(
        self, region: str, database: Database, backend: KeyBackend, clock: Clock, ttl_s: float = TTL_S, most: int = MOST
    ) -> None:
        self._region, self._database, self.backend, self._clock = region, database, backend, clock
        self._ttl_s, self._most = ttl_s, most
        self._known: OrderedDict[Name, tuple[float, DataKey]] = OrderedDict()
        self._newest: dict[str, tuple[float, int]] = {}
        self._making: dict[str, asyncio.Task[DataKey]] = {}

    def held(self, tenant: str, version: int) -> DataKey | None:
        """From memory alone."""
        known = self._known.get((tenant, version))
        if known is None or self._clock.monotonic() - known[0] >= self._ttl_s:
            return None
        return known[1]

    async def for_sealing(self, tenant: str) -> DataKey:
        """The tenant's newest data key, made at the first need.    Raises: Unavailable."""
        newest = self._newest.get(tenant)
        if newest is not None and self._clock.monotonic() - newest[0] < self._ttl_s:
            held = self.held(tenant, newest[1])
            if held is not None:
                return held
        making = self._making.get(tenant)
        if making is None:
            making = self._making[tenant] = asyncio.create_task(self._find_or_make(tenant))
            making.add_done_callback(lambda _: self._making.pop(tenant, None))
        return await asyncio.shield(making)

    async def for_opening(self, wanted: Iterable[Name]) -> Mapping[Name, DataKey]:
        """These keys, those not in memory in one query and one call of the backend.

        Raises: Unavailable; SealBroken: one is gone (a tenant that was erased) or does not open here.
        """
        names = set(wanted)
        found = {name: held for name in names if (held := self.held(*name)) is not None}
        if missing := sorted(names - found.keys()):
            rows = await self._database.fetch(
                GET, [tenant for tenant, _ in missing], [version for _, version in missing]
            )
            found |= {(key.tenant, key.version): key for key in await self._opened(rows)}
        if len(found) != len(names):
            raise SealBroken("a data key is gone: its tenant was erased")
        return found

    async def destroy(self, tx: Db, tenant: str) -> None:
        """End every token of this tenant for good. Rows that refer to its keys must be gone."""
        await tx.execute(DESTROY, tenant)
        self.forget(tenant)

    def forget(self, tenant: str) -> None:
        """Drop a tenant's keys from this process's memory."""
        self._newest.pop(tenant, None)
        for name in [name for name in self._known if name[0] == tenant]:
            del self._known[name]

    async def _find_or_make(self, tenant: str) -> DataKey:
        while True:
            row = await self._database.fetchrow(NEWEST, tenant)
            if row is not None:
                (key,) = await self._opened([row])
                self._newest[tenant] = (self._clock.monotonic(), key.version)
                return key
            # Another process may be first: then its key is the one that is read.
            (wrapped,) = await self.backend.wrap([(random_bytes(KEY_BYTES), self.aad(tenant, 1))])
            await self._database.execute(ADD, tenant, 1, wrapped, self.backend.version_of(wrapped))

    async def _opened(self, rows: Sequence[Any]) -> list[DataKey]:
        at = self._clock.monotonic()
        plain = await self.backend.unwrap(
            [(row["wrapped"], self.aad(row["tenant_id"], row["version"])) for row in rows]
        )
        keys = [DataKey(row["tenant_id"], row["version"], AESGCM(key)) for row, key in zip(rows, plain, strict=True)]
        for key in keys:
            self._known[key.tenant, key.version] = (at, key)
            self._known.move_to_end((key.tenant, key.version))
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return keys

    def aad(self, tenant: str, version: int) -> Aad:
        """What a wrapped data key is bound to."""
        return data_key_aad(self._region, tenant, version)


def data_key_aad(region: str, tenant: str, version: int) -> Aad:
    """What a wrapped data key is bound to."""
    return Aad(place=region, owner=tenant, purpose="data_key", row=str(version))
