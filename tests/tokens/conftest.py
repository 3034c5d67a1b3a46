"""Connected accounts whose tokens are read: the town of the connect tests, and what only token tests do there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway import ids
from gateway.connections import grants, telling
from gateway.connections.grants import Grant
from gateway.connections.states import State
from gateway.service import Gateway
from tests.connect.conftest import Town, bare_town, town
from tests.web.conftest import lines

__all__ = ["bare_town", "lines", "town"]  # fixtures


@dataclass
class Account:
    """A connection of tenant acme that user u-1 has consented to."""

    town: Town
    id: UUID

    @property
    def path(self) -> str:
        return f"/v1/connections/{ids.show(ids.CONNECTION, self.id)}"

    async def read(self, **query: Any) -> httpx.Response:
        """Ask for its token."""
        return await self.town.api("GET", f"{self.path}/token", params=query)

    async def report(self, token: Any, **more: Any) -> Any:
        """Say that a token was refused; the answer."""
        body = {"type": "token_rejected", "token_version": token["token_version"], **more}
        answer = await self.town.api("POST", f"{self.path}/signals", body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def grant(self, profile: str = "reader") -> Grant:
        [found] = [
            g
            for g in await grants.of(self.town.gateway.regions.home.database, [self.id])
            if g.access_profile == profile
        ]
        return found

    async def move(self, state: State, reason: str | None = None, profile: str = "reader") -> None:
        await move(self.town.gateway, self.id, state, reason, profile)

    async def set(self, **columns: Any) -> None:
        """Change columns of its grants in the database."""
        for name, value in columns.items():
            sql = f"UPDATE gateway.grants SET {name} = $2 WHERE connection_id = $1"  # noqa: S608 - a test's own words
            await self.town.gateway.regions.home.database.execute(sql, self.id, value)

    async def audited(self) -> list[tuple[str, int]]:
        """Action and token version of its audit rows."""
        rows = await self.town.gateway.regions.home.database.fetch(
            "SELECT action, token_version FROM gateway.audit WHERE connection_id = $1 ORDER BY at", self.id
        )
        return [(row["action"], row["token_version"]) for row in rows]

    @property
    def refreshes(self) -> int:
        """How often its provider was asked for a refresh."""
        return self.town.provider.calls["refresh_token"]


async def move(gateway: Gateway, connection: UUID, state: State, reason: str | None, profile: str) -> None:
    """Move a grant, as what follows the provider's signals would."""
    async with gateway.regions.home.database.transaction() as tx:
        await grants.lock(tx, connection)
        await grants.stand(tx, {(connection, profile): grants.Standing(state, reason, False)})
        word = telling.Word(telling.Because(cause="test", source="operator"))
        await telling.settle(tx, {connection: word}, gateway.new_id)


async def connected(town: Town, **more: Any) -> Account:
    done = await town.connect(**more)
    connection = ids.parse(ids.CONNECTION, done["connection"])
    assert connection is not None
    return Account(town, connection)


@pytest.fixture
async def account(town: Town) -> Account:
    """One that is active, with an hour of life in its token."""
    return await connected(town)
