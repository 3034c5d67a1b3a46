"""HTTP/1.1 with nothing between a connection and its door: how the public listener answers.

A connection parses, makes an `Exchange` of each request and runs its door (`door.py`). No task, no ASGI messages, no
scope and no timer are made for a request: together they cost more than all that is left.

Requests that come while an earlier one waits are parsed and put behind it, and no more is read from that connection.
An answer is small and written at once; while a client does not read its answers, its next request does not begin.
"""

from __future__ import annotations

import http
from collections import deque
from functools import lru_cache
from typing import Any

import httptools
import structlog

from gateway.door import Door, Exchange
from gateway.protocol import Debt, Protocol
from providers.contract import Answer

log = structlog.get_logger(__name__)


class Direct(Protocol):
    """One connection."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._door: Door = self.app  # what uvicorn takes for an ASGI application
        self._behind: deque[Exchange] = deque()  # whole or not, but not begun: an earlier one is not answered yet
        self._current: Exchange | None = None  # not answered; begun, or about to be
        self._fresh: Exchange | None = None  # the same, while it is not begun
        self._in_head = False
        self._idle = False  # nothing came since the last answer
        self._settling = False

    def owes(self) -> Debt | None:
        if self.cycle is not None and not self.cycle.response_complete:
            return "body" if self.cycle.more_body else None
        return "request" if self._idle and not self._in_head else "head"

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self._behind.clear()
        self._fresh = None
        self.parser = None  # type: ignore[assignment]
        if self._current is not None:
            self._current.leave()

    def data_received(self, data: bytes) -> None:
        self._idle = False
        super().data_received(data)
        if self._current is None or self.transport.is_closing():
            return
        if self._fresh is not None:  # its body did not come along
            self._begin()
        else:
            self._current.advance()

    def head(self) -> list[tuple[bytes, bytes]]:
        exchange: Any = self.cycle
        return list(exchange.headers)

    def on_message_begin(self) -> None:
        self._silent = 0
        self._in_head = True
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        exchange = Exchange(self, self.parser.get_method().decode("ascii"), *_split(self.url), self.headers)
        exchange.keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        self.headers = []  # what still comes is a trailer's
        self.cycle = exchange  # type: ignore[assignment]  # as much of a cycle as uvicorn looks at
        if self.transport.is_closing():
            return  # the last answer said so
        if self._current is None and not self._behind and not self.flow.write_paused:
            self._current = self._fresh = exchange
        else:
            self.flow.pause_reading()
            self._behind.append(exchange)

    def on_body(self, body: bytes) -> None:
        self._silent = 0
        exchange: Any = self.cycle
        if not exchange.response_complete:
            exchange.take(body)

    def on_request_complete(self) -> None:
        exchange: Any = self.cycle
        exchange.finish()
        if self._fresh is not None:
            self._begin()

    def _begin(self) -> None:
        exchange, self._fresh = self._fresh, None
        assert exchange is not None
        exchange.begin(self._door)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._settle()

    def answer(self, exchange: Exchange, answer: Answer | None) -> None:
        """Write the answer to the current exchange, and turn to the next."""
        exchange.response_complete = True
        self._current = None
        if answer is not None and not exchange.disconnected and not self.transport.is_closing():
            self.server_state.total_requests += 1
            default = self.server_state.default_headers  # the date
            if exchange.keep_alive and default and not answer.body and not answer.headers:
                self.transport.write(_everyday(answer.status, *default))  # the answer to nearly every delivery
            else:
                self.transport.write(_rendered(answer, default, exchange.method, keep_alive=exchange.keep_alive))
        if not exchange.keep_alive or answer is None:
            self.transport.close()
        self._idle = True
        if self._behind or self.flow.read_paused:
            self._settle()

    def _settle(self) -> None:
        """Begin what waits, one after the other; then read on."""
        if self._settling:  # one that is answered at once brings us here from below
            return
        self._settling = True
        try:
            while self._behind and self._current is None and not self.flow.write_paused:
                if self.transport.is_closing():
                    return
                self._current = self._behind.popleft()
                self._current.begin(self._door)
        finally:
            self._settling = False
        if not self._behind and not self.transport.is_closing():
            self.flow.resume_reading()


@lru_cache(maxsize=64)
def _everyday(status: int, *default: tuple[bytes, bytes]) -> bytes:
    return _rendered(Answer(status), list(default), "POST", keep_alive=True)


def _rendered(answer: Answer, default: list[tuple[bytes, bytes]], method: str, *, keep_alive: bool) -> bytes:
    lines = [_status_line(answer.status), *(b"%b: %b" % header for header in default)]
    headers = [("content-length", str(len(answer.body))), *answer.headers]
    if answer.body:
        headers.append(("content-type", answer.content_type))
    if not keep_alive:
        headers.append(("connection", "close"))
    if not all(name.isprintable() and value.isprintable() for name, value in headers):
        log.error("direct.broken_header")  # a line's end in a value would begin a header of a stranger's choice
        return _rendered(Answer(500, b"internal_error"), default, method, keep_alive=keep_alive)
    lines += [f"{name}: {value}".encode("latin-1", "replace") for name, value in headers]
    return b"\r\n".join([*lines, b"", b"" if method == "HEAD" else answer.body])


def _status_line(status: int) -> bytes:
    try:
        return b"HTTP/1.1 %d %b" % (status, http.HTTPStatus(status).phrase.encode())
    except ValueError:
        return b"HTTP/1.1 %d " % status


def _split(url: bytes) -> tuple[bytes, bytes]:
    """Path and query.    Raises: httptools.HttpParserInvalidURLError; what is no path of ours is no request."""
    if url.startswith(b"/hooks/") and b"?" not in url and b"#" not in url and url.isascii():  # nearly always
        return url, b""
    parsed = httptools.parse_url(url)
    if parsed.path is None or not parsed.path.isascii():
        raise httptools.HttpParserInvalidURLError("no path")
    return parsed.path, parsed.query or b""
