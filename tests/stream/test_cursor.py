"""Cursors: any text is one or is refused; what they say comes back."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import ids
from gateway.errors import Invalid
from gateway.stream.cursor import UNMARKED, Cursor, mark_of, parse

CURSORS = st.builds(
    Cursor, st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1), st.binary(min_size=3, max_size=3)
)  # fmt: skip


@given(CURSORS)
def test_what_is_shown_is_read_back(cursor: Cursor) -> None:
    """Whole, and in plain letters that a URL and a header take as they are."""
    text = str(cursor)
    assert len(text) == 20
    assert text == quote(text, safe="")
    again = parse(text)
    assert (again.epoch, again.seq, again.mark) == (cursor.epoch, cursor.seq, cursor.mark)


@given(st.integers(0, 2**32 - 1), *[st.tuples(st.integers(0, 2**63 - 1), st.binary(min_size=3, max_size=3))] * 2)
def test_cursors_of_one_log_compare_as_texts(epoch: int, one: tuple[int, bytes], other: tuple[int, bytes]) -> None:
    """The greater text is further on: a worker sees by it which of its partitions have had an event already."""
    assert (str(Cursor(epoch, *one)) < str(Cursor(epoch, *other))) == (one < other)


@given(st.text() | st.text("ABCXYZabcxyz0129-_~+/= \n", min_size=14, max_size=26) | st.binary(max_size=20).map(
    lambda raw: base64.urlsafe_b64encode(raw).decode()
))  # fmt: skip
@example("")
@example("=" * 20)
@example("A" * 19 + "\n")
@example("A" * 19 + "\ud800")
@example("AAAAAA" + "_" * 14)
@example(base64.urlsafe_b64encode(b"\0" * 4 + b"\xff" * 8 + b"\0" * 3).decode())
def test_any_text_is_a_cursor_or_invalid(text: str) -> None:
    """Never a traceback, never a negative place."""
    try:
        cursor = parse(text)
    except Invalid:
        return
    assert str(cursor) == text
    assert 0 <= cursor.epoch < 2**32
    assert 0 <= cursor.seq < 2**63
    assert len(cursor.mark) == 3


@pytest.mark.parametrize("text", ["earliest", "0", "evt_0192f3c0", "A" * 16, "A" * 24, "a b" * 6 + "cd"])
def test_what_is_no_cursor_is_said_to_be_none(text: str) -> None:
    with pytest.raises(Invalid):
        parse(text)


def test_the_mark_is_of_the_random_end_of_an_id() -> None:
    """Two events of one millisecond differ in it, but for one in 16 million."""
    now = datetime.now(UTC)
    assert len({mark_of(ids.uuid7(now)) for _ in range(200)}) > 195


def test_what_a_mark_can_tell() -> None:
    """Another event in its place, and nothing else: an event that is gone, or no mark, prove nothing."""
    one, other = UUID(int=1), UUID(int=2)
    cursor = Cursor(1, 5, mark_of(one))
    assert cursor.fits(one)
    assert not cursor.fits(other)
    assert cursor.fits(None)
    assert Cursor(1, 5).fits(other)
    assert Cursor(1, 5).mark == UNMARKED
    assert cursor == Cursor(1, 5)
