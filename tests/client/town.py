"""A gateway behind a line that can be cut, platform code's side of it, and events to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from gateway import ids, listen
from gateway.access import keys
from gateway.client import Client, Entry, Events
from gateway.client.http import Pace
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.web.app import private_app
from gateway.web.hooks import public_door
from tests.serving import end
from tests.stream.making import connect, event, keep
from tests.wire import Wire, wire

PATIENCE_S = 60  # for what is bound to come; nothing is measured by it


async def brief(seconds: float) -> None:
    """A pause that nobody has to wait for."""
    await asyncio.sleep(min(seconds, 0.02))


class Town:
    """The gateway's listeners at `url` and `hooks`, an administrator's `key`, and the log behind them."""

    def __init__(self, settings: Settings, line: Wire, address: str) -> None:
        self._settings, self._address = settings, address
        self.line = line
        self.url = f"http://127.0.0.1:{urlsplit(line.dsn).port}"  # through the line
        self.hooks = ""
        self.key = ""
        self._running: tuple[Gateway, list[listen.Server], list[asyncio.Task[None]]] | None = None

    @property
    def gateway(self) -> Gateway:
        assert self._running is not None, "it is not running"
        return self._running[0]

    @property
    def database(self) -> Any:
        """The region's."""
        return self.gateway.regions.home.database

    async def start(self) -> None:
        """A process, at the same address as the one before."""
        bound = [listen.bind(self._address, "private"), listen.bind("127.0.0.1:0", "public")]
        self.hooks = listen.url_of(bound[1]) + "/hooks"
        gateway = await Gateway.open(self._settings)
        servers = [listen.server(private_app(gateway)), listen.direct(public_door(gateway))]
        serving = [asyncio.create_task(s.serve([b])) for s, b in zip(servers, bound, strict=True)]
        self._running = (gateway, servers, serving)

    async def stop(self, *, drained: bool = True) -> None:
        """The process ends: streams say good-bye first, or are cut."""
        if self._running is None:
            return
        gateway, servers, serving = self._running
        self._running = None
        if drained:
            gateway.drain()
            await asyncio.gather(*(end(*each) for each in zip(servers, serving, strict=True)))
        else:
            await self.line.cut()
            for server in servers:
                server.should_exit = server.force_exit = True
                for task in list(server.server_state.tasks):
                    task.cancel()
            await asyncio.gather(*serving)
        await gateway.close()
        await self.line.mend()

    async def key_for(self, role: str) -> str:
        """A fresh key of that role."""
        async with self.gateway.control.transaction() as tx:
            made = await keys.create(tx, self.gateway.control_keyring, datetime.now(UTC), name=f"a {role}", role=role)
        await self.gateway.catalog.refresh()
        return made.token

    async def connect(self, partition: int, tenant: str = "acme") -> UUID:
        """A connection in that partition."""
        id = UUID(bytes=ids.uuid7(datetime.now(UTC)).bytes[:15] + bytes([partition]))
        async with self.database.acquire() as db:
            return await connect(db, tenant=tenant, id=id)

    async def say(
        self, *texts: str, connection: UUID | None = None, type: str = "posthouse.delivery.test.ping"
    ) -> None:
        """Events with these texts as their data, in one commit."""
        await keep(self.database, *(event(text.encode(), connection=connection, type=type) for text in texts))

    def client(self, key: str | None = None, **more: Any) -> Client:
        """Platform code, whose pauses are brief unless it says otherwise."""
        more.setdefault("pace", Pace(sleep=brief))
        return Client(self.url, self.key if key is None else key, **more)


@asynccontextmanager
async def town(settings: Settings) -> AsyncIterator[Town]:
    """One with a running gateway."""
    probe = listen.bind("127.0.0.1:0", "probe")
    address = f"127.0.0.1:{probe.getsockname()[1]}"  # kept across restarts
    probe.close()
    async with wire(f"http://{address}") as line:
        made = Town(settings, line, address)
        await made.start()
        made.key = await made.key_for("admin")
        try:
            yield made
        finally:
            await made.stop()


async def take(events: Events, count: int) -> list[Entry]:
    """The next `count` entries; each but the last is finished."""
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(events) for _ in range(count)]


def texts(entries: list[Entry]) -> list[str]:
    return [entry.event.data.decode() for entry in entries]


async def until(holds: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again until the answer is truthy; give it back."""
    async with asyncio.timeout(PATIENCE_S):
        while not (answer := await holds()):  # noqa: ASYNC110 the other side is a process
            await asyncio.sleep(0.01)
        return answer
