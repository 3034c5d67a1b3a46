"""Deliveries that no interpreter can digest, providers that are unwell, an integration that one refuses: what operators are asked to look after."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from gateway.breakers.ways import way_of
from gateway.connections import conditions
from gateway.connections.guard import Limits
from gateway.follower import store
from gateway.service import Gateway
from gateway.stream.append import NewEvent, append
from providers.errors import Misconfigured

QUICK = Limits(least=0, tenants=1)  # the first failure trips the guard


async def set_aside(gateway: Gateway, integration: str, event: str, connection: UUID) -> UUID:
    """A delivery of that kind which says nonsense, once the gateway's follower has set it aside; its id."""
    database, id, now = gateway.regions.home.database, gateway.new_id(), gateway.clock.now()
    known = gateway.catalog.integration(integration)
    assert known is not None
    name = f"posthouse.delivery.{known.provider.facts.name}.{event}"
    kept = NewEvent(
        id, id, 60, name, now, known.id, connection, (), False, True, "application/json", b"{}", b"nonsense"
    )
    async with database.transaction() as tx:
        await append(tx, [kept])
    async with asyncio.timeout(20):
        while id not in [one.event_id for one in await store.listed(database, after=None, limit=1000)]:
            pass
    return id


async def unwell(gateway: Gateway, provider: str) -> None:
    """Its failures move nobody from here on."""
    async with gateway.regions.home.database.transaction() as tx:
        counted = await conditions.failed(tx, provider, "refused", "acme", gateway.new_id(), gateway.new_id(), QUICK)
        assert counted.event is not None
        await append(tx, [counted.event])


async def incident(gateway: Gateway, integration: str) -> None:
    """Its provider refuses its set-up."""
    known = gateway.catalog.integration(integration)
    assert known is not None
    with pytest.raises(Misconfigured):
        async with gateway.breakers[gateway.regions.home.name].call(way_of(known, "token")):
            raise Misconfigured("invalid_client")
