"""What these tests make: events, connections, shifted clocks; and ways to wait on results, never on time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from gateway import ids
from gateway.clock import SystemClock
from gateway.database import Database, Db
from gateway.stream.append import Kept, NewEvent, append
from gateway.stream.appender import Appender
from gateway.stream.cursor import Cursor
from gateway.stream.read import Event, Filter, earliest, read

WINDOW_S = 72 * 3600
INTEGRATION = UUID(int=1 << 120 | 1)
OTHER_INTEGRATION = UUID(int=1 << 120 | 2)
PATIENCE_S = 30  # for results that are bound to come; nothing is measured by it


def fresh() -> UUID:
    """An id nobody has."""
    return ids.uuid7(datetime.now(UTC))


def event(
    data: bytes = b"{}", *, key: UUID | None = None, type: str = "posthouse.delivery.test.ping",
    integration: UUID | None = INTEGRATION, connection: UUID | None = None, accounts: tuple[UUID, ...] = (),
    drop: bool = False, signal: bool = False, content_type: str = "application/json", delivery: bytes | None = b"{}",
    window_s: int = WINDOW_S,
) -> NewEvent:  # fmt: skip
    """An event that is like every other, but for what is named."""
    id = fresh()
    return NewEvent(
        id=id, key=key or id, window_s=window_s, type=type, time=datetime.now(UTC), integration=integration,
        connection=connection, accounts=accounts, drop_unmatched=drop, signal=signal, content_type=content_type,
        delivery=delivery, data=data,
    )  # fmt: skip


async def connect(
    db: Db, *, tenant: str = "acme", state: str = "active", integration: UUID = INTEGRATION,
    accounts: tuple[UUID, ...] = (), id: UUID | None = None,
) -> UUID:  # fmt: skip
    """Register a connection with the accounts by which its items are found."""
    id = id or fresh()
    await db.execute(
        """INSERT INTO gateway.connections (id, tenant_id, integration_id, state, created_at, updated_at)
           VALUES ($1, $2, $3, $4, gateway.now(), gateway.now())""", id, tenant, integration, state,
    )  # fmt: skip
    for account in accounts:
        await db.execute("INSERT INTO gateway.connection_accounts VALUES ($1, $2, $3)", integration, account, id)
    return id


async def keep(database: Database, *events: NewEvent) -> list[Kept]:
    """Append in a transaction of its own."""
    async with database.acquire() as db:
        return await append(db, events)


async def everything(
    database: Database, wanted: Filter | None = None, *, after: Cursor | None = None, limit: int = 1000
) -> list[Event]:
    """All events after `after` (all of them), page by page."""
    async with database.acquire() as db:
        cursor = after or await earliest(db)
        found: list[Event] = []
        while True:
            page = await read(db, cursor, wanted or Filter(), limit)
            assert page.at_end or page.next > cursor, "a page that is not the last one makes progress"
            found += page.events
            cursor = page.next
            if page.at_end:
                return found


async def shift(db: Db, by: timedelta) -> None:
    """Move the region's clock."""
    await db.execute("UPDATE gateway.clock SET shifted_by = shifted_by + $1", by)


async def until(holds: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S) -> Any:
    """Ask again until the answer is truthy; give it back."""
    async with asyncio.timeout(patience_s):
        while not (answer := await holds()):  # noqa: ASYNC110 the other side is a database
            await asyncio.sleep(0.005)
        return answer


@asynccontextmanager
async def appender(dsn: str, deadline_s: float = PATIENCE_S, late_s: float = 5) -> AsyncIterator[Appender]:
    """A running appender on this database; it needs no pool."""
    made = Appender(Database(dsn), SystemClock(), deadline_s, late_s)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def waiting_for_a_lock(db: Db, count: int = 1) -> bool:
    """Whether `count` sessions of this database wait for locks that others hold."""
    found = await db.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(found) >= count
