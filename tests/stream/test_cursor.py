"""Cursors as texts: they come back as they went, compare as they should, and nothing else is one."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Invalid
from gateway.stream.cursor import Cursor, parse

CURSORS = st.builds(
    Cursor, st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1), st.binary(min_size=3, max_size=3)
)  # fmt: skip
UNRESERVED = set(string.ascii_letters + string.digits + "-._~")  # RFC 3986: needs no escaping anywhere in a URL


@given(CURSORS)
def test_a_cursor_comes_back_as_it_went(cursor: Cursor) -> None:
    """The same place and the same mark; nothing in it must be escaped."""
    text = str(cursor)
    assert (parse(text), parse(text).mark) == (cursor, cursor.mark)
    assert set(text) <= UNRESERVED


@given(CURSORS, st.integers(0, 2**63 - 1), st.binary(min_size=3, max_size=3))
def test_cursors_of_one_log_compare_as_texts(one: Cursor, seq: int, mark: bytes) -> None:
    """A client that holds two knows which is further on, and need not know what is in them."""
    other = Cursor(one.epoch, seq, mark)
    if one.seq != other.seq:
        assert (str(one) < str(other)) == (one.seq < other.seq)


@pytest.mark.parametrize(
    "text",
    ["", "earlier", "0" * 19, "0" * 21, "0" * 24, " " + "0" * 19, "0" * 19 + "\n", "0" * 19 + "+", "0" * 19 + "=",
     "0" * 19 + "-", "é" * 20, "~" * 20, "0" * 18 + "=="],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """Clearly, with the same words for all; a negative place is none either."""
    with pytest.raises(Invalid, match="not a cursor"):
        parse(text)
