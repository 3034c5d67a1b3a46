"""The servers that bench-vault compares, each one process with the gateway's own uvicorn flags.

bare      an ASGI function that answers a constant of the same size: what uvicorn alone can do on this machine
gateway   the private listener as `posthouse serve` runs it
cold      the same, but neither tokens nor data keys stay in memory: each read unwraps its tenant's key and opens its seal
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import uvloop

from gateway import listen, logs, metrics
from gateway.serve import settle
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.web.app import private_app
from tests.benchmarks._bare import Bare

READS = "posthouse_token_check_batch_reads"


def bare(size: int) -> Any:
    """An application that answers `size` bytes of JSON, whatever it is asked."""
    body = b'"' + b"x" * (size - 2) + b'"'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(size).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def main(mode: str) -> None:
    """Serve until SIGTERM; print the URL once ready, and at the end how many checks there were, and reads in them."""
    settings = Settings()
    logs.configure(settings.log_format, settings.log_level)
    app: Any = bare(int(os.environ["BENCH_SIZE"])) if mode == "bare" else None
    gateway = None
    if mode != "bare":
        gateway = await Gateway.open(settings)
        app = private_app(gateway)
        if mode == "cold":
            gateway.tokens._known._ttl_s = 0.0
            for region in gateway.regions:
                region.tokens.keys._ttl_s = 0.0
    settle()  # as `posthouse serve` does; the bare server gains by it too
    bound = listen.bind("127.0.0.1:0", "bench")
    server = listen.server(app)
    if mode == "bare":
        server = Bare(server.config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: setattr(server, "should_exit", True))
    if "BENCH_PROFILE" in os.environ:
        import cProfile

        profile = cProfile.Profile(__import__("time").thread_time)
        profile.enable()
    serving = asyncio.create_task(server.serve([bound]))
    print(listen.url_of(bound), flush=True)
    await serving
    if "BENCH_PROFILE" in os.environ:
        profile.disable()
        profile.dump_stats(os.environ["BENCH_PROFILE"])
    if gateway is not None:
        await gateway.close()
    checks, reads = (metrics.REGISTRY.get_sample_value(f"{READS}_{of}") for of in ("count", "sum"))
    print(int(checks or 0), int(reads or 0), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
