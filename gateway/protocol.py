"""uvicorn's HTTP/1.1, with an end to what may come before a body, and passing over offers to change the protocol.

The parser keeps a request's head, and a chunked body's trailer, until it is whole, however long it gets; a single
line grows by copying. So a stranger's first line could take all memory and all of the processor, before anything
that counts bodies sees a byte: bytes that are neither the first of a request nor body are counted here.

A trailer's fields never become headers (RFC 9110 section 6.5.1): a proxy in front that looks at headers has not
seen them.

`Connection: Upgrade` and `Upgrade: h2c` are an offer that a server may ignore (RFC 9110 section 7.8); Java's HTTP
client makes it on every plain connection. httptools takes such a request to end with its headers, and what follows
for the other protocol: the body would be lost, or read as the next request. Here parsing goes on with the body.

The private listener's ASGI application stands on this as it is; `direct.py` puts the public one's door on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway import metrics

MOST_SILENT_BYTES = 64 * 1024  # of a head, of a trailer, between two pieces of a body; what one read brings may be over
WHOLE = "posthouse.whole"
Debt = Literal["head", "body", "request"]
TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 16\r\nconnection: close\r\n\r\ntoo_many_headers"
)


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._silent = 0  # bytes since a request began or a piece of its body came
        self.parser = _Parser(self)  # type: ignore[assignment]  # as much of httptools' parser as uvicorn uses

    def owes(self) -> Debt | None:
        """What the other side must send before long: the rest of a "head", of a "body", or nothing."""
        if self.cycle is not None and not self.cycle.response_complete:
            return "body" if self.cycle.more_body else None
        return "head" if self.timeout_keep_alive_task is None else None  # idle ones are uvicorn's to close

    def data_received(self, data: bytes) -> None:
        self._silent += len(data)
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._silent > MOST_SILENT_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:  # else it would stand inside another's answer
                self.transport.write(TOO_LONG)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        metrics.MALFORMED_HTTP.inc()  # and no line in the log: a stranger could fill the disk
        super().send_400_response(msg)

    def on_message_begin(self) -> None:
        self._silent = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.headers = []  # the request has the list that there was; what still comes is a trailer's
        self.scope["extensions"] = {WHOLE: _Whole(self.cycle)}  # type: ignore[dict-item]  # ours is no dict

    def head(self) -> list[tuple[bytes, bytes]]:
        """The headers of the request that is being received."""
        return list(self.scope["headers"])

    def on_body(self, body: bytes) -> None:
        self._silent = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.offers():  # type: ignore[attr-defined]  # else its body may be still to come
            self.on_request_complete()

    def on_request_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()


class _Whole:
    """A way around ASGI's two messages for an answer that is whole: one piece, one system call.

    An application finds it in its scope as `extensions[WHOLE]`; where it is not there, some other server runs it.
    """

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    async def __call__(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, size: int | None
    ) -> None:
        """Send it. `size` is the Content-Length, None where the status has none; the body may be left out (HEAD)."""
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected or cycle.response_started:
            return
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            if b"\n" in value or b"\r" in value:
                raise ValueError("a header's value with a line's end")
            parts += (name, b": ", value, b"\r\n")
        if size is not None:
            parts.append(b"content-length: %d\r\n" % size)
        parts += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        cycle.transport.write(b"".join(parts))
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


class _Parser:
    """httptools' parser, and another one from the body of a request that came with an offer."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._use(httptools.HttpRequestParser(protocol))

    def feed_data(self, data: bytes) -> None:
        """Raises: httptools.HttpParserError."""
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade as offer:
            self._pass_over()
            self.feed_data(data[offer.args[0] :])

    def should_upgrade(self) -> bool:
        return False

    def _use(self, parser: httptools.HttpRequestParser) -> None:
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._feed = parser.feed_data
        self.get_method, self.get_http_version = parser.get_method, parser.get_http_version
        self.should_keep_alive, self.offers = parser.should_keep_alive, parser.should_upgrade

    def _pass_over(self) -> None:
        framing = [(k, v) for k, v in self._protocol.head() if k in (b"content-length", b"transfer-encoding")]
        if not framing:
            self._protocol.on_request_complete()
        else:
            self._use(httptools.HttpRequestParser(_AfterHead(self._protocol)))
            self._feed(b"POST / HTTP/1.1\r\n" + b"".join(b"%b: %b\r\n" % header for header in framing) + b"\r\n")


class _AfterHead:
    """A protocol that knows the head of the first request already."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol, self._known = protocol, True
        self.on_body, self.on_message_complete = protocol.on_body, protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self._known:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._known:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._known:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._known:
            self._known = False
        else:
            self._protocol.on_headers_complete()
