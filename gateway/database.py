"""One door to PostgreSQL. Stores see `Db`, a small protocol; whoever owns the transaction passes it in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import asyncpg

from gateway.errors import Unavailable


class Db(Protocol):
    """What a store needs: a pool, or one connection inside a transaction."""

    async def fetch(self, sql: str, *args: Any) -> Sequence[Any]: ...
    async def fetchrow(self, sql: str, *args: Any) -> Any | None: ...
    async def fetchval(self, sql: str, *args: Any) -> Any: ...
    async def execute(self, sql: str, *args: Any) -> str: ...
    async def executemany(self, sql: str, args: Sequence[Sequence[Any]]) -> None: ...


# What "the database is away" looks like from here. A statement's own fault (bad data, a constraint) is not among these.
AWAY = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server's farewell crossed our statement: asyncpg cannot make sense of the order
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidCatalogNameError,  # dropped for a moment, by who restores it
    asyncpg.ObjectNotInPrerequisiteStateError,  # or closed to everybody (ALLOW_CONNECTIONS false)
    asyncpg.InvalidAuthorizationSpecificationError,  # a password that was changed there first
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.ReadOnlySQLTransactionError,
)

# On every connection: nothing waits for ever, and a transaction that idles (holding the append lock, perhaps) is cut.
SERVER_SETTINGS = {
    "application_name": "posthouse",
    "timezone": "UTC",
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
}


class Database:
    """A pool of connections to one database. `Db` for single statements; `transaction()` for several.

    `keeps_plans`: a statement is planned once, whatever it is given. For those who run the same few all the time.
    """

    def __init__(self, dsn: str, *, size: int = 10, keeps_plans: bool = False) -> None:
        self.dsn = dsn
        self._size = size
        self._settings = SERVER_SETTINGS | ({"plan_cache_mode": "force_generic_plan"} if keeps_plans else {})
        self._pool: Any = None

    def __repr__(self) -> str:
        return "Database(…)"  # the DSN may hold a password

    async def open(self) -> None:
        """Connect.    Raises: one of AWAY."""
        self._pool = await asyncpg.create_pool(
            self.dsn, min_size=1, max_size=self._size, timeout=2, command_timeout=30,
            server_settings=self._settings, max_inactive_connection_lifetime=300, reset=_as_it_is,
        )  # fmt: skip

    async def close(self) -> None:
        """Close every connection, waiting a moment for those in use."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), 5)
            except (TimeoutError, *AWAY):
                pool.terminate()

    async def connect(self) -> Any:
        """A connection of its own, outside the pool, for those that hold one: the appender, the listener."""
        return await asyncpg.connect(self.dsn, timeout=2, command_timeout=30, server_settings=self._settings)

    @asynccontextmanager
    async def acquire(self, limit_s: float | None = None) -> AsyncIterator[Db]:
        """One connection of the pool, without a transaction.    Raises: Unavailable, within 2 s.

        `limit_s` is for those who cannot wait for a silent database either: past it the connection is cut.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with self._pool.acquire(timeout=2 if limit_s is None else limit_s) as connection:
                # Cut, not cancelled: cancelling a query asks the very database that does not answer.
                cut = None if limit_s is None else loop.call_at(began + limit_s, connection.terminate)
                try:
                    yield cast(Db, connection)
                finally:
                    if cut is not None:
                        cut.cancel()
        except AWAY as error:
            raise Unavailable("the database is away") from error

    @asynccontextmanager
    async def transaction(
        self, isolation: str = "read_committed", limit_s: float | None = None
    ) -> AsyncIterator[Db]:  # fmt: skip
        """One connection in a transaction: committed at the end of the block, rolled back by an exception.

        Cancelled, or out of time, the connection is cut, which rolls back as well: asyncpg's own rollback waits first for
        the end of the statement, and on a line that has gone silent that never comes.
        """
        async with self.acquire(limit_s) as connection:
            own = cast(Any, connection)
            transaction = own.transaction(isolation=isolation)
            try:
                await transaction.start()
            except BaseException:  # nobody knows how far that came, and asyncpg would complain of what is left open
                own.terminate()
                raise
            try:
                yield connection
            except (asyncio.CancelledError, TimeoutError):
                own.terminate()
                raise
            except BaseException:
                await transaction.rollback()
                raise
            else:
                await transaction.commit()

    async def fetch(self, sql: str, *args: Any) -> Sequence[Any]:
        async with self.acquire() as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Any | None:
        async with self.acquire() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        async with self.acquire() as connection:
            return await connection.execute(sql, *args)

    async def executemany(self, sql: str, args: Sequence[Sequence[Any]]) -> None:
        async with self.acquire() as connection:
            await connection.executemany(sql, args)


async def _as_it_is(connection: object) -> None:
    """Nothing to put back: a transaction that was left open is over by now (asyncpg sees to that), and whoever wants settings,
    or to listen, has a connection of its own. The usual reset would be one more round trip after every statement."""


class Listener:
    """A LISTEN connection of its own. `woken()` returns at a notice, or after `poll_s` at the latest."""

    def __init__(self, database: Database, channel: str, poll_s: float) -> None:
        self._database, self._channel, self.poll_s = database, channel, poll_s
        self._waiters: dict[asyncio.Event, str | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._lost: asyncio.Event = asyncio.Event()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"listen:{self._channel}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.wake()

    def subscribe(self, payload: str | None = None) -> asyncio.Event:
        """An event that is set at every notice (or those with this payload); the reader clears it *before* it reads, so no
        notice is lost."""
        event = asyncio.Event()
        event.set()
        self._waiters[event] = payload
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        self._waiters.pop(event, None)

    async def wait(self, event: asyncio.Event, timeout_s: float | None = None) -> None:
        """Until a notice, or the poll interval (or `timeout_s`, if that is shorter)."""
        limit = self.poll_s if timeout_s is None else min(self.poll_s, max(timeout_s, 0))
        try:  # not `wait_for`: Python 3.11's swallows an end that comes in the same breath as the notice
            async with asyncio.timeout(limit):
                await event.wait()
        except TimeoutError:
            pass

    def wake(self, *notice: object) -> None:
        """Let every reader look at once; of a notice, those it is for."""
        payload = notice[3] if len(notice) > 3 else None  # connection, process, channel, payload
        for event, wanted in self._waiters.items():
            if payload is None or wanted is None or wanted == payload:
                event.set()

    def _on_close(self, *_: object) -> None:
        self._lost.set()

    async def _run(self) -> None:
        while True:
            try:
                connection = await self._database.connect()
                try:  # an end may come at any of these
                    self._lost.clear()
                    connection.add_termination_listener(self._on_close)
                    await connection.add_listener(self._channel, cast(Callable[..., None], self.wake))
                    self.wake()  # whatever was committed while nobody listened
                    await self._lost.wait()
                finally:
                    connection.terminate()  # no farewell: waiting for one on a dead line could swallow our own end
            except (asyncpg.PostgresError, *AWAY):
                pass  # whatever the trouble, the poll goes on meanwhile, and this outlives it
            await asyncio.sleep(self.poll_s)
