"""Processes that share a database and call providers, which do as the test says. No call leaves the test."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from gateway import ids
from gateway.breakers.breakers import Breakers
from gateway.breakers.ways import Shut, Way, way_of
from gateway.catalog import Catalog, Integration
from gateway.database import Database
from gateway.integrations import secrets, store
from gateway.integrations.wanted import Wanted
from gateway.settings import Settings
from gateway.stream.upkeep import Upkeep
from gateway.vault.keyring import Keyring
from providers.errors import ProviderError
from tests.clock import FakeClock

WANTED = {
    name: Wanted(name=name, provider=name, client_id="us", settings=settings, secrets={"client_secrets": (b"a secret",)})
    for name, settings in (
        ("google", {}), ("slack", {}), ("gitlab", {}), ("shopify", {}), ("github", {"app_slug": "ours"}),
    )
}  # fmt: skip


@dataclass
class Process:
    """One process's breakers. What it slept is in `slept`."""

    breakers: Breakers
    catalog: Catalog
    slept: list[float] = field(default_factory=list)

    def integration(self, name: str) -> Integration:
        found = self.catalog.integration(name)
        assert found is not None
        return found

    def way(self, name: str = "slack", kind: Any = "token", **parameters: str) -> Way:
        return way_of(self.integration(name), kind, parameters)

    async def call(self, error: Exception | None = None, way: Way | None = None, **how: Any) -> str:
        """One call that ends like that: `made`, or why it was not, with the seconds until it may come again."""
        try:
            async with self.breakers.call(way or self.way(), **how):
                if error is not None:
                    raise error
        except Shut as shut:
            return f"{shut.why} {shut.retry_after_s:.0f}"
        except ProviderError:
            pass
        return "made"

    async def calls(self, number: int, error: Exception | None = None, way: Way | None = None) -> list[str]:
        return [await self.call(error, way) for _ in range(number)]


@dataclass
class Field:
    """The database that they share, and its clock."""

    database: Database
    keyring: Keyring
    clock: FakeClock
    settings: Settings
    processes: list[Process] = field(default_factory=list)

    async def process(self, **more: Any) -> Process:
        """One more."""
        catalog = Catalog(self.database, self.keyring, self.clock, self.settings)
        await catalog.refresh()
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            self.clock.move(seconds)

        made = Breakers(
            self.database, catalog, self.clock, self.settings.model_copy(update=more), self.new_id,
            chance=lambda: 1.0, sleep=sleep,
        )  # fmt: skip
        self.processes.append(Process(made, catalog, slept))
        return self.processes[-1]

    async def pass_s(self, seconds: float, *, looks: bool = True) -> None:
        """Time goes by, for every process and for the database; each process looks, as it does every second."""
        self.clock.move(seconds)
        await self.database.execute(
            "UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)", seconds
        )
        for process in self.processes if looks else []:
            await process.breakers.run_once()

    async def apply(self, name: str, secret: bytes) -> None:
        """An operator gives it another client secret; one process after the other notices."""
        async with self.database.transaction() as tx:
            found = await store.get(tx, name)
            await secrets.put(tx, self.keyring, found.id, "client_secrets", [secret], self.clock.now())

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What the stream says of providers and integrations."""
        rows = await self.database.fetch("SELECT type, data FROM gateway.events ORDER BY seq")
        return [(row["type"].removeprefix("posthouse."), json.loads(row["data"])) for row in rows]

    async def open(self) -> dict[str, str]:
        """What is shut, and why."""
        rows = await self.database.fetch("SELECT scope, why FROM gateway.breakers")
        return {row["scope"]: row["why"] for row in rows}

    def new_id(self) -> UUID:
        return ids.uuid7(self.clock.now())


@pytest.fixture
async def fields(database: Database, keyring: Keyring, clock: FakeClock, settings: Settings) -> Field:
    """With an integration of each of a few providers."""
    async with database.transaction() as tx:
        for wanted in WANTED.values():
            await store.create(tx, keyring, wanted, clock.now(), by="file")
    await Upkeep(database, 7).ready()
    return Field(database, keyring, clock, settings.model_copy(update={"calls_per_s": 50.0}))


@pytest.fixture
async def one(fields: Field) -> Process:
    """A process."""
    return await fields.process()


@pytest.fixture
async def two(fields: Field, one: Process) -> Process:
    """Another one."""
    return await fields.process()
