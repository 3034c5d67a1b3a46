"""Those who announce much and send little cost no room that others need. (How long they may: tests/ops.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.clock import Clock
from gateway.service import Gateway
from gateway.settings import Settings
from tests.flows.house import House, declare

MIB = 1024 * 1024


@pytest.fixture
async def gateway(settings: Settings, clock: Clock) -> AsyncIterator[Gateway]:
    """A process with room for one large body, and no more."""
    tight = settings.model_copy(update={"max_inflight_bytes": 26 * MIB})
    made = await Gateway.open(tight, clock)
    yield made
    await made.close()


async def announce(house: House, size: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has sent its headers and one byte of `size`."""
    host, _, port = house.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    target = house.targets["github"].encode()
    writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{" % (target, size))
    await writer.drain()
    return reader, writer


async def test_announcing_large_bodies_takes_no_room_from_others(house: House) -> None:
    """Ten strangers announce 250 MiB where 26 fit; an honest delivery is taken meanwhile."""
    await declare(house, "github")
    strangers = [await announce(house, 25 * MIB) for _ in range(10)]
    assert (await house.deliver("github")).status == 200
    for _, writer in strangers:
        writer.close()
