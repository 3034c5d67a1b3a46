"""The sockets: where they are, for how long a slow sender is waited for, and for how much a long one."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
import structlog

from gateway import listen, logs, metrics
from gateway.door import ClientGone, Exchange
from gateway.errors import SetupError
from providers.contract import Answer


async def reads_everything(scope: Any, receive: Any, send: Any) -> None:
    """Answer 200 when the body is whole, and how many headers there were."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        headers = [(b"content-length", b"0"), (b"x-headers", str(len(scope["headers"])).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def reads_all(exchange: Exchange) -> Answer | None:
    """The same, as a door."""
    try:
        while await exchange.piece():
            pass
    except ClientGone:
        return None
    return Answer(200, headers=(("x-headers", str(len(exchange.headers))),))


@pytest.fixture(params=["private", "public"])
def serves(request: pytest.FixtureRequest) -> Callable[..., listen.Server]:
    """How each listener's server is made."""
    if request.param == "public":
        return partial(listen.direct, reads_all)
    return partial(listen.server, reads_everything)


@pytest.fixture
async def impatient(serves: Callable[..., listen.Server]) -> AsyncIterator[tuple[str, int]]:
    """A server that waits half a second for headers and for a body."""
    bound = listen.bind("127.0.0.1:0", "POSTHOUSE_PUBLIC_LISTEN")
    server = serves(head_s=0.5, body_s=0.5)
    host, port = bound.getsockname()
    serving = asyncio.create_task(server.serve([bound]))
    yield host, port
    server.should_exit = True
    await serving


@pytest.fixture
async def patient(serves: Callable[..., listen.Server]) -> AsyncIterator[tuple[str, int]]:
    """A server with its usual patience."""
    bound = listen.bind("127.0.0.1:0", "POSTHOUSE_PUBLIC_LISTEN")
    server = serves()
    host, port = bound.getsockname()
    serving = asyncio.create_task(server.serve([bound]))
    yield host, port
    server.should_exit = True
    await serving


UNFINISHED = {
    "next to nothing": b"P",
    "half of the headers": b"POST / HTTP/1.1\r\nhost: x\r\n",
    "half of the body": b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab",
}


async def test_one_who_never_finishes_a_request_is_cut_off(impatient: tuple[str, int]) -> None:
    """Else a handful of them holds every connection and all the memory for bodies. All at once: each takes two seconds."""

    async def sent(begun: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*impatient)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab")
        assert b"200" in await reader.readuntil(b"\r\n\r\n")  # one that is whole, on the same connection
        writer.write(begun)
        try:
            return await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()

    ends = await asyncio.gather(*(sent(begun) for begun in UNFINISHED.values()))
    assert dict(zip(UNFINISHED, ends, strict=True)) == dict.fromkeys(UNFINISHED, b"")


ENDLESS = b"a" * 50_000
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"POST /", ENDLESS),
        (HEAD + b"x-a: ", ENDLESS),
        (HEAD, b"x-a: b\r\n" * 5000),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: ", ENDLESS),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1;", ENDLESS),
        (HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\na" + HEAD + b"x-a: ", ENDLESS),
    ],
    ids=["a path", "a header", "headers", "a trailer", "a chunk's extension", "a header after an offer to upgrade"],
)
async def test_one_who_never_comes_to_the_point_is_cut_off(begun: bytes, more: bytes, patient: tuple[str, int]) -> None:
    """What precedes a body is held by the parser, and nothing else would bound it."""
    _, writer = await asyncio.open_connection(*patient)
    writer.write(begun)
    sent = 0
    with pytest.raises(ConnectionError):  # noqa: PT012 - which of the writes fails is the system's business
        while sent < 50_000_000:
            writer.write(more)
            sent += len(more)
            await writer.drain()
    writer.close()


@pytest.fixture
def written() -> Iterator[io.BytesIO]:
    """What is logged, as production would write it."""
    made = io.BytesIO()
    logs.configure("json", "debug", made)
    yield made
    structlog.reset_defaults()
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, logs.Foreign)]


async def test_what_is_no_http_is_counted_and_not_logged(patient: tuple[str, int], written: io.BytesIO) -> None:
    """Scanners and TLS at a plain port come by the thousand: a figure moves, the log does not grow."""
    name = "posthouse_malformed_http_total"
    before = metrics.REGISTRY.get_sample_value(name) or 0.0
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", HEAD + b"\x00: 1\r\n\r\n"):
        reader, writer = await asyncio.open_connection(*patient)
        writer.write(sent)
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
    assert metrics.REGISTRY.get_sample_value(name) == before + 3
    assert written.getvalue() == b""
    logging.getLogger("uvicorn.error").warning("something else")
    assert b"something else" in written.getvalue()


async def test_a_head_that_is_too_long_is_told_so(patient: tuple[str, int]) -> None:
    """Before its end, so that whoever sends it by mistake learns why."""
    reader, writer = await asyncio.open_connection(*patient)
    loop = asyncio.get_running_loop()
    answered = loop.create_task(reader.readuntil(b"\r\n"))
    writer.write(HEAD + b"x-a: ")
    while not answered.done():
        writer.write(b"a" * 1000)
        await asyncio.wait({answered}, timeout=0.001)
    assert b" 431 " in answered.result()
    writer.close()


@pytest.mark.parametrize("offer", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"], ids=["plain", "upgrade"])
async def test_a_trailer_is_no_header(offer: bytes, patient: tuple[str, int]) -> None:
    """A proxy in front that checks or strips headers has not seen it."""
    reader, writer = await asyncio.open_connection(*patient)
    asked = HEAD + offer + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    counts = []
    for trailer in (b"\r\n", b"x-hub-signature-256: sha256=0\r\n\r\n"):
        writer.write(asked + trailer)
        head = await reader.readuntil(b"\r\n\r\n")
        counts.append(head.split(b"x-headers: ")[1].split(b"\r\n")[0])
    assert counts[0] == counts[1]
    writer.close()


async def test_long_bodies_and_many_requests_are_as_they_were(patient: tuple[str, int]) -> None:
    """Only what is neither body nor a new request is counted, so a connection goes on for as long as it likes."""
    reader, writer = await asyncio.open_connection(*patient)
    body = b"b" * 300_000
    chunks = b"".join(b"1\r\nb\r\n" for _ in range(30_000)) + b"0\r\n\r\n"
    long = [HEAD + b"content-length: 300000\r\n\r\n" + body, HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks]
    short = HEAD + b"content-length: 0\r\n\r\n"
    for asked in [*long * 2, *[short] * 2000]:
        writer.write(asked)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
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
