"""uvicorn alone: what both benchmarks compare with."""

from __future__ import annotations

import uvicorn

from gateway import listen


class Bare(listen.Server):
    """The flags of our servers, and uvicorn's own protocol class, which cannot be asked what it waits for."""

    def __init__(self, config: uvicorn.Config) -> None:
        config.http = "httptools"
        super().__init__(config)

    def _cut_the_slow(self, now: float) -> None:
        pass
