"""Ends: of the process, with control away; of the line to the database, in the middle of a batch."""

from __future__ import annotations

import asyncio

import pytest

from gateway.clock import Clock
from gateway.connections import grants
from gateway.errors import Unavailable
from gateway.follower.follower import NAME
from gateway.service import Gateway
from gateway.stream import consumers
from tests.follower.conftest import Street
from tests.follower.test_payload_to_event import at_github
from tests.providers.signal_samples import github_installation

WAITS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def leased(street: Street) -> int:
    """How many of the follower's partitions somebody holds."""
    async with street.db.acquire() as db:
        return sum(state.leased for state in await consumers.states(db, NAME))


async def test_at_the_end_of_a_process_its_partitions_are_free_also_where_control_is_away(
    street: Street, clock: Clock
) -> None:
    """Nobody has to wait for leases to run out. Closed once more: nothing."""
    gateway = await Gateway.open(street.gateway.settings, clock)
    [follower] = gateway._followers
    await follower.run_once()
    assert await leased(street) == consumers.PARTITIONS
    await gateway.control.close()
    await gateway.close()
    assert await leased(street) == 0
    await gateway.close()


async def test_a_batch_whose_line_is_cut_is_done_by_the_next_try(street: Street) -> None:
    """Nothing of it happened, and then all of it, once."""
    await at_github(street)
    await street.deliver(github_installation("deleted"))
    async with street.db.transaction() as tx:
        await grants.lock(tx, street.known["globex"])
        turn = asyncio.create_task(street.follower.run_once())
        async with asyncio.timeout(20):
            while (pid := await street.db.fetchval(WAITS)) is None:  # noqa: ASYNC110 - on a result
                await asyncio.sleep(0)
        await street.db.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(Unavailable):
            await turn
    assert await street.moved() == {}
    await street.follow()
    assert set(await street.moved()) == {"acme", "globex", "by hand"}
    assert [kind for kind, _ in await street.events("globex")] == ["revoked"]
