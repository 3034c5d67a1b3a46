"""A wire to PostgreSQL that a test can cut: what a process sees when its database is away, without stopping anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit


class Wire:
    """Forwards connections to a server, until it is cut; then existing ones break and new ones are refused."""

    def __init__(self, dsn: str) -> None:
        self._target = urlsplit(dsn)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def dsn(self) -> str:
        """The same database, through the wire."""
        user = self._target.netloc.rpartition("@")[0]
        return f"postgresql://{user}{'@' if user else ''}127.0.0.1:{self._port}{self._target.path}?sslmode=disable"

    async def mend(self) -> None:
        """Forward from now on, at the same address as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Break what is open, and refuse what comes."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _forward(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        folder = parse_qs(self._target.query).get("host", [""])[0]
        if folder.startswith("/"):
            far_in, far_out = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{self._target.port or 5432}")
        else:
            far_in, far_out = await asyncio.open_connection(self._target.hostname or "127.0.0.1", self._target.port)
        self._open |= {near_out, far_out}
        try:
            await asyncio.gather(_pump(near_in, far_out), _pump(far_in, near_out))
        finally:
            for writer in (near_out, far_out):
                self._open.discard(writer)
                writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until one side ends, then end the other."""
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


@asynccontextmanager
async def wire(dsn: str) -> AsyncIterator[Wire]:
    """A wire that is whole at first."""
    made = Wire(dsn)
    await made.mend()
    try:
        yield made
    finally:
        await made.cut()
