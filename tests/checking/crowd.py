"""Very many connections at once, put into the database by the thousand: what an outage meets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from gateway import ids
from gateway.checking.reports import Report
from gateway.errors import Problem
from gateway.regions import account_hash
from gateway.tokens.check import Read
from gateway.vault.tokens import Place
from tests.follower.conftest import Street

CONNECTIONS = """INSERT INTO gateway.connections (id, tenant_id, integration_id, state, created_at, updated_at)
                 SELECT id, tenant, $3, 'active', gateway.now(), gateway.now() FROM unnest($1::uuid[], $2::text[]) AS n(id, tenant)"""
ACCOUNTS = """INSERT INTO gateway.connection_accounts (integration_id, account_hash, connection_id)
              SELECT $3, hash, id FROM unnest($1::uuid[], $2::uuid[]) AS n(id, hash)"""
GRANTS = """INSERT INTO gateway.grants (connection_id, access_profile, state, generation, token_version, granted_at, alive_at)
            SELECT id, 'user', 'active', 1, 1, gateway.now(), gateway.now() - interval '1 hour' FROM unnest($1::uuid[]) AS n(id)"""
TOKENS = """INSERT INTO gateway.tokens (connection_id, access_profile, tenant_id, generation, token_version, data_key_version,
                                        sealed_access, sealed_refresh, has_refresh, issued_at, expires_at)
            SELECT id, 'user', tenant, 1, 1, version, access, refresh, true, gateway.now() - interval '1 hour', gateway.now()
              FROM unnest($1::uuid[], $2::text[], $3::int[], $4::bytea[], $5::bytea[]) AS n(id, tenant, version, access, refresh)"""
EXPIRE = "UPDATE gateway.tokens SET issued_at = gateway.now() - interval '1 hour', expires_at = gateway.now()"
LAST = "UPDATE gateway.tokens SET sealed_refresh = NULL, has_refresh = false, expires_at = NULL"
AT_ONCE = 8  # fewer than the connections of the pool


@dataclass
class Crowd:
    """Connections at GitHub, of as many tenants as there are in `ids`, all with tokens that have expired."""

    street: Street
    ids: list[UUID]
    tenants: list[str]

    async def expire(self) -> None:
        """All access tokens, now."""
        await self.street.db.execute(EXPIRE)

    async def cannot_be_refreshed(self) -> None:
        """From now on there are access tokens only, for ever."""
        await self.street.db.execute(LAST)

    async def read(self, some: Sequence[UUID] | None = None) -> list[str]:
        """A token read of each: the codes of the refusals."""

        async def one(connection: UUID) -> str:
            try:
                await self.street.gateway.tokens.read(Read(connection, "user", 60, connection))
            except Problem as problem:
                return problem.code
            return "served"

        return await self._each(one, some)

    async def checked(self) -> list[str]:
        """A refresh of each, as its check makes it: the guard has let those through."""
        region, refresher = self.street.gateway.regions.home, self.street.gateway.refresher

        async def one(connection: UUID) -> str:
            return await refresher.attempt(region, (connection, "user"), (1, 1), doubts=True)

        return await self._each(one, None)

    async def report(self) -> list[str]:
        """Platform code gets a 401 with each token, and says so: the outcomes."""
        region, reports = self.street.gateway.regions.home, self.street.gateway.reports
        rows = await self.street.db.fetch("SELECT connection_id, token_version FROM gateway.grants")
        versions = {row["connection_id"]: row["token_version"] for row in rows}

        async def one(connection: UUID) -> str:
            report = Report(
                connection=connection, access_profile="user", token_version=versions[connection], status=401,
                actor=connection,
            )  # fmt: skip
            return (await reports.take(region, report)).outcome

        return await self._each(one, None)

    async def states(self) -> dict[str, int]:
        """How many grants are in each state."""
        rows = await self.street.db.fetch("SELECT state, count(*) AS n FROM gateway.grants GROUP BY state")
        return {row["state"]: row["n"] for row in rows}

    async def versions(self) -> dict[int, int]:
        """How many grants have each token version."""
        rows = await self.street.db.fetch("SELECT token_version, count(*) AS n FROM gateway.grants GROUP BY 1")
        return {row["token_version"]: row["n"] for row in rows}

    async def said(self) -> dict[str, int]:
        """How often each of our own events is on the stream."""
        rows = await self.street.db.fetch(
            "SELECT type, count(*) AS n FROM gateway.events WHERE delivery IS NULL GROUP BY type"
        )
        return {row["type"].removeprefix("posthouse."): row["n"] for row in rows}

    async def _each(self, one: Callable[[UUID], Awaitable[str]], some: Sequence[UUID] | None) -> list[str]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def in_turn(connection: UUID) -> str:
            async with turns:
                return await one(connection)

        return await asyncio.gather(*(in_turn(connection) for connection in self.ids if not some or connection in some))


async def crowd(street: Street, connections: int, tenants: int) -> Crowd:
    """So many of so many tenants, one after the other. Number 7 has account `installation:7` and refresh token `r7`."""
    gateway = street.gateway
    region, found = gateway.regions.home, gateway.catalog.integration("github")
    assert found is not None
    made = [ids.uuid7(gateway.clock.now()) for _ in range(connections)]
    of = [f"tenant-{number % tenants}" for number in range(connections)]
    sealed = [
        await region.tokens.seal(Place(region.name, tenant, id, "user", 1, 1), f"a{number}", f"r{number}")
        for number, (id, tenant) in enumerate(zip(made, of, strict=True))
    ]
    hashes = [
        account_hash(gateway.control_keyring, found.id, f"installation:{number}") for number in range(connections)
    ]
    async with region.database.transaction() as tx:
        await tx.execute(CONNECTIONS, made, of, found.id)
        await tx.execute(ACCOUNTS, made, hashes, found.id)
        await tx.execute(GRANTS, made)
        await tx.execute(
            TOKENS, made, of, [s.data_key_version for s in sealed], [s.access for s in sealed],
            [s.refresh for s in sealed],
        )  # fmt: skip
    await region.database.execute("ANALYZE gateway.grants, gateway.tokens, gateway.connections")
    return Crowd(street, made, of)
