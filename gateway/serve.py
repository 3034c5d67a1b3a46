"""One process from its start to its end.

It listens at once and is ready later: while the database cannot be reached yet (containers start in any order),
`/healthz` says that the process lives, `/readyz` that it is not ready, and everything else is 503. What waiting cannot
mend, a wrong keyring or another schema, ends the process with one line.

The end: SIGTERM -> not ready, but serving on, while the load balancer looks elsewhere (`drain_pause_s`) -> no new
connections, streams close with their cursor, accepted requests and calls of token endpoints finish -> disconnect. Out within `OUT_S` in all; a
second signal means now. Nothing acknowledged is lost by any of it: it was committed before it was acknowledged.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import structlog

from gateway import listen, logs, migrate, reach
from gateway.connect import sweep
from gateway.database import AWAY
from gateway.door import Door, Exchange
from gateway.errors import SetupError, Unavailable
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault import keyring
from gateway.web.routing import Route
from providers.contract import Answer

Only = Literal["web", "worker"]

OUT_S = 25.0
CLOSE_S = 3.0  # of it, for disconnecting
RETRY_S = 1.0  # between looks at a database that is away
STARTING = b'{"ready":false,"state":"starting"}'

log = structlog.get_logger(__name__)

ASGI = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]


class Upstairs(Protocol):
    """A package above the gateway, as this process runs it."""

    routes: Sequence[Route]  # of the private listener

    async def drained(self) -> None:
        """Once `gateway.draining` is set: return when what was under way has ended."""

    async def close(self) -> None:
        """Leave what is still under way. The gateway is open still."""


class Process:
    """A process that serves. Its ports are bound when it is made; `run` does the rest.

    `public` and `private` are URLs (`public` is None in one that only works in the background). `prepare` may bring
    what the settings lack, a database say, before anything is opened; `on_ready` is told when requests are answered;
    `upstairs` opens the package above.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        only: Only | None = None,
        reuse_port: bool = False,
        prepare: Callable[[Settings], Awaitable[Settings]] | None = None,
        on_ready: Callable[[Process], Awaitable[None]] | None = None,
        upstairs: Callable[[Gateway], Awaitable[Upstairs]] | None = None,
    ) -> None:
        self._prepare, self._on_ready, self._go_up = prepare, on_ready, upstairs
        self.gateway: Gateway | None = None
        self._upstairs: Upstairs | None = None
        self._stop, self._now = asyncio.Event(), asyncio.Event()
        self._doors: list[Face] = []
        self._servers: list[listen.Server] = []
        self._sockets: list[socket.socket] = []
        self.public = None if only == "worker" else self._listen("public", settings.public_listen, reuse_port)
        self.private = self._listen("private", settings.private_listen, reuse_port)
        if self.public is not None and "public_url" not in settings.model_fields_set:
            settings = settings.model_copy(update={"public_url": self.public})  # whatever port it came to be
        self.settings = settings

    def _listen(self, face: Literal["public", "private"], address: str, reuse_port: bool) -> str:
        bound = listen.bind(address, f"POSTHOUSE_{face.upper()}_LISTEN", reuse_port=reuse_port)
        door = Face(face)
        self._doors.append(door)
        self._sockets.append(bound)
        self._servers.append(listen.direct(door.public) if face == "public" else listen.server(door.private))
        return listen.url_of(bound)

    def stop(self) -> None:
        """Ask for the end; asked twice: at once. What SIGTERM and SIGINT do."""
        if self._stop.is_set():
            self._now.set()
        self._stop.set()

    async def run(self) -> None:
        """Serve until the end.    Raises: SetupError, this process cannot run as it is set up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        serving = [
            asyncio.create_task(server.serve([bound]))
            for server, bound in zip(self._servers, self._sockets, strict=True)
        ]
        try:
            await self._until_stopped(self._become_ready(), *serving)
            if self.gateway is not None:
                await self._until_stopped(self._stop.wait(), *serving)
            await self._drain(serving)
        finally:
            await self._end(serving)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _become_ready(self) -> None:
        if self._prepare is not None:
            self.settings = await self._prepare(self.settings)
        keyring.load(self.settings)  # what is wrong with it is wrong without a database too
        told = ""
        while self.gateway is None:
            try:
                await migrate.check_all(self.settings)
                self.gateway = await Gateway.open(self.settings)
            except reach.Unreached as error:
                if not error.passing:
                    raise
                why = str(error)
            except (Unavailable, *AWAY) as error:
                why = type(error).__name__
            else:
                break
            if why != told:
                log.warning("serve.waiting", reason=why)
                told = why
            await asyncio.sleep(RETRY_S)
        assert self.gateway is not None
        self.gateway.repeat(sweep.EVERY_S, partial(sweep.run_once, self.gateway), name="connect")
        if self._go_up is not None:
            self._upstairs = await self._go_up(self.gateway)
        settle()
        for door in self._doors:
            door.open(self.gateway, () if self._upstairs is None else self._upstairs.routes)
        log.info("serve.ready", public=self.public, private=self.private)
        if self._on_ready is not None:
            await self._on_ready(self)

    async def _until_stopped(self, work: Any, *serving: asyncio.Task[None]) -> None:
        """Run `work` until it ends or the process is asked to; a listener that ends by itself is a failure."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({working, stopping, *serving}, return_when=asyncio.FIRST_COMPLETED)
            for task in (working, *serving):
                if task.done():
                    task.result()
            if not working.done() and not stopping.done():
                raise SetupError("a listener stopped by itself; see the log")
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    async def _drain(self, serving: list[asyncio.Task[None]]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        log.info("serve.draining")
        if self.gateway is not None:
            self.gateway.state = "draining"
            await self._hurriedly(asyncio.sleep(min(self.settings.drain_pause_s, OUT_S / 2)))
            self.gateway.drain()
        for server in self._servers:
            server.should_exit = True
        left = OUT_S - CLOSE_S - 1 - (loop.time() - began)
        ending = [*serving]
        if self._upstairs is not None:
            ending.append(asyncio.create_task(self._upstairs.drained()))
        if self.gateway is not None:
            ending.append(asyncio.create_task(self.gateway.refresher.idle()))
        await self._hurriedly(asyncio.wait(ending, timeout=min(self.settings.drain_timeout_s, left)))
        for task in ending[len(serving) :]:
            task.cancel()
        if unfinished := sum(server.unfinished() for server in self._servers):
            log.warning("serve.cut", requests=unfinished)

    async def _hurriedly(self, waiting: Any) -> None:
        """`waiting`, or a second signal."""
        ordinary, hurry = asyncio.ensure_future(waiting), asyncio.ensure_future(self._now.wait())
        await asyncio.wait({ordinary, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ordinary, hurry):
            task.cancel()

    async def _end(self, serving: list[asyncio.Task[None]]) -> None:
        for server in self._servers:
            server.cut()
        await asyncio.wait(serving, timeout=1)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        if self.gateway is not None:
            try:
                await asyncio.wait_for(self._close(self.gateway), CLOSE_S)
            except TimeoutError:
                log.warning("serve.close_timeout")
        log.info("serve.ended")

    async def _close(self, gateway: Gateway) -> None:
        if self._upstairs is not None:
            await self._upstairs.close()
        await gateway.close()


class Face:
    """What a listener's requests come to: says that the process is starting until the gateway is there."""

    def __init__(self, face: Literal["public", "private"]) -> None:
        self._face = face
        self._app: ASGI | None = None
        self._door: Door | None = None

    def open(self, gateway: Gateway, more: Sequence[Route] = ()) -> None:
        """From now on the gateway answers. `more`: routes of the package above."""
        from gateway.web.app import private_app
        from gateway.web.hooks import public_door

        if self._face == "public":
            self._door = public_door(gateway)
        else:
            self._app = private_app(gateway, more)

    async def public(self, exchange: Exchange) -> Answer | None:
        """As a door of the public listener."""
        if self._door is not None:
            return await self._door(exchange)
        exchange.keep_alive = False
        return Answer(503, STARTING, "application/json", (("retry-after", "2"),))

    async def private(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """As the private listener's ASGI application."""
        if self._app is not None:
            await self._app(scope, receive, send)
            return
        alive = scope["path"] == "/healthz"
        body = b'{"status":"alive"}' if alive else STARTING
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if not alive:
            headers += [(b"retry-after", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200 if alive else 503, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def settle() -> None:
    """What was loaded by now stays for good: the garbage collector need not look at it with every thousandth request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def run(main: Callable[[], Awaitable[None]], settings: Settings) -> None:
    """Run a process's `main` on uvloop, with its logs set up.    Raises: SetupError, and what `main` raises."""
    import uvloop

    logs.configure(settings.log_format, settings.log_level)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard or hard == resource.RLIM_INFINITY:  # streams hold a connection each; 1,024 is soon used up
        wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

    async def whole() -> None:
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())
