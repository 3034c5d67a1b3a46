"""Odd bodies, to be signed: what a provider never sends, with a signature that says it did."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**53, 10**30, -(10**30), 1e308, 5e-324, float("nan"), float("inf"), "", " ", "0", "-1",
    "\x00", "a\x00b", "\ud83d", "\udc00x", "\U0001f980", "ü" * 300, "a" * 5000, "\u202egnp.exe", "%00", "../..", "<script>",
    "1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00+23:59", "'; DROP TABLE events; --",
    [], {}, [[]], [{}], {"": ""}, {"type": {"type": None}}, ["a"] * 300, [None] * 3, {"id": []}, {"id": {"id": 1}},
)  # fmt: skip
KEYS = (
    "",
    "id",
    "type",
    "event",
    "value",
    "clientState",
    "token",
    "payload",
    "team_id",
    "\x00",
    "a" * 300,
    "installation",
)


def odd(body: bytes, chance: random.Random) -> bytes:
    """`body` with its structure, or the way it is written, changed."""
    try:
        document = json.loads(body)
    except ValueError:
        return chance.choice(_BYTES)(body, chance)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        document = _changed(document, chance)
    text = json.dumps(
        document, ensure_ascii=chance.random() < 0.5, separators=chance.choice(((",", ":"), (", ", ": ")))
    )
    written = text.encode("utf-8", "surrogatepass")
    return written if chance.random() < 0.7 else chance.choice(_BYTES)(written, chance)


def _changed(document: Any, chance: random.Random) -> Any:
    """Something inside, or all of it, replaced, removed, added or nested."""
    if chance.random() < 0.15 or not isinstance(document, (dict, list)) or not document:
        return chance.choice((lambda: chance.choice(ODD), lambda: [document], lambda: _deep(chance.choice((3, 300)))))()
    if isinstance(document, list):
        at = chance.randrange(len(document))
        return [*document[:at], *_instead(document[at], chance), *document[at + 1 :]]
    key = chance.choice(list(document))
    act = chance.random()
    if act < 0.6:
        return {**document, key: _changed(document[key], chance)}
    if act < 0.75:
        return {name: value for name, value in document.items() if name != key}
    if act < 0.9:
        return {**document, chance.choice(KEYS): chance.choice(ODD)}
    return {chance.choice(KEYS) if name == key else name: value for name, value in document.items()}


def _instead(element: Any, chance: random.Random) -> list[Any]:
    many = 40 if len(repr(element)) < 2_000 else 3  # forty times forty times forty would keep the run itself busy
    return chance.choice(
        ([], [element] * 2, [element] * many, [chance.choice(ODD)], [_changed(element, chance)], [element, None])
    )


def _deep(levels: int) -> Any:
    made: Any = 1
    for _ in range(levels):
        made = [made]
    return made


def flipped(data: bytes, chance: random.Random) -> bytes:
    """One bit of it changed."""
    if not data:
        return b"\x00"
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _doubled_key(data: bytes, chance: random.Random) -> bytes:
    """An object's first member comes a second time, with another value."""
    start = data.find(b'{"')
    end = data.find(b'":', start)
    if start < 0 or end < 0:
        return data
    return (
        data[: start + 1]
        + data[start + 1 : end + 2]
        + json.dumps(chance.choice(ODD)).encode()
        + b","
        + data[start + 1 :]
    )


_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flipped,
    _doubled_key,
    lambda data, chance: data[: chance.randrange(len(data) + 1)],
    lambda data, chance: b"",
    lambda data, chance: data + chance.choice((b"\n", b" ", b"\x00", b"x", data, b"}", b"]")),
    lambda data, chance: chance.choice((b"\xef\xbb\xbf", b" ", b"\n\t", b"\x00", b"\xff")) + data,
    lambda data, chance: data.decode("utf-8", "replace").encode(chance.choice(("utf-16", "utf-32", "utf-7"))),
    lambda data, chance: bytes(chance.randrange(256) for _ in range(chance.randrange(200))),
    lambda data, chance: b"[" * chance.choice((10, 1000, 100_000)),
    lambda data, chance: data.replace(b'"', b"'"),
    lambda data, chance: b"[" + b",".join([data] * chance.choice((1, 3, 100 if len(data) < 3_000 else 3))) + b"]",
    lambda data, chance: data.replace(b"&", b"&&").replace(b"=", b"==", chance.randrange(3)),
    lambda data, chance: data.replace(b"%", b"%%", chance.randrange(5)) + b"&payload=%ff&x",
)
