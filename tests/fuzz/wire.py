"""Requests as parts that mutations change, and as bytes; and what a receiver must see in those bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import httptools

from tests.flows.raw import in_chunks

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """A request before it is written to the wire."""

    method: bytes
    target: bytes
    headers: tuple[Header, ...]
    body: bytes
    chunk: int = 0  # size of chunks; 0: Content-Length
    length: bytes | None = None  # another Content-Length than the true one
    version: bytes = b"HTTP/1.1"
    trailers: tuple[Header, ...] = ()

    def written(self) -> bytes:
        lines = [self.method + b" " + self.target + b" " + self.version, b"host: hooks.example.com"]
        lines += [name + b": " + value for name, value in self.headers]
        if self.chunk:
            lines.append(b"transfer-encoding: chunked")
        if not self.chunk or self.length is not None:
            lines.append(b"content-length: " + (b"%d" % len(self.body) if self.length is None else self.length))
        return b"\r\n".join([*lines, b"", b""]) + (self._in_chunks() if self.chunk else self.body)

    def put(self, **changes: object) -> Request:
        """The same with some parts changed."""
        return replace(self, **changes)  # type: ignore[arg-type]  # by the names of the fields

    def _in_chunks(self) -> bytes:
        coded = in_chunks(self.body, self.chunk)
        tail = b"".join(name + b": " + value + b"\r\n" for name, value in self.trailers)
        return coded[:-2] + tail + b"\r\n"


@dataclass(slots=True)
class Message:
    """A whole request as read from the wire; header names in lower case."""

    method: str = ""
    target: bytes = b""
    headers: list[Header] = field(default_factory=list)
    at_head: int = 0  # so many of them stood before the body
    body: bytes = b""

    @property
    def path(self) -> bytes:
        return bytes(httptools.parse_url(self.target).path)

    @property
    def query(self) -> bytes:
        return bytes(httptools.parse_url(self.target).query or b"")


@dataclass(frozen=True, slots=True)
class Reading:
    """What a receiver sees: whole requests, and what becomes of the rest."""

    messages: list[Message]
    broken: bool  # it is no HTTP, or asks for another protocol
    unfinished: bool  # the receiver waits for more


class _Reader:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.unfinished = False
        self._now = Message()

    def on_message_begin(self) -> None:
        self._now, self.unfinished = Message(), True

    def on_url(self, url: bytes) -> None:
        self._now.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._now.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._now.method = self.parser.get_method().decode()
        self._now.at_head = len(self._now.headers)
        httptools.parse_url(self._now.target).path.decode("ascii")  # what uvicorn insists on

    def on_body(self, body: bytes) -> None:
        self._now.body += body

    def on_message_complete(self) -> None:
        self.messages.append(self._now)
        self.unfinished = False


def read(data: bytes) -> Reading:
    """Read what was written, with the parser that the server stands on and none of our code."""
    reader = _Reader()
    broken = False
    try:
        reader.parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        broken = True
    return Reading(reader.messages, broken, reader.unfinished)
