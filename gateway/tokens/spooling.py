"""One token set's way into the spool while it cannot be written, and out again once it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.tokens.spool import Spool
from gateway.tokens.spooled import Entry

SILENT_S = 1.0  # a write that takes so long may take for ever: a database that is cut off says nothing at all


class Spooling:
    """Of one token set, for as long as somebody tries to write it."""

    def __init__(self, spool: Spool, entry: Callable[[], Entry], silent_s: float) -> None:
        self._spool, self._entry, self._silent_s = spool, entry, silent_s
        self._putting: asyncio.Task[str | None] | None = None

    @contextmanager
    def unless_soon(self) -> Iterator[None]:
        """Spool it if the block takes long."""
        late = asyncio.get_running_loop().call_later(self._silent_s, self._begin)
        try:
            yield
        finally:
            late.cancel()

    async def put(self) -> None:
        """Spool it, unless it is there. Once begun it goes on, whoever is cut off here."""
        await asyncio.shield(self._begin())

    async def end(self) -> None:
        """It is written where it belongs."""
        name = None if self._putting is None else await self._putting
        if name is not None:
            await self._spool.remove(name)

    def _begin(self) -> asyncio.Task[str | None]:
        if self._putting is None or (self._putting.done() and self._putting.result() is None):
            self._putting = asyncio.create_task(self._spool.put(self._entry()), name="spool")
        return self._putting
