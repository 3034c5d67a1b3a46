"""Integration incidents, for whoever looks after them: which are open, and an operator's word that one is mended."""

from __future__ import annotations

from uuid import UUID

from gateway.breakers import store
from gateway.breakers.store import Open
from gateway.database import Database, Db


async def all_of(db: Db) -> list[Open]:
    """The open incidents, the oldest first."""
    return [one for one in await store.all_open(db) if one.integration_id is not None]


async def retried(database: Database, integration: UUID) -> bool:
    """Let one call of each kind be tried at once, by whoever comes first; False: it has no incident.    Raises: Unavailable."""
    async with database.transaction() as tx:
        found = await store.retry(tx, integration)
        if found:
            await store.notice(tx)
    return bool(found)
