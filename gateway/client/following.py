"""Following the stream over server-sent events: everything after a place, once, across any number of connections."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

from gateway.client.entries import Entry, entry
from gateway.client.errors import PASSING, from_problem
from gateway.client.http import Backoff, Http, Params

STREAM, PAGE = "/v1/events/stream", "/v1/events"
CLOSING = "posthouse.stream.closing"  # the process goes: come back, to another one
ERROR = "posthouse.stream.error"  # a problem object: the cursor went while it was read


@dataclass(slots=True)
class Frame:
    """One server-sent event. https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    id: str = ""
    event: str = ""
    data: bytes = b""  # lines joined by "\n"; none: only the id moved


class Frames:
    """Cuts bytes into frames. Half a frame at the end of a connection is none: it comes again."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._looked_at = 0  # in the buffer; a large event comes in many chunks
        self._frame, self._lines = Frame(), list[bytes]()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that `chunk` completes."""
        self._buffer += chunk
        while (end := self._buffer.find(b"\n", self._looked_at)) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            self._looked_at = 0
            if line:
                self._line(line)
            elif self._lines or self._frame.id:
                self._frame.data = b"\n".join(self._lines)
                yield self._frame
                self._frame, self._lines = Frame(), []
        self._looked_at = len(self._buffer)

    def _line(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._lines.append(value)
        elif name == b"id":
            self._frame.id = value.decode()
        elif name == b"event":
            self._frame.event = value.decode()


async def follow(http: Http, wanted: Params, after: str | None) -> AsyncGenerator[Entry, None]:
    """Entries after `after` as they are committed, without end.    Raises: CursorGone, ApiError."""
    backoff, cursor = Backoff(http.pace), after
    if after == "latest":  # once: a connection that breaks before the first event must come back to the same place
        page = await http.patiently("GET", PAGE, params=[*wanted, ("after", after), ("limit", "1")], patience_s=None)
        for sent in page["items"]:
            yield entry(sent)
        cursor = page["next_cursor"]
    while True:
        frames, trouble = Frames(), None
        place = {} if cursor is None else {"Last-Event-ID": cursor}
        try:
            async with http.stream(STREAM, params=wanted, headers=place) as chunks:
                while chunk := await chunks.next():
                    for frame in frames.feed(chunk):
                        if frame.event == ERROR:
                            problem = json.loads(frame.data)
                            raise from_problem(int(problem["status"]), problem)
                        cursor = frame.id or cursor
                        if frame.data and frame.event != CLOSING:
                            backoff.reset()
                            yield entry(json.loads(frame.data))
        except PASSING as error:
            trouble = error
        await backoff.wait(trouble)
