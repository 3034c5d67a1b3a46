"""A town whose scheduler takes its turns when the test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from gateway.service import Gateway
from subscriptions import store
from subscriptions.hours import QuietHours
from subscriptions.renewal import Renewal
from subscriptions.scheduler import Scheduler
from subscriptions.store import Row
from tests.connect.conftest import Town, bare_town, town
from tests.tokens.conftest import Account, connected
from tests.web.conftest import lines

__all__ = ["bare_town", "lines", "town"]  # fixtures

HOUR_S = 3600.0


def scheduler_of(gateway: Gateway, *, at_once: int = 16, chance: float = 0.5) -> Scheduler:
    """A scheduler of this process's. Its failures wait by this chance."""
    region = gateway.regions.home
    renewal = Renewal(region, gateway.refresher, QuietHours(gateway.clock), lambda: chance, gateway.draining)
    return Scheduler(region, gateway.catalog, renewal, _Plenty(), at_once, gateway.draining)


class _Plenty:
    """No breaker is in the way."""

    def room(self, integration: Any, kind: str) -> int:
        return 1000


@dataclass
class Works:
    """A town with its scheduler."""

    town: Town
    scheduler: Scheduler

    @property
    def database(self) -> Any:
        return self.town.gateway.regions.home.database

    @property
    def calls(self) -> int:
        """Refreshes that the provider was asked for."""
        return self.town.provider.calls["refresh_token"]

    async def connected(self, **more: Any) -> Account:
        return await connected(self.town, **more)

    async def after(self, seconds: float) -> int:
        """So long later: everything that is due then; how many connections."""
        await self.town.pass_s(seconds)
        await self.town.gateway.regions.home.upkeep.ready()
        return await self.scheduler.run_once()

    async def used(self, account: Account) -> int:
        """Somebody reads its token, and that is known; its version."""
        answer = await account.read()
        assert answer.status_code == 200, answer.text
        await self.town.gateway.regions.home.traffic.run_once()
        return int(answer.json()["token_version"])

    async def row(self, of: Account | UUID) -> Row:
        found = await store.row(self.database, of if isinstance(of, UUID) else of.id)
        assert found is not None
        return found

    async def due_in_s(self, of: Account) -> float | None:
        """When something of it is due; None: never."""
        row = await self.row(of)
        return None if row.due_at is None else row.due_at.timestamp() - await store.now(self.database)


@pytest.fixture
async def works(town: Town) -> AsyncIterator[Works]:
    made = Works(town, scheduler_of(town.gateway))
    await made.scheduler.start()
    yield made
    await made.scheduler.close()
