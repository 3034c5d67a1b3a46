"""Bodies that may hold anything are read without a traceback, and only sane text becomes a key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import Malformed
from providers.reading import account, at, document, form, identifier, instant, iso_instant, loads, media_type
from tests.providers.properties import PROPERTY, json_values


def test_a_cut_emoji_is_no_reason_to_refuse() -> None:
    """Real senders escape half a surrogate pair; the event is kept, and no key is made of it."""
    assert loads(b'{"a":"\\ud83d"}') == {"a": "\ud83d"}
    assert identifier("\ud83d") is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b"[Infinity]", b"\xff", b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b"1" * 5000, b"[" * 500_000],
    ids=["empty", "open", "NaN", "Infinity", "bytes", "BOM", "UTF-16", "digits", "deep"],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """One error for all of it."""
    with pytest.raises(Malformed):
        loads(body)


def test_a_document_is_an_object() -> None:
    """Arrays and scalars are JSON and still not what these providers send."""
    assert document(b'{"a":1}') == {"a": 1}
    for body in (b"[]", b"1", b'"x"', b"null"):
        with pytest.raises(Malformed):
            document(body)


def test_forms() -> None:
    """Percent-encoded UTF-8; raw bytes beyond ASCII, doubled fields and floods of fields are malformed."""
    assert form(b"a=1&b=%C3%A9+%26&c=&%64=x") == {"a": "1", "b": "é &", "c": "", "d": "x"}
    for body in (b"a=\xc3\xa9", b"a=1&a=2", b"&".join(b"f%d=" % i for i in range(1001))):
        with pytest.raises(Malformed):
            form(body)


def test_media_types() -> None:
    """Parameters and case do not matter."""
    assert media_type("Application/JSON; charset=utf-8") == "application/json"
    assert media_type(None) == media_type("") == ""


@PROPERTY
@given(json_values, st.lists(st.sampled_from(["type", "event", "id", 0, 1, -1]), max_size=4))
def test_looking_up_never_raises(value: Any, path: list[str | int]) -> None:
    """A path through anything ends at a value or at None."""
    at(value, *path)
    assert at(value) is value


def test_looking_up() -> None:
    """Keys and indexes; a key never indexes a list, an index never an object."""
    assert at({"a": [{"b": 1}]}, "a", 0, "b") == 1
    assert at({"a": [1]}, "a", 7) is None
    assert at([1], "0") is None
    assert at({"0": 1}, 0) is None
    assert at("text", 0) is None


@pytest.mark.parametrize(
    "value", ["", " ", "a b", "a\n", "\x00", "\u202e", "x" * 201, 1.5, True, None, [], {}, 1 << 200]
)
def test_what_cannot_be_a_key_is_none(value: Any) -> None:
    """No account is found by it, nothing is deduplicated by it."""
    assert identifier(value) is None
    assert account("team", value) == ()
    assert account("user", "T1", value) == ()


def test_keys() -> None:
    """Ids come as strings or as numbers."""
    assert identifier(42) == "42"
    assert account("team", "T1") == ("team:T1",)
    assert account("user", "T1", "U2") == ("user:T1/U2",)


def test_times() -> None:
    """In whatever form providers write them; nonsense is None."""
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert instant(1795435200) == instant("1795435200") == instant(1795435200000, per_second=1000) == noon
    assert iso_instant("2026-11-23T12:00:00Z") == iso_instant("2026-11-23T13:00:00.000+01:00") == noon
    odd: list[Any] = [None, True, "", "x", "nan", "inf", 1e300, -1e300, 10**400, "9" * 31, float("nan"), [], "1" * 100]
    for value in odd:
        assert instant(value) is None
    for value in (None, 1, "", "yesterday", "2026-11-23T12:00:00", "0001-01-01T00:00:00+23:59", "x" * 100):
        assert iso_instant(value) is None
