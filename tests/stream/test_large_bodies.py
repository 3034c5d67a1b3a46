"""Sixty-four large deliveries at once, over real sockets: what fits is taken, the rest is told to come again.

Memory is bounded by what may be in flight, not by what is sent; and 503 loses nothing, because the provider sends
again until all is on the log, each once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.clock import Clock
from gateway.service import Gateway
from gateway.settings import Settings
from tests.flows import raw
from tests.flows.house import House, declare, metric, opened

COUNT = 64
MIB = 1024 * 1024


class Sender:
    """A provider with large deliveries, all of one body."""

    def __init__(self, house: House, size: int) -> None:
        self.body = b'{"filler":"' + b"x" * (size - 13) + b'"}'
        self._requests: list[bytes] = []
        for _ in range(COUNT):
            target, headers, _ = house.signed("github", self.body)
            head = raw.request(target, {**headers, "content-length": str(len(self.body))}, length=False)
            self._requests.append(head)
        self.answers: list[set[int]] = [set() for _ in range(COUNT)]

    async def send(self, url: str, number: int) -> int:
        """Send one of them, a piece at a time; its status."""
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(self._requests[number])
            try:
                for at in range(0, len(self.body), 256 * 1024):
                    writer.write(self.body[at : at + 256 * 1024])
                    await writer.drain()
            except ConnectionError:
                pass  # refused early; the answer is there all the same, or the connection is cut
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0
            status = int(head.split()[1])
            assert status != 503 or b"\r\nretry-after: " in head
            self.answers[number].add(status)
            return status
        finally:
            writer.transport.abort()

    async def send_all(self, url: str) -> None:
        """All at once, and again those that were not taken, fewer at a time, as retries come spread."""
        left = list(range(COUNT))
        statuses = await asyncio.gather(*(self.send(url, number) for number in left))
        assert 200 in statuses, "something is taken even now"
        assert 503 in statuses, "and something is not: else this proves nothing"
        left = [number for number, status in zip(left, statuses, strict=True) if status != 200]
        while left:
            some, left = left[:4], left[4:]
            statuses = await asyncio.gather(*(self.send(url, number) for number in some))
            left += [number for number, status in zip(some, statuses, strict=True) if status != 200]


async def check(gateway: Gateway, sender: Sender) -> None:
    """Each is on the log once and whole; nothing but 200 and 503 was ever said."""
    assert set().union(*sender.answers) <= {200, 503}
    rows = await gateway.regions.home.database.fetch(
        """SELECT delivery->'headers'->>'x-github-delivery' AS id, length(data) AS size, sha256(data) = sha256($1) AS same
             FROM gateway.events""", sender.body,
    )  # fmt: skip
    assert len(rows) == len({row["id"] for row in rows}) == COUNT
    assert all(row["same"] for row in rows)


async def test_large_bodies_beyond_what_fits(settings: Settings, clock: Clock) -> None:
    """64 bodies of 1 MiB where 8 fit: none is half, none is lost, and the room is free afterwards."""
    gateway = await Gateway.open(settings.model_copy(update={"max_inflight_bytes": 8 * MIB}), clock)
    try:
        async with opened(gateway) as house:
            await declare(house, "github")
            sender = Sender(house, MIB)
            await sender.send_all(house.url)
            await check(gateway, sender)
            assert metric("posthouse_inflight_bytes") == 0
            assert (await house.deliver("github")).status == 200
    finally:
        await gateway.close()


@asynccontextmanager
async def apart(settings: Settings) -> AsyncIterator[tuple[str, int]]:
    """The public listener in a process of its own: its URL and pid."""
    assert settings.database_url is not None
    assert settings.keyring is not None
    environment = {
        **os.environ,
        "POSTHOUSE_DATABASE_URL": settings.database_url.get_secret_value(),
        "POSTHOUSE_KEYRING": settings.keyring.get_secret_value(),
        "POSTHOUSE_PUBLIC_URL": settings.public_url,
        "POSTHOUSE_HOME": str(settings.home),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks._ingest_server", "gateway",
        stdout=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip(), process.pid
        assert process.returncode is None, "the process survives"
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.long
async def test_64_bodies_of_25_mib(settings: Settings, gateway: Gateway) -> None:
    """With room for 256 MiB: 1.6 GB come at once, the process stays under 1 GiB and lives, and all is kept in the end."""
    async with opened(gateway) as house:
        await declare(house, "github")
        sender = Sender(house, 25 * MIB)
    async with apart(settings) as (url, pid):
        await sender.send_all(url)
        status = Path(f"/proc/{pid}/status")
        if status.exists():
            peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            assert int(peak.split()[1]) * 1024 < 1024 * MIB, peak
    await check(gateway, sender)
