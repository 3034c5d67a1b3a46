"""Sockets of our own, and uvicorn on them: port 0 may be asked for, several processes may share a port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from gateway.direct import Direct
from gateway.door import Door
from gateway.errors import SetupError
from gateway.protocol import Debt, Protocol

BACKLOG = 4096
KEEP_ALIVE_S = (
    75  # longer than the usual proxy keeps idle connections (60 s), so it closes first and never meets a reset
)
HEAD_S = 20.0  # how long a request's headers may take
BODY_S = 120.0  # and then its body: 25 MiB at 2 Mbit/s


def bind(address: str, setting: str, *, reuse_port: bool = False) -> socket.socket:
    """A bound socket for `host:port`.    Raises: SetupError, naming the setting to change."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((host, int(port)))
            bound.listen(BACKLOG)  # from here on clients wait instead of being refused
            bound.setblocking(False)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else "no such address"
        raise SetupError(f"cannot listen on {address} ({setting}): {why}") from None
    return bound


def url_of(bound: socket.socket) -> str:
    """Where a client on this machine finds it."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn without its signal handling: who stops, and when, is decided in one place for both listeners.

    And with patience that ends: one who sends its headers or its body a byte at a time holds a connection, and for a
    body memory too, so both must come to an end.
    """

    def __init__(self, config: uvicorn.Config, *, head_s: float = HEAD_S, body_s: float = BODY_S) -> None:
        super().__init__(config)
        self._patience_s = {"head": head_s, "body": body_s, "request": KEEP_ALIVE_S}
        # By connection: what is awaited, after which request, since when.
        self._since: dict[Any, tuple[Debt, Any, float]] = {}

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            self._cut_the_slow(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def unfinished(self) -> int:
        """How many requests are accepted and not answered."""
        return sum(_busy(connection) for connection in self.server_state.connections)

    def cut(self) -> None:
        """Wait for nobody any more."""
        self.should_exit = self.force_exit = True
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.close()

    def _cut_the_slow(self, now: float) -> None:
        since = {}
        connection: Any
        for connection in list(self.server_state.connections):
            part = connection.owes()
            if part is None:
                continue
            known = self._since.get(connection)
            request = connection.cycle
            if known is None or known[0] != part or known[1] is not request:
                since[connection] = (part, request, now)
            elif now - known[2] < self._patience_s[part]:
                since[connection] = known
            else:
                connection.transport.close()
        self._since = since


def _busy(connection: Any) -> bool:
    return connection.cycle is not None and not connection.cycle.response_complete


def server(app: Callable[..., Any], *, head_s: float = HEAD_S, body_s: float = BODY_S) -> Server:
    """A server of an ASGI `app`. Nothing is taken from proxy headers, and our own routes write the log."""
    return _server(app, Protocol, head_s, body_s)


def direct(door: Door, *, head_s: float = HEAD_S, body_s: float = BODY_S) -> Server:
    """A server of a `door`, without ASGI between it and the connection."""
    return _server(door, Direct, head_s, body_s)


def _server(app: Callable[..., Any], http: type[Protocol], head_s: float, body_s: float) -> Server:
    config = uvicorn.Config(
        app, http=http, ws="none", lifespan="off", interface="asgi3",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_S,
    )  # fmt: skip
    return Server(config, head_s=head_s, body_s=body_s)
