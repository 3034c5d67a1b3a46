"""A worker of a consumer, as a platform would run it: `python -m tests.client.worker URL CONSUMER NAME FILE`.

What it has done with an event is one line at the end of FILE, which all workers share. SIGTERM ends it in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from gateway.client import Client


async def main(url: str, consumer: str, name: str, file: str) -> None:
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    loop.add_signal_handler(signal.SIGTERM, me.cancel)
    print("can be ended", flush=True)
    out = os.open(file, os.O_WRONLY | os.O_APPEND)
    async with Client(url, os.environ["POSTHOUSE_API_KEY"]) as posthouse:
        async for entry in posthouse.events(consumer, worker=name, ttl_s=5, types=["posthouse.delivery.stripe"]):
            [connection] = entry.connections
            os.write(out, f"{connection} {entry.event.json()['n']} {name}\n".encode())  # one write: lines stay whole


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except asyncio.CancelledError:
        pass
