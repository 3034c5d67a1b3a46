"""The sockets: where they are, and for how long a slow sender is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway import listen
from gateway.errors import SetupError


async def reads_everything(scope: Any, receive: Any, send: Any) -> None:
    """Answer 200 when the body is whole."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def impatient() -> AsyncIterator[tuple[str, int]]:
    """A server that waits half a second for headers and for a body."""
    bound = listen.bind("127.0.0.1:0", "POSTHOUSE_PUBLIC_LISTEN")
    server = listen.server(reads_everything, head_s=0.5, body_s=0.5)
    host, port = bound.getsockname()
    serving = asyncio.create_task(server.serve([bound]))
    yield host, port
    server.should_exit = True
    await serving


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST / HTTP/1.1\r\nhost: x\r\n", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab"],
    ids=["nothing", "half of the headers", "half of the body"],
)
async def test_one_who_never_finishes_a_request_is_cut_off(sent: bytes, impatient: tuple[str, int]) -> None:
    """Else a handful of them holds every connection and all the memory for bodies."""
    reader, writer = await asyncio.open_connection(*impatient)
    whole = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab"
    writer.write(whole)
    assert b"200" in await reader.readuntil(b"\r\n\r\n")  # one that is whole, on the same connection
    writer.write(sent or b"P")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


def test_a_port_of_the_systems_choice_is_told() -> None:
    """Port 0, on either family."""
    for address in ("127.0.0.1:0", "0.0.0.0:0"):
        bound = listen.bind(address, "POSTHOUSE_PUBLIC_LISTEN")
        assert listen.url_of(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}"
        bound.close()


@pytest.mark.parametrize("address", ["192.0.2.1:80", "no.such.host.invalid:80"])
def test_an_address_that_is_not_ours_is_refused_with_the_settings_name(address: str) -> None:
    """One line."""
    with pytest.raises(SetupError, match=r"\(POSTHOUSE_PUBLIC_LISTEN\)"):
        listen.bind(address, "POSTHOUSE_PUBLIC_LISTEN")
