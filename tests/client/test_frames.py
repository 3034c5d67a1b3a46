"""Server-sent events out of bytes that come in any pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.client.following import Frame, Frames

STREAM = (
    b"retry: 1000\n\n"
    b": keep-alive\n\n"
    b'id: 01\nevent: a.b\ndata: {"text": "h\xc3\xa9llo"}\n\n'
    b"id: 02\n\n"
    b"event: no.id\r\ndata: one\r\ndata:two\r\n\r\n"
    b"id: 03\ndata: \n\n"
)
WHOLE = [
    Frame("01", "a.b", '{"text": "héllo"}'.encode()),
    Frame("02"),
    Frame("", "no.id", b"one\ntwo"),
    Frame("03"),
]


def cut(data: bytes, places: list[int]) -> list[Frame]:
    frames, found, before = Frames(), list[Frame](), 0
    for place in [*sorted(places), len(data)]:
        found += frames.feed(data[before:place])
        before = place
    return found


@given(st.lists(st.integers(0, len(STREAM))))
def test_the_pieces_do_not_matter(places: list[int]) -> None:
    """The same frames, wherever the network cuts them; a comment is none, an id alone is one."""
    assert cut(STREAM, places) == WHOLE


@given(st.integers(0, len(STREAM)))
def test_half_a_frame_is_none(end: int) -> None:
    """What the connection did not finish is not there, so that it is asked for again."""
    found = cut(STREAM[:end], [])
    assert found == WHOLE[: len(found)]
    assert len(found) <= STREAM[:end].count(b"\n\n") + STREAM[:end].count(b"\r\n\r\n")


def test_large_data_in_many_pieces_is_looked_at_once() -> None:
    """A body of many megabytes arrives in small chunks; each byte is searched once."""
    frames = Frames()
    found = list(frames.feed(b"id: 9\ndata: "))
    for _ in range(512):
        found += frames.feed(b"x" * 65536)
    found += frames.feed(b"\n\n")
    assert [(frame.id, len(frame.data)) for frame in found] == [("9", 512 * 65536)]
