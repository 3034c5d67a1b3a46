"""`python -m gateway.embedded FOLDER [NAME=VALUE …]`: the server alone, until SIGINT or SIGTERM. For tests and chaos.

Prints one line of JSON when ready: `{"dsn", "pid", "adopted", "took_s"}`. Refused: one line on stderr, exit 1.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from gateway.embedded import EmbeddedUnavailable, start


async def _serve(folder: Path, settings: dict[str, str]) -> None:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for order in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(order, told.set)
    began = time.monotonic()
    server = await start(folder, settings=settings)
    facts = {"dsn": server.dsn, "pid": server.pid, "adopted": server.adopted}
    sys.stdout.write(json.dumps(facts | {"took_s": round(time.monotonic() - began, 3)}) + "\n")
    sys.stdout.flush()
    await told.wait()
    await server.stop()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:])))
    except EmbeddedUnavailable as err:
        sys.exit(f"posthouse: {err}")
