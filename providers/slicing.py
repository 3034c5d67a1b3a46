"""Bytes inside bodies: cut out the elements of an array, blank a secret, without re-serialising anything.

A body is looked at as latin-1 text: one character a byte, so an offset in the text is an offset in the body. That is
sound for JSON in UTF-8, since everything that gives it structure is ASCII. Python's own scanner says where a value
ends; the values it builds are thrown away.

Of doubled keys the last one counts, as for every JSON parser here (so what is cut is what was read); blanking
takes all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from providers.errors import Malformed

# Providers batch tens or hundreds; a body that claims more is made to keep us busy.
MAX_ELEMENTS = 10_000

Span = tuple[int, int]  # start and end offset in bytes


def _no_constant(name: str) -> Any:
    raise ValueError(name)


_value = json.JSONDecoder(parse_constant=_no_constant).raw_decode
_space = re.compile(r"[ \t\n\r]*").match
_FILL = b"*"  # stands for itself in JSON, in forms and in text


def elements(
    body: bytes, path: Sequence[str] = (), *, most: int = MAX_ELEMENTS, most_members: int | None = None
) -> list[bytes]:
    """The elements of the array at `path` (keys, outermost first; () is the body itself), as slices of `body`.

    `most_members` is for bodies that nothing has verified: members of the objects on the way are walked one by one.

    Raises: Malformed, broken JSON or not UTF-8, nothing or no array at `path`, more than `most` elements or members.
    """
    try:
        body.decode("utf-8")  # else a body that is no JSON would pass, as long as its elements are
    except UnicodeDecodeError:
        raise Malformed("not UTF-8") from None
    text = body.decode("latin-1")
    found = _spans(text, path, most_members)
    if not found:
        raise Malformed("array not found")
    return [body[start:end] for start, end in _children(text, found[-1][0], most)]


def value_at(body: bytes, path: Sequence[str]) -> bytes | None:
    """The value at `path` as a slice of `body`; None where there is none.    Raises: Malformed."""
    found = _spans(body.decode("latin-1"), path)
    return body[slice(*found[-1])] if found else None


def blank(data: bytes, *path: str) -> bytes:
    """`data` (JSON) with the string at `path` blanked at the same length.    Raises: Malformed."""
    return _filled(data, _strings(data, path))


def blank_everywhere(data: bytes, name: str) -> bytes:
    """`data` (JSON) with every string that is a member `name`, at any depth, blanked.    Raises: Malformed."""
    spans: list[Span] = []

    def walk(text: str, start: int) -> None:
        if text[start] == "[":
            for inner, _ in _children(text, start, MAX_ELEMENTS):
                walk(text, inner)
        for key, (inner, end) in _members(text, start, None):
            if key == name and text[inner] == '"':
                spans.append((inner + 1, end - 1))
            walk(text, inner)

    text = data.decode("latin-1")
    try:
        for start, _ in _spans(text, ()):
            walk(text, start)
    except RecursionError:
        raise Malformed("too deep") from None
    return _filled(data, spans)


def blank_field(data: bytes, name: str) -> bytes:
    """`data` (form-encoded) with the value of field `name` blanked at the same length."""
    return _filled(data, list(_fields(data, name)))


def blank_in_field(data: bytes, name: str, *path: str) -> bytes:
    """`data` (form-encoded) with the string at `path` inside the JSON in field `name` blanked at the same length.

    The JSON is percent-encoded there, so each of its bytes is one or three of the form's.    Raises: Malformed.
    """
    spans: list[Span] = []
    for start, end in _fields(data, name):
        offsets = [start + m.start() for m in re.finditer(rb"%[0-9A-Fa-f]{2}|.", data[start:end], re.DOTALL)]
        offsets.append(end)
        inner = unquote_to_bytes(data[start:end].replace(b"+", b" "))
        spans += [(offsets[a], offsets[b]) for a, b in _strings(inner, path)]
    return _filled(data, spans)


def _filled(data: bytes, spans: list[Span]) -> bytes:
    if not spans:
        return data
    filled = bytearray(data)
    for start, end in spans:
        filled[start:end] = _FILL * (end - start)
    return bytes(filled)


def _fields(data: bytes, name: str) -> Iterator[Span]:
    """Where the values of form field `name` are."""
    start = 0
    for part in data.split(b"&"):
        key, equals, _ = part.partition(b"=")
        if equals and unquote_to_bytes(key.replace(b"+", b" ")) == name.encode():
            yield start + len(key) + 1, start + len(part)
        start += len(part) + 1


def _strings(data: bytes, path: Sequence[str]) -> list[Span]:
    """What is between the quotes of each string at `path`."""
    spans = _spans(data.decode("latin-1"), path)
    return [(start + 1, end - 1) for start, end in spans if data[start : start + 1] == b'"']


def _spans(text: str, path: Sequence[str], most_members: int | None = None) -> list[Span]:
    """Where the values at `path` are in the document that `text` is, all of it.    Raises: Malformed."""
    try:
        start = _skip(text, 0)
        _, end = _value(text, start)
        if _skip(text, end) != len(text):
            raise Malformed("something follows the JSON")
        found = [(start, end)]
        for key in path:
            found = [span for start, _ in found for name, span in _members(text, start, most_members) if name == key]
        return found
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None


def _members(text: str, start: int, most: int | None) -> Iterator[tuple[str, Span]]:
    """Key and place of each member of the object at `start` (known to be whole JSON); none if it is no object."""
    if text[start] != "{":
        return
    i = _skip(text, start + 1)
    found = 0
    while text[i] != "}":
        found += 1
        if most is not None and found > most:
            raise Malformed(f"more than {most} members")
        key, i = _value(text, i)
        start = _skip(text, _skip(text, i) + 1)  # past the colon
        _, i = _value(text, start)
        yield key, (start, i)
        i = _skip(text, i)
        if text[i] == ",":
            i = _skip(text, i + 1)


def _children(text: str, start: int, most: int) -> list[Span]:
    if text[start] != "[":
        raise Malformed("not an array")
    found: list[Span] = []
    i = _skip(text, start + 1)
    while text[i] != "]":
        if len(found) == most:
            raise Malformed(f"more than {most} elements")
        _, end = _value(text, i)
        found.append((i, end))
        i = _skip(text, end)
        if text[i] == ",":
            i = _skip(text, i + 1)
    return found


def _skip(text: str, i: int) -> int:
    match = _space(text, i)
    return match.end() if match else i
