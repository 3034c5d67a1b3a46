"""A wire to PostgreSQL that loses what a test tells it to lose, to the byte.

`tests.wire` cuts at no special moment; this one knows when a statement is sent and when its answer is complete, so
that "committed, and nobody heard of it" is made on purpose.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Loss = Literal["request", "half of the request", "answer", "last word"]
_READY = b"Z\x00\x00\x00\x05"  # ReadyForQuery; one byte of status follows


class LossyWire:
    """Forwards to a server through a unix socket of its own."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._target = urlsplit(dsn)
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._losses: list[Loss] = []
        self.lost = asyncio.Event()  # every loss that was asked for has happened
        self._mute = False
        self.connections = 0

    @property
    def dsn(self) -> str:
        user = self._target.netloc.rpartition("@")[0]
        return f"postgresql://{user}@{self._target.path}?host={self._folder}&port=5432&sslmode=disable"

    def lose(self, *losses: Loss) -> None:
        """The next statements with arguments (one each) meet this fate; then their connection is cut."""
        self._losses += losses
        self.lost.clear()

    @property
    def losing(self) -> bool:
        """Some of it is still to come."""
        return bool(self._losses)

    def forget(self) -> None:
        """What was to be lost is not."""
        self._losses.clear()

    def mute(self) -> None:
        """Swallow everything from now on, and break nothing: a network that has gone silent."""
        self._mute = True

    async def open(self) -> None:
        """Take connections."""
        self._mute = False
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._accept, str(self._folder / ".s.PGSQL.5432"))

    @property
    def is_open(self) -> bool:
        return self._server is not None

    def abort(self) -> None:
        """Break what is open, and refuse what comes."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            (self._folder / ".s.PGSQL.5432").unlink(missing_ok=True)
        for writer in list(self._open):
            writer.transport.abort()

    async def close(self) -> None:
        """… and wait until nothing of it goes on."""
        self.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        folder = parse_qs(self._target.query).get("host", [""])[0]
        port = int(parse_qs(self._target.query).get("port", [str(self._target.port or 5432)])[0])
        if folder.startswith("/"):
            far_in, far_out = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        else:
            far_in, far_out = await asyncio.open_connection(self._target.hostname or "127.0.0.1", port)
        self._open |= {near_out, far_out}
        fate: list[Loss] = []
        try:
            await asyncio.gather(self._requests(near_in, far_out, fate), self._answers(far_in, near_out, fate))
        finally:
            for writer in (near_out, far_out):
                self._open.discard(writer)
                writer.transport.abort()

    async def _requests(self, near: asyncio.StreamReader, far: asyncio.StreamWriter, fate: list[Loss]) -> None:
        try:
            while data := await near.read(1 << 20):
                if self._mute:
                    continue
                if data.startswith(b"B") and self._losses and not fate:  # Bind: the statement's arguments
                    fate.append(self._losses.pop(0))
                    if fate[0] in ("request", "half of the request"):
                        far.write(data[: len(data) // 2] if fate[0] != "request" else b"")
                        await far.drain()
                        break
                far.write(data)
                await far.drain()
        except OSError:
            pass
        self._happened(fate)
        far.close()

    async def _answers(self, far: asyncio.StreamReader, near: asyncio.StreamWriter, fate: list[Loss]) -> None:
        tail = b""
        try:
            while data := await far.read(1 << 20):
                if self._mute:
                    continue
                if fate:
                    tail = (tail + data)[-6:]
                    if fate[0] == "last word":  # everything but that it is committed
                        near.write(data[:-6] if tail.startswith(_READY) else data)
                        await near.drain()
                    if tail.startswith(_READY):
                        break
                    continue
                near.write(data)
                await near.drain()
        except OSError:
            pass
        self._happened(fate)
        near.close()

    def _happened(self, fate: list[Loss]) -> None:
        if fate and not self._losses:
            self.lost.set()


@asynccontextmanager
async def lossy(dsn: str) -> AsyncIterator[LossyWire]:
    """A wire that is whole at first."""
    folder = Path(tempfile.mkdtemp(prefix="ph-wire-"))  # a socket's path must be short
    made = LossyWire(dsn, folder)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
        shutil.rmtree(folder, ignore_errors=True)
