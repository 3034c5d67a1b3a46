"""Gateways in processes of their own, run as whoever a test needs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded import EmbeddedPostgres, start

REPOSITORY = Path(__file__).parents[2]
_PATIENCE_S = 60


@dataclass
class Gateway:
    """`python -m gateway.embedded`, ready."""

    process: Process
    pid: int  # of the postmaster
    dsn: str
    adopted: bool

    async def stop(self) -> None:
        """Ask it to stop; PostgreSQL goes with it."""
        self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), _PATIENCE_S) == 0
        await gone(self.pid)


_started: list[Process] = []


@asynccontextmanager
async def running(folder: Path, settings: Mapping[str, str]) -> AsyncIterator[EmbeddedPostgres]:
    """A server of this process for as long as the block runs, whatever goes wrong in it."""
    server = await start(folder, settings=settings)
    try:
        yield server
    finally:
        await server.stop()


def end_all() -> None:
    """Ask the gateways that a failed test has left to stop."""
    while _started:
        process = _started.pop()
        if process.returncode is None:
            os.kill(process.pid, signal.SIGTERM)  # its event loop may be closed


async def gateway(folder: Path, settings: Mapping[str, str], *prefix: str, path: str = "") -> Gateway | str:
    """Start one, `prefix` before its command; what it said on stderr where it refused. `path` goes before ours."""
    command = [sys.executable, "-m", "gateway.embedded", str(folder), *(f"{n}={v}" for n, v in settings.items())]
    search = [place for place in (path, str(REPOSITORY), os.environ.get("PYTHONPATH")) if place]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONDONTWRITEBYTECODE": "1"}
    process = await asyncio.create_subprocess_exec(
        *prefix, *command, stdout=PIPE, stderr=PIPE, env=environment, cwd=REPOSITORY
    )
    _started.append(process)
    assert process.stdout
    assert process.stderr
    said = await asyncio.wait_for(process.stdout.readline(), _PATIENCE_S)
    if not said:
        complaint = (await process.stderr.read()).decode()
        assert await process.wait() != 0
        return complaint
    facts = json.loads(said)
    return Gateway(process, facts["pid"], facts["dsn"], facts["adopted"])


def one_line(refused: Gateway | str) -> str:
    """What a gateway said that refused to start: one line, and no traceback."""
    assert isinstance(refused, str), "it started"
    assert refused.endswith("\n")
    assert refused.count("\n") == 1, refused
    print(refused, end="")
    return refused.strip()


async def gone(pid: int) -> None:
    """Wait until no such process is left; one that only waits for its parent to look is gone too."""
    async with asyncio.timeout(_PATIENCE_S):
        while _alive(pid):  # noqa: ASYNC110 another's child has no event
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
