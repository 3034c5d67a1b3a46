"""A server of the gateway's own kind for the length of a block, ended without uvicorn's pauses.

Left to itself uvicorn looks ten times a second whether it is to end, and then rests a tenth of a second more: for
hundreds of tests that is minutes. How a process really ends is tried where it does (tests/ops/test_serve.py).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway import listen

LOOK_S = 0.005


@asynccontextmanager
async def serving(server: listen.Server, bound: socket.socket) -> AsyncIterator[str]:
    """The URL of `server` on `bound`. At the end it listens no more, answers whom it owes an answer, and is gone."""
    running = asyncio.create_task(server.serve([bound]))
    try:
        yield listen.url_of(bound)
    finally:
        await end(server, running)
        bound.close()


async def end(server: listen.Server, running: asyncio.Task[None]) -> None:
    """What uvicorn's shutdown does, at once.    Raises: what the server itself has raised."""
    while not server.started and not running.done():  # noqa: ASYNC110 a block may be over before it has begun to listen
        await asyncio.sleep(0)
    if not running.cancel():
        running.result()
    await asyncio.gather(running, return_exceptions=True)
    for each in server.servers:
        each.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    while server.server_state.connections or server.server_state.tasks:  # noqa: ASYNC110 as uvicorn waits for them
        await asyncio.sleep(LOOK_S)
