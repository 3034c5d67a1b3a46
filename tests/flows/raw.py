"""HTTP/1.1 by hand: requests as a provider's stack, a broken proxy or an attacker would write them to the socket.

HTTP libraries refuse to send most of what a public listener must survive (doubled headers, odd bytes, half bodies).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

PATIENCE_S = 30  # for answers that are bound to come; nothing is measured by it
Pairs = Iterable[tuple[str | bytes, str | bytes]]


class NoAnswer(Exception):
    """The connection ended before an answer was whole."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, final (no 1xx)."""

    status: int
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of that header."""
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str | None:
        """The value of a header that may come once at the most."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


def request(
    target: str | bytes,
    headers: Mapping[str, str] | Pairs = (),
    body: bytes = b"",
    *,
    method: str = "POST",
    chunked: int = 0,
    length: bool = True,
) -> bytes:
    """A request's bytes. `chunked`: in chunks of so many bytes; `length` False: without Content-Length."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [_bytes(method) + b" " + _bytes(target) + b" HTTP/1.1", b"host: hooks.example.com"]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in pairs]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    elif length:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + (in_chunks(body, chunked) if chunked else body)


def in_chunks(body: bytes, size: int) -> bytes:
    """`body` in the chunked transfer coding."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


class Connection:
    """A connection to a listener; it may carry several requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, url: str) -> Connection:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    def send(self, data: bytes) -> None:
        """Hand bytes to the socket."""
        self._writer.write(data)

    async def sent(self) -> None:
        """Wait until the socket has taken what was sent (all but a buffer's worth)."""
        await self._writer.drain()

    async def answer(self, *, head: bool = False, within_s: float = PATIENCE_S) -> Answer:
        """The next answer.    Raises: NoAnswer."""
        try:
            async with asyncio.timeout(within_s):
                while (found := await self._answer(head)).status < 200:
                    pass
                return found
        except (asyncio.IncompleteReadError, OSError) as error:
            raise NoAnswer from error

    async def ask(self, data: bytes, *, head: bool = False) -> Answer:
        """Send a whole request, and its answer.    Raises: NoAnswer."""
        self.send(data)
        return await self.answer(head=head)

    async def until(self, mark: bytes) -> bytes:
        """What comes next, through `mark`."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(mark)

    async def ended(self) -> bytes:
        """Wait until the other side hangs up; what it said until then."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._reader.read()
        except OSError:
            return b""

    def hang_up(self) -> None:
        """Go without a word more, as a process that is killed does."""
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def _answer(self, head: bool) -> Answer:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        status = int(lines[0].split(" ")[1])
        headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:]))
        size = next((int(value) for name, value in headers if name == "content-length"), None)
        if head or status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        body = await (self._reader.read() if size is None else self._reader.readexactly(size))
        return Answer(status, headers, body)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection for as long as the block runs."""
    made = await Connection.open(url)
    try:
        yield made
    finally:
        await made.close()


async def ask(url: str, data: bytes, *, head: bool = False) -> Answer:
    """One request on a connection of its own."""
    async with connected(url) as connection:
        return await connection.ask(data, head=head)
