"""What benchmarks of servers share: a server process, a round of wrk against it, the CPU it spent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Round:
    """What wrk saw in one round."""

    requests: int
    refused: int
    broken: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def per_second(self) -> float:
        return (self.requests - self.refused) / self.seconds


@asynccontextmanager
async def server(
    module: str, mode: str, environment: dict[str, str], counted: list[tuple[int, int]]
) -> AsyncIterator[tuple[str, int]]:
    """A server process: its URL and pid. At its end `counted` gets the two figures that it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, mode, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise SystemExit(f"the {mode} server did not start")
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
        if words := out.split():
            counted.append((int(words[0]), int(words[1])))


async def wrk(url: str, script: str, connections: int, seconds: int, *arguments: str) -> Round:
    """One round of wrk, with a script that prints `FIGURES`."""
    process = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, url, "--", *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    words = next(line for line in out.decode().splitlines() if line.startswith("FIGURES")).split()[1:]
    return Round(int(words[0]), int(words[1]), int(words[2]) + int(words[3]), *map(float, words[4:]))


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has spent; nan where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
