"""`posthouse` in processes of their own, as a shell or an init system starts it."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

PATIENCE_S = 60


@dataclass
class Command:
    """One that was started. `out` is what it has said on standard output until it was ready."""

    process: asyncio.subprocess.Process
    out: list[str] = field(default_factory=list)

    async def until(self, pattern: str) -> str:
        """The line of standard output that matches, once it is there."""
        assert self.process.stdout is not None
        while line := (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE_S)).decode():
            self.out.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"it ended without {pattern!r}: {''.join(self.out)}{await self.errors()}")

    async def ended(self) -> int:
        """Its status."""
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)

    async def errors(self) -> str:
        """Standard error, when it has ended."""
        assert self.process.stderr is not None
        return (await asyncio.wait_for(self.process.stderr.read(), PATIENCE_S)).decode()

    async def rest(self) -> str:
        """What is left of standard output, when it has ended."""
        assert self.process.stdout is not None
        return (await self.process.stdout.read()).decode()


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Ours, without settings of Posthouse that a developer may have exported, and with these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POSTHOUSE_")}
    return {**inherited, **{f"POSTHOUSE_{name.upper()}": value for name, value in settings.items()}}


@asynccontextmanager
async def posthouse(*arguments: str, settings: Mapping[str, str]) -> AsyncIterator[Command]:
    """A command that runs for as long as the block at the most."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments, env=environment(settings), stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE, stderr=PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                await stream.read()
        process._transport.close()  # type: ignore[attr-defined]  # else its pipes are closed by the collector, with a warning


def free_port() -> int:
    """Below those that the system gives away by itself: still free when we come to it, or a killed gateway comes back."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
