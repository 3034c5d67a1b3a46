"""HTTP/1.1 with nothing between a connection and its door: how the public listener answers.

A door is a coroutine function of one `Exchange`: it is called when a request's head is whole (and where its body came
along, with that), awaits the body's pieces, and returns the answer. The connection runs it itself, from the very call that brought the bytes, and again whenever
what it awaits has come (a piece of the body, a future: its commit). No task, no ASGI messages, no scope, and no timer
are made for a request: together they cost as much as the door.

What that asks of a door: what it awaits is `Exchange.piece()` or a future. `asyncio.timeout` needs a task, and whoever
wants one makes it (`endpoints.cache`, `published_keys` do).

Requests that come while an earlier one waits are parsed and put behind it, and no more is read from that connection.
An answer is small and written at once; while a client does not read its answers, its next request does not begin.
"""

from __future__ import annotations

import http
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import lru_cache
from typing import Any

import httptools
import structlog

from gateway.protocol import Debt, Protocol
from providers.contract import Answer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MOST_WAITING_BYTES = 64 * 1024  # of a body, while its door looks something up; what one read brings may be over

log = structlog.get_logger(__name__)


class ClientGone(Exception):
    """The other side hung up before its body was whole. There is nobody to answer."""


class Exchange:
    """One request and its answer. The first attributes are what uvicorn asks of a connection's `cycle`."""

    __slots__ = ("_asked", "_connection", "_pieces", "_waiting", "_work", "awaits_piece", "disconnected", "headers", "keep_alive",
                 "method", "more_body", "query", "raw_path", "response_complete")  # fmt: skip

    def __init__(self, connection: Direct, method: str, url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.more_body, self.response_complete, self.disconnected, self.keep_alive = True, False, False, True
        self.method, self.headers = method, headers  # names in lower case, as often as they came
        self.raw_path, self.query = _split(url)  # as sent
        self._asked = False  # for the body, by one who sends it only then
        self.awaits_piece = False
        self._connection = connection
        self._pieces: list[bytes] = []
        self._waiting = 0  # bytes of them
        self._work: Coroutine[Any, Any, Answer | None] | None = None

    def whole(self) -> bytes | None:
        """The body, if all of it is here already: that of nearly every delivery came with its head."""
        if self.more_body:
            return None
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def piece(self) -> bytes:
        """The next piece of the body; b"" at its end.    Raises: ClientGone."""
        while not self._pieces:
            if not self.more_body:
                return b""
            if self.disconnected:
                raise ClientGone
            if not self._asked:
                self._asked = True
                if any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers):
                    self._connection.transport.write(CONTINUE)
            self._connection.flow.resume_reading()
            await _until_resumed()
        piece = self._pieces.pop(0)
        self._waiting -= len(piece)
        return piece

    def take(self, piece: bytes) -> None:
        """A piece of the body has come."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self.awaits_piece:
            self.go_on()
        elif self._waiting > MOST_WAITING_BYTES:
            self._connection.flow.pause_reading()

    def finish(self) -> None:
        """The body is whole."""
        self.more_body = False
        if self.awaits_piece:
            self.go_on()

    def leave(self) -> None:
        """The other side is gone."""
        self.disconnected = True
        if self.awaits_piece:
            self.go_on()

    def begin(self, door: Door) -> None:
        self._work = door(self)
        self.go_on()

    def go_on(self, _: object = None) -> None:
        """Run the door until it awaits something, or has the answer."""
        assert self._work is not None
        self.awaits_piece = False
        try:
            awaited = self._work.send(None)
        except StopIteration as done:
            self._end(done.value)
        except Exception as error:  # a door answers its own; this is for what nobody thought of
            log.error("direct.failed", error=type(error).__name__, exc_info=True)
            self.keep_alive = False
            self._end(Answer(500, b"internal_error"))
        else:
            if awaited is None:
                self.awaits_piece = True
            else:
                awaited.add_done_callback(self.go_on)

    def _end(self, answer: Answer | None) -> None:
        self._work = None
        self._pieces.clear()
        self._connection.answer(self, answer)


Door = Callable[[Exchange], Coroutine[Any, Any, "Answer | None"]]  # None: there is nobody to answer


@types.coroutine
def _until_resumed() -> Generator[None, None, None]:
    yield


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
        if self._fresh is not None:  # its body did not come along
            self._begin()

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
        exchange = Exchange(self, self.parser.get_method().decode("ascii"), self.url, self.headers)
        exchange.keep_alive = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        self.headers = []  # what still comes is a trailer's
        self.cycle = exchange  # type: ignore[assignment]  # as much of a cycle as uvicorn looks at
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
        if answer is not None and not exchange.disconnected:
            self.server_state.total_requests += 1
            date = self.server_state.default_headers
            if exchange.keep_alive and not answer.body and not answer.headers:
                self.transport.write(_everyday(answer.status, date[0][1]))  # the answer to nearly every delivery
            else:
                self.transport.write(_rendered(answer, date, exchange.method, keep_alive=exchange.keep_alive))
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
def _everyday(status: int, date: bytes) -> bytes:
    return b"%b\r\ndate: %b\r\ncontent-length: 0\r\n\r\n" % (_status_line(status), date)


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
