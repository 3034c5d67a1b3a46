"""Slices are the bytes that came, and blanking changes nothing but what it hides."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import Malformed
from providers.reading import form, loads
from providers.slicing import blank, blank_field, blank_in_field, elements, value_at
from tests.providers.properties import PROPERTY, json_values

spaces = st.text(" \t\r\n", max_size=3)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """An array with odd white space in it, and its elements as they stand there."""
    cut = [
        json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1])))
        for value in draw(st.lists(json_values, max_size=6))
    ]
    inside = ",".join(draw(spaces) + one + draw(spaces) for one in cut) or draw(spaces)
    # The strategy draws lone surrogates too; they are escaped or they are not UTF-8, so not JSON.
    encoded = [one.encode("utf-8", "replace") for one in cut]
    return f"[{inside}]".encode("utf-8", "replace"), encoded


@PROPERTY
@given(arrays(), spaces, spaces)
def test_slices_are_the_source_bytes(drawn: tuple[bytes, list[bytes]], before: str, after: str) -> None:
    """Not re-serialised, whatever the elements hold; at the top and below keys, also escaped ones."""
    array, expected = drawn
    top = before.encode() + array + after.encode()
    assert elements(top) == expected
    assert [loads(one) for one in elements(top)] == loads(top)
    nested = b'{"a":[1,{"value":[0]}],"v\\u0061lue" :' + top + b',"z":"]"}'
    assert elements(nested, ("value",)) == expected
    assert elements(b'{"data":' + nested + b"}", ("data", "value")) == expected


def test_of_doubled_keys_the_last_counts() -> None:
    """As for the parser that reads the body: else one would be checked and another kept."""
    body = b'{"value":[1],"value":[2,3]}'
    assert loads(body)["value"] == [2, 3]
    assert elements(body, ("value",)) == [b"2", b"3"]
    assert value_at(body, ("value",)) == b"[2,3]"


def test_a_value_is_cut_out() -> None:
    """Any value, as it stands; None where the path leads nowhere."""
    body = b'{ "message" : { "data" : "\\u00e9 \xc3\xa9" , "n" : 1.50 } }'
    assert value_at(body, ("message", "data")) == b'"\\u00e9 \xc3\xa9"'
    assert value_at(body, ("message", "n")) == b"1.50"
    assert value_at(body, ("message", "n", "deeper")) is None
    assert value_at(body, ("nothing",)) is None


BROKEN = {
    "nothing": b"",
    "only space": b"  ",
    "unclosed": b'{"value":[1,2',
    "unclosed string": b'{"value":["a]}',
    "a comma too many": b'{"value":[1,]}',
    "a comma too few": b'{"value":[1 2]}',
    "single quotes": b"{'value':[1]}",
    "no such key": b'{"other":[1]}',
    "no array": b'{"value":{"0":1}}',
    "no object": b"[1]",
    "something behind": b'{"value":[1]} x',
    "two documents": b'{"value":[1]}{"value":[1]}',
    "not a number": b'{"value":[NaN]}',
    "a control character": b'{"value":["\x01"]}',
    "UTF-16": '{"value":[1]}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"value":[1]}',
    "a NUL": b'{"value":[1]}\x00',
    "too deep": b'{"value":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "too deep and open": b"[" * 1_000_000,
    "deep objects": b'{"value":' * 200_000,
    "a number of 5,000 digits": b'{"value":[' + b"1" * 5000 + b"]}",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_such_an_array_is_malformed(name: str) -> None:
    """One error for all of it, and never a RecursionError."""
    with pytest.raises(Malformed):
        elements(BROKEN[name], ("value",))


@PROPERTY
@given(st.binary(max_size=80) | st.text('{}[]",:\\u0d1 evalun.-', max_size=60).map(str.encode))
def test_noise_is_malformed_or_sliced(body: bytes) -> None:
    """Nothing else comes out, and what is sliced is in there."""
    for path in ((), ("value",)):
        try:
            found = elements(body, path)
        except Malformed:
            continue
        assert all(one in body for one in found)


def test_the_number_of_elements_is_bounded() -> None:
    """A body of a million empty objects is not turned into a million events."""
    body = b"[" + b",".join([b"{}"] * 11) + b"]"
    assert len(elements(body, most=11)) == 11
    with pytest.raises(Malformed):
        elements(body, most=10)


def test_the_number_of_members_on_the_way_is_bounded_where_asked() -> None:
    """Those of the objects that the path leads through; what lies inside the array is not walked."""
    body = b'{"a":0,"b":0,"value":[{"c":0,"d":0,"e":0,"f":0}]}'
    assert elements(body, ("value",), most_members=3) == [b'{"c":0,"d":0,"e":0,"f":0}']
    with pytest.raises(Malformed, match="members"):
        elements(body, ("value",), most_members=2)


@PROPERTY
@given(json_values, st.text(max_size=20).filter(lambda text: text.isprintable()), st.booleans())
def test_blanking_hides_one_string_and_nothing_else(around: Any, secret: str, ascii_only: bool) -> None:
    """Same length, still the same JSON, all occurrences at that place, none elsewhere."""
    value = {"a": around, "token": secret, "z": {"token": secret}}
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "replace")
    blanked = blank(data, "token")
    assert len(blanked) == len(data)
    read = loads(blanked)
    assert set(read.pop("token")) <= {"*"}
    before = loads(data)
    before.pop("token")
    assert read == before


def test_both_of_two_equal_keys_are_blanked() -> None:
    """Whichever a reader would take."""
    assert blank(b'{"token":"ab","token" : "c\\"d"}', "token") == b'{"token":"**","token" : "****"}'
    assert blank(b'{"t\\u006fken":"ab"}', "token") == b'{"t\\u006fken":"**"}'
    assert blank(b'{"token":7,"a":{"token":"x"}}', "token") == b'{"token":7,"a":{"token":"x"}}'
    assert blank(b'{"a":{"token":"x"},"a":{"token":"y"}}', "a", "token") == b'{"a":{"token":"*"},"a":{"token":"*"}}'
    assert blank(b'["token","x"]', "token") == b'["token","x"]'


@PROPERTY
@given(st.dictionaries(st.sampled_from(["token", "text", "tok en", "é"]), st.text(max_size=10), min_size=1))
def test_a_form_field_is_blanked(fields: dict[str, str]) -> None:
    """However it is percent-encoded; other fields stay as they were."""
    fields = {name: text.encode("utf-8", "replace").decode() for name, text in fields.items()}
    data = urlencode(fields).encode()
    blanked = blank_field(data, "token")
    assert len(blanked) == len(data)
    after = form(blanked)
    assert set(after.pop("token", "")) <= {"*"}
    assert after == {name: text for name, text in fields.items() if name != "token"}


def test_field_names_are_compared_decoded() -> None:
    """`%74oken` is the same field; a field without a value has nothing to blank."""
    assert blank_field(b"%74oken=ab&token=c&token&x=token=d", "token") == b"%74oken=**&token=*&token&x=token=d"


@PROPERTY
@given(st.text(max_size=12), st.text(max_size=6), st.sampled_from([quote, quote_plus]))
def test_a_token_inside_json_inside_a_form_is_blanked(secret: str, other: str, encode: Any) -> None:
    """Slack's interactive payloads: JSON, percent-encoded, in one field."""
    secret, other = (text.encode("utf-8", "replace").decode() for text in (secret, other))
    payload = json.dumps({"o": other, "token": secret, "n": {"token": other}}, ensure_ascii=False)
    data = f"x=1&payload={encode(payload)}&y=2".encode()
    blanked = blank_in_field(data, "payload", "token")
    assert len(blanked) == len(data)
    fields = parse_qs(blanked.decode(), keep_blank_values=True)
    read = json.loads(fields["payload"][0])
    assert set(read["token"]) <= {"*"}
    assert (read["o"], read["n"], fields["x"], fields["y"]) == (other, {"token": other}, ["1"], ["2"])


def test_json_in_a_form_that_is_none_is_malformed() -> None:
    """Nothing is stored unblanked because it could not be read."""
    with pytest.raises(Malformed):
        blank_in_field(b"payload=%7B%22token", "payload", "token")


def test_a_body_that_is_not_utf_8_has_no_elements() -> None:
    """Wherever the odd byte stands: beside the array, where slicing would pass over it, as well as in it."""
    for body in (b'{"x":"\xff","value":[{"a":1}]}', b'{"value":[{"a":"\xed\xa0\xbd"}]}'):
        with pytest.raises(Malformed, match="UTF-8"):
            elements(body, ("value",))
