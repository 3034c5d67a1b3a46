"""Whole answers are written in one piece (gateway/protocol.py): HTTP holds all the same, seen from the socket."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from tests.web.conftest import Api


async def ask(api: Api, data: bytes) -> bytes:
    """All that comes until the server closes."""
    parts = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_requests_in_one_piece_are_answered_in_their_order_and_the_last_one_closes(api: Api) -> None:
    """Pipelined; HEAD has the length and no body; `Connection: close` is said and done."""
    first, second, third = (b"HEAD /healthz", b"GET /nowhere", b"GET /healthz")
    host = b" HTTP/1.1\r\nhost: x\r\n"
    said = await ask(
        api, first + host + b"\r\n" + second + host + b"\r\n" + third + host + b"connection: close\r\n\r\n"
    )
    head, missing, last = said.split(b"HTTP/1.1 ")[1:]
    assert head.startswith(b"200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 18" in head
    assert missing.startswith(b"404 ")
    assert last.endswith(b'\r\n\r\n{"status":"alive"}')
    assert [b"connection: close" in one for one in (head, missing, last)] == [False, False, True]
    for one in (head, missing, last):
        assert one.count(b"content-length: ") == one.count(b"x-request-id: ") == one.count(b"date: ") == 1


async def test_an_old_client_gets_its_answer_and_the_end(api: Api) -> None:
    """HTTP/1.0 keeps no connection; a body that nobody reads is no trouble."""
    said = await ask(api, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert said.endswith(b'{"status":"alive"}')
    assert b"connection: close" in said
    refused = await ask(
        api, b"POST /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100000
    )
    assert refused.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: GET, HEAD\r\n" in refused
