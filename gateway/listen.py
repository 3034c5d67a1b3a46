"""Sockets of our own, and uvicorn on them: port 0 may be asked for, several processes may share a port."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from gateway.errors import SetupError

BACKLOG = 4096
KEEP_ALIVE_S = (
    75  # longer than the usual proxy keeps idle connections (60 s), so it closes first and never meets a reset
)


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
    """uvicorn without its signal handling: who stops, and when, is decided in one place for both listeners."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Callable[..., Any]) -> Server:
    """A server of `app`. Nothing is taken from proxy headers, and our own routes write the log."""
    return Server(
        uvicorn.Config(
            app, http="httptools", ws="none", lifespan="off", interface="asgi3",
            log_config=None, access_log=False, server_header=False, proxy_headers=False,
            backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE_S,
        )
    )  # fmt: skip
