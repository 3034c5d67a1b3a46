"""The history of a connection is read in the order in which things happened."""

from __future__ import annotations

from gateway import ids
from gateway.connections import history, store
from gateway.connections.history import Entry
from gateway.connections.store import NewConnection
from gateway.database import Database
from tests.clock import FakeClock


async def test_what_one_millisecond_brought_is_told_in_its_order(database: Database, clock: FakeClock) -> None:
    """A batch of the follower's is written at once, and ids of one millisecond are chance behind it."""
    one, integration = ids.uuid7(clock.now()), ids.uuid7(clock.now())
    new = NewConnection(
        id=one, tenant_id="acme", integration_id=integration, external_id=None, end_user_id=None, labels={}, accounts=()
    )
    causes = [f"cause_{number}" for number in range(20)]
    async with database.transaction() as tx:
        await store.insert(tx, new)
        await history.add(tx, [
            Entry(
                id=ids.uuid7(clock.now()), connection_id=one, access_profile=None, signal="revoked", outcome="stays", cause=cause,
                source="delivery", evidence=None, code=None, occurred_at=None, generation=1, token_version=1,
                state_before="revoked", state_after="revoked",
            )
            for cause in causes
        ])  # fmt: skip
    page = await history.page(database, one, before=None, limit=100)
    assert [kept.entry.cause for kept in reversed(page)] == causes
