"""The servers that bench-ingest compares, each one process with the gateway's own uvicorn flags.

bare      reads the body, answers 200: what uvicorn alone can do on this machine
gateway   the public listener as `posthouse serve` runs it
single    the same route, but each delivery is an INSERT (and a COMMIT) of its own over 16 held connections
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any

import uvloop

from gateway import listen, metrics
from gateway.serve import settle
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.stream.append import Kept, NewEvent, append
from gateway.web.hooks import public_door
from tests.benchmarks._bare import Bare

HELD = 16


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Only read the body and answer 200."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class Single:
    """In the appender's place: one statement a delivery, on one of 16 held connections."""

    def __init__(self, gateway: Gateway) -> None:
        self._database = gateway.regions.home.database
        self._free: asyncio.Queue[Any] = asyncio.Queue()

    async def start(self) -> None:
        for _ in range(HELD):
            self._free.put_nowait(await self._database.connect())

    async def keep(self, events: Sequence[NewEvent]) -> list[Kept]:
        connection = await self._free.get()
        try:
            return await append(connection, events)
        finally:
            self._free.put_nowait(connection)


async def main(mode: str) -> None:
    """Serve until SIGTERM; print the URL once ready."""
    settings = Settings()
    gateway = None
    if mode != "bare":
        gateway = await Gateway.open(settings)
        if mode == "single":
            single = Single(gateway)
            await single.start()
            gateway.regions.home.appender.keep = single.keep  # type: ignore[method-assign]  # the point of the comparison
    settle()  # as `posthouse serve` does; the bare server gains by it too
    bound = listen.bind("127.0.0.1:0", "bench")
    server: listen.Server
    server = listen.direct(public_door(gateway)) if gateway is not None else Bare(listen.server(bare).config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: setattr(server, "should_exit", True))
    serving = asyncio.create_task(server.serve([bound]))
    print(listen.url_of(bound), flush=True)
    await serving
    if gateway is not None:
        await gateway.close()
    commits, events = (
        metrics.REGISTRY.get_sample_value(f"posthouse_commit_batch_events_{of}") for of in ("count", "sum")
    )
    print(int(commits or 0), int(events or 0), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
