"""One request on the public listener, and the door that answers it.

A door is a coroutine function of one `Exchange`. It is called when a request's head is whole (and where its body came
along, as nearly every delivery's does, with all of it), awaits what else comes of the body, and returns the answer. It is
run from the very call that brought the bytes, and again whenever what it awaits has come: more of the body, or a future
(its commit, say).

What that asks of a door: what it awaits is `Exchange.piece()` or a future. `asyncio.timeout` needs a task, and whoever
wants one makes it (`endpoints.cache`, `published_keys` do).
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

import structlog

from providers.contract import Answer

if TYPE_CHECKING:
    from gateway.direct import Direct

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MOST_WAITING_BYTES = 64 * 1024  # of a body, while its door looks something up; what one read brings may be over

log = structlog.get_logger(__name__)


class ClientGone(Exception):
    """The other side hung up before its body was whole. There is nobody to answer."""


Door = Callable[["Exchange"], Coroutine[Any, Any, Answer | None]]  # None: there is nobody to answer


class Exchange:
    """One request and its answer. The first attributes are what uvicorn asks of a connection's `cycle`."""

    __slots__ = ("_asked", "_awaits_piece", "_connection", "_pieces", "_waiting", "_work", "disconnected", "headers", "keep_alive",
                 "method", "more_body", "query", "raw_path", "response_complete")  # fmt: skip

    def __init__(
        self, connection: Direct, method: str, raw_path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self.more_body, self.response_complete, self.disconnected, self.keep_alive = True, False, False, True
        self.method, self.headers = method, headers  # names in lower case, as often as they came
        self.raw_path, self.query = raw_path, query  # as sent
        self._asked = False  # for the body, by one who sends it only then
        self._awaits_piece = False
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
        """What has come of the body since; b"" at its end.    Raises: ClientGone."""
        while not self._pieces:
            if not self.more_body:
                return b""
            if self.disconnected or self._connection.transport.is_closing():
                raise ClientGone
            if not self._asked:
                self._asked = True
                if any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers):
                    self._connection.transport.write(CONTINUE)
            self._connection.flow.resume_reading()
            await _until_resumed()
        pieces, self._pieces, self._waiting = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take(self, piece: bytes) -> None:
        """A piece of the body has come: a chunk of one byte, perhaps, so the door sees what one read brought together."""
        self._pieces.append(piece)
        self._waiting += len(piece)

    def advance(self) -> None:
        """All that one read brought has been taken."""
        if self._pieces and self._awaits_piece:
            self.go_on()
        elif self._waiting > MOST_WAITING_BYTES and self.more_body:
            self._connection.flow.pause_reading()

    def finish(self) -> None:
        """The body is whole."""
        self.more_body = False
        if self._awaits_piece:
            self.go_on()

    def leave(self) -> None:
        """The other side is gone."""
        self.disconnected = True
        if self._awaits_piece:
            self.go_on()

    def begin(self, door: Door) -> None:
        self._work = door(self)
        self.go_on()

    def go_on(self, _: object = None) -> None:
        """Run the door until it awaits something, or has the answer."""
        assert self._work is not None
        self._awaits_piece = False
        try:
            awaited = self._work.send(None)
        except StopIteration as done:
            self._end(done.value)
        except asyncio.CancelledError:  # what it awaited is closed: the process ends
            self._end(None)
        except Exception as error:  # a door answers its own; this is for what nobody thought of
            log.error("exchange.failed", error=type(error).__name__, exc_info=True)
            self.keep_alive = False
            self._end(Answer(500, b"internal_error"))
        else:
            if awaited is None:
                self._awaits_piece = True
            else:
                awaited.add_done_callback(self.go_on)

    def _end(self, answer: Answer | None) -> None:
        self._work = None
        self._pieces.clear()
        self._connection.answer(self, answer)


@types.coroutine
def _until_resumed() -> Generator[None, None, None]:
    yield
