"""Data keys: one a tenant (and version), wrapped by the region's key in the database, opened in a bounded memory.

What is in memory opens without the database and without the key backend, so token reads go on while either is away:
for `ttl_s` from when a key was read, and not a second longer, since that is also how long another process may go on
opening the tokens of a tenant that was erased (`destroy`). Which version is the newest is believed for `NEWEST_S` only:
a rotation makes new ones, and what is sealed under an old one afterwards has to be sealed again.

Versions come from one sequence and are never used twice, not even by a tenant that was erased and made again: so
(tenant, version) names one key for ever, and what is in memory can be old, but never another's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway import metrics
from gateway.clock import Clock, random_bytes
from gateway.database import Database, Db
from gateway.errors import Unavailable
from gateway.vault.backend import KeyBackend, that_open
from gateway.vault.cipher import KEY_BYTES, Aad, SealBroken

TTL_S = 300.0  # how long an opened key may serve
NEWEST_S = 5.0  # how long the newest version is believed to be the newest
MOST = 100_000  # keys in memory: about 60 MB
SWEEP_EVERY_S = 30.0

Name = tuple[str, int]  # tenant and version


@dataclass(frozen=True, slots=True)
class DataKey:
    """An opened data key. Its repr shows nothing of it."""

    tenant: str
    version: int
    cipher: AESGCM = field(repr=False)


class NewKeys(NamedTuple):
    """Columns of data keys that are not stored yet: all wrapped."""

    tenants: list[str]
    versions: list[int]
    wrapped: list[bytes]
    under: list[int]


GET = """SELECT d.tenant_id, d.version, d.wrapped FROM gateway.data_keys d
          JOIN unnest($1::text[], $2::integer[]) AS w(tenant_id, version) USING (tenant_id, version)"""
NEWEST = """SELECT DISTINCT ON (tenant_id) tenant_id, version FROM gateway.data_keys WHERE tenant_id = ANY ($1::text[])
             ORDER BY tenant_id, version DESC"""
DRAW = "SELECT nextval('gateway.data_key_versions')::integer AS version FROM generate_series(1, $1)"
# Only where there is none: of two processes one is first, and the other one reads its key. (Both may be, in the same
# instant; then the higher version is everybody's newest, and the other one is nobody's.)
ADD_FIRST = """INSERT INTO gateway.data_keys (tenant_id, version, wrapped, wrapped_under, created_at)
               SELECT n.*, gateway.now() FROM unnest($1::text[], $2::integer[], $3::bytea[], $4::integer[]) AS n(tenant_id, version, wrapped, under)
                WHERE NOT EXISTS (SELECT FROM gateway.data_keys d WHERE d.tenant_id = n.tenant_id)"""
ADD = """INSERT INTO gateway.data_keys (tenant_id, version, wrapped, wrapped_under, created_at)
         SELECT n.*, gateway.now() FROM unnest($1::text[], $2::integer[], $3::bytea[], $4::integer[]) AS n"""
DESTROY = "DELETE FROM gateway.data_keys WHERE tenant_id = $1"


def aad_of(region: str, tenant: str, version: int) -> Aad:
    """What a wrapped data key is bound to."""
    return Aad(place=region, owner=tenant, purpose="data_key", row=str(version))


class DataKeys:
    """The data keys of one region."""

    def __init__(
        self, region: str, database: Database, backend: KeyBackend, clock: Clock, ttl_s: float = TTL_S, most: int = MOST
    ) -> None:
        self.region, self._database, self.backend, self._clock = region, database, backend, clock
        self._ttl_s, self._most = ttl_s, most
        self._known: OrderedDict[Name, tuple[float, DataKey]] = OrderedDict()  # the least recently used first
        self._newest: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._finding: dict[str, asyncio.Task[Mapping[str, DataKey]]] = {}
        self._opening: dict[Name, asyncio.Task[Mapping[Name, DataKey]]] = {}
        self._hits = metrics.DATA_KEY_LOOKUPS.labels(region, "memory")
        self._misses = metrics.DATA_KEY_LOOKUPS.labels(region, "unwrapped")
        self._size = metrics.DATA_KEYS_HELD.labels(region)

    def held(self, tenant: str, version: int) -> DataKey | None:
        """From memory alone."""
        name = (tenant, version)
        known = self._known.get(name)
        if known is None:
            return None
        if self._clock.monotonic() - known[0] >= self._ttl_s:
            del self._known[name]
            return None
        self._known.move_to_end(name)
        self._hits.inc()
        return known[1]

    async def for_sealing(self, tenant: str) -> DataKey:
        """The tenant's newest data key, made at the first need.    Raises: Unavailable, SealBroken."""
        newest = self._newest.get(tenant)
        if newest is not None and self._clock.monotonic() - newest[0] < NEWEST_S:
            held = self.held(tenant, newest[1])
            if held is not None:
                return held
        return (await self.for_sealing_all([tenant]))[tenant]

    async def for_sealing_all(self, tenants: Collection[str]) -> Mapping[str, DataKey]:
        """The newest data key of each, in a few queries and two calls of the backend at the most.

        Raises: Unavailable; SealBroken: one of them does not open here.
        """
        wanted = set(tenants)
        if rest := sorted(wanted - self._finding.keys()):
            task = asyncio.create_task(self._find_or_make(rest))
            self._share(self._finding, rest, task)
        found: dict[str, DataKey] = {}
        for task in {self._finding[tenant] for tenant in wanted}:
            found |= await asyncio.shield(task)  # one who gives up must not take the others' answer away
        if missing := wanted - found.keys():
            raise SealBroken(f"{len(missing)} data keys do not open here")
        return found

    async def for_opening(self, wanted: Iterable[Name]) -> Mapping[Name, DataKey]:
        """These keys, those not in memory in one query and one call of the backend.

        Raises: Unavailable; SealBroken: one is gone (a tenant that was erased) or does not open here.
        """
        names = set(wanted)
        found = await self.openable(names)
        if len(found) != len(names):
            raise SealBroken("a data key is gone or does not open here")
        return found

    async def openable(self, wanted: Iterable[Name]) -> Mapping[Name, DataKey]:
        """Those of these keys that are there and open: for batches, where one must not spoil the others.

        Raises: Unavailable.
        """
        names = set(wanted)
        found = {name: held for name in names if (held := self.held(*name)) is not None}
        missing = names - found.keys()
        if rest := sorted(missing - self._opening.keys()):
            task = asyncio.create_task(self._read_and_open(rest))
            self._share(self._opening, rest, task)
        for task in {self._opening[name] for name in missing}:
            opened = await asyncio.shield(task)
            found |= {name: opened[name] for name in missing & opened.keys()}
        return found

    async def newest(self, tenants: Collection[str]) -> Mapping[str, DataKey]:
        """The newest data key of each tenant that has one which opens, as the database knows it now.

        Raises: Unavailable.
        """
        names = await self._newest_of(list(tenants))
        return {tenant: key for (tenant, _), key in (await self.openable(names.items())).items()}

    async def make(self, tenants: Sequence[str]) -> NewKeys:
        """A new data key for each of these, in one call of the backend; `add` stores them.    Raises: Unavailable."""
        versions = [row["version"] for row in await self._database.fetch(DRAW, len(tenants))]
        names = list(zip(tenants, versions, strict=True))
        try:
            wrapped = await self.backend.wrap([(random_bytes(KEY_BYTES), self.aad(*name)) for name in names])
        except Unavailable:
            metrics.KEY_BACKEND_ERRORS.labels(self.region, "unavailable").inc()
            raise
        return NewKeys(list(tenants), versions, wrapped, [self.backend.version_of(blob) for blob in wrapped])

    async def add(self, tx: Db, made: NewKeys) -> None:
        """Put new versions beside those that there are. Every process seals under them within `NEWEST_S`."""
        await tx.execute(ADD, *made)

    async def destroy(self, tx: Db, tenant: str) -> None:
        """End every token of this tenant for good: with the commit, and in every process's memory within `ttl_s`.

        Rows that refer to its keys must be gone.
        """
        await tx.execute(DESTROY, tenant)
        self.forget(tenant)

    def forget(self, tenant: str) -> None:
        """Drop a tenant's keys from this process's memory."""
        self._newest.pop(tenant, None)
        for name in [name for name in self._opening if name[0] == tenant]:
            del self._opening[name]  # what is being read just now is not remembered
        for name in [name for name in self._known if name[0] == tenant]:
            del self._known[name]

    async def run_once(self) -> None:
        """Drop what is past its time: a key that nobody asks for must not stay in memory either."""
        now = self._clock.monotonic()
        for name in [name for name, (at, _) in self._known.items() if now - at >= self._ttl_s]:
            del self._known[name]
        self._size.set(len(self._known))

    def aad(self, tenant: str, version: int) -> Aad:
        """What a wrapped data key of this region is bound to."""
        return aad_of(self.region, tenant, version)

    async def _find_or_make(self, tenants: Sequence[str]) -> Mapping[str, DataKey]:
        at = self._clock.monotonic()
        newest = await self._newest_of(tenants)
        if absent := [tenant for tenant in tenants if tenant not in newest]:
            await self._database.execute(ADD_FIRST, *await self.make(absent))
            newest |= await self._newest_of(absent)
        opened = await self.openable(newest.items())
        for tenant, version in newest.items():
            self._newest[tenant] = (at, version)
            self._newest.move_to_end(tenant)
        while len(self._newest) > self._most:
            self._newest.popitem(last=False)
        return {tenant: key for (tenant, _), key in opened.items()}

    async def _newest_of(self, tenants: Sequence[str]) -> dict[str, int]:
        return {row["tenant_id"]: row["version"] for row in await self._database.fetch(NEWEST, list(tenants))}

    async def _read_and_open(self, names: Sequence[Name]) -> Mapping[Name, DataKey]:
        at = self._clock.monotonic()  # before the query: what it says may be that old
        plain = await self._read(names)
        if len(plain) < len(names):  # looked at again: a rotation may have wrapped them anew, and retired the old key
            plain |= await self._read([name for name in names if name not in plain])
        opened = {name: DataKey(*name, AESGCM(key)) for name, key in plain.items()}
        for name, key in opened.items():
            if self._opening.get(name) is asyncio.current_task():
                self._known[name] = (at, key)
                self._known.move_to_end(name)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        self._misses.inc(len(opened))
        self._size.set(len(self._known))
        return opened

    async def _read(self, names: Sequence[Name]) -> dict[Name, bytes]:
        rows = await self._database.fetch(GET, [tenant for tenant, _ in names], [version for _, version in names])
        there = [(row["tenant_id"], row["version"]) for row in rows]
        blobs = [(bytes(row["wrapped"]), self.aad(*name)) for row, name in zip(rows, there, strict=True)]
        try:
            plain = await that_open(self.backend.unwrap, blobs)
        except Unavailable:
            metrics.KEY_BACKEND_ERRORS.labels(self.region, "unavailable").inc()
            raise
        opened = {
            name: key for name, key in zip(there, plain, strict=True) if key is not None and len(key) == KEY_BYTES
        }
        if len(opened) < len(there):
            metrics.KEY_BACKEND_ERRORS.labels(self.region, "broken").inc(len(there) - len(opened))
        return opened

    @staticmethod
    def _share(under_way: dict[Any, asyncio.Task[Any]], names: Sequence[Any], task: asyncio.Task[Any]) -> None:
        """Whoever asks for one of `names` meanwhile waits for `task`."""

        def ended(task: asyncio.Task[Any]) -> None:
            for name in names:
                if under_way.get(name) is task:
                    del under_way[name]
            if not task.cancelled():
                task.exception()  # seen: whoever waited got it

        for name in names:
            under_way[name] = task
        task.add_done_callback(ended)
