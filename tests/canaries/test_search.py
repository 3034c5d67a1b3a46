"""The search itself: a planted leak is found, in whatever form it was planted."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import asyncpg
import pytest

from tests.canaries.search import Find, forms, search, tables

SECRET = 'canary "ü" /+= 8472-access-token'


@pytest.mark.parametrize(
    "text",
    [
        SECRET.encode(),
        quote(SECRET, safe="").encode(),
        json.dumps({"message": SECRET}).encode(),
        base64.b64encode(SECRET.encode()),
        base64.b64encode(b"x" + SECRET.encode() + b"tail"),
        base64.urlsafe_b64encode(b"xy" + SECRET.encode()),
        SECRET.encode().hex().encode(),
    ],
)
def test_a_planted_leak_is_found(text: bytes) -> None:
    """As it is, escaped, or encoded at any alignment."""
    assert search({"token": SECRET}, [("log", b"before " + text + b" after")])


def test_a_key_is_found_as_bytes_and_in_base64() -> None:
    """A key is no text: it leaks raw, in hex or in base64."""
    key = bytes(range(200, 232))
    for text in (key, key.hex().encode(), base64.b64encode(b"key: " + key)):
        assert search({"key": key}, [("dump", b"\0" + text)])


def test_what_holds_no_secret_is_clean() -> None:
    """Nor does a find quote what it found."""
    assert search({"token": SECRET}, [("log", b"nothing to see" * 100)]) == []
    assert SECRET not in str(Find("token", "log", "plain"))
    with pytest.raises(ValueError, match="longer"):
        forms("short")


async def test_tables_are_searched_but_for_their_sealed_columns(dsn: str) -> None:
    """A secret in a text column and one in a bytea column are found; a sealed column is left out."""
    db = await asyncpg.connect(dsn)
    await db.execute(
        "INSERT INTO control.tenants VALUES ($1, 'default', '{}', now(), now())", "canary-in-a-text-column"
    )
    await db.execute("INSERT INTO control.keyring_checks VALUES ('x', 1, $1)", b"canary-in-a-bytea-column")
    await db.close()
    canaries = {"text": "canary-in-a-text-column", "bytea": "canary-in-a-bytea-column"}
    assert {(f.canary, f.place) for f in search(canaries, await tables(dsn, frozenset()))} == {
        ("text", "control.tenants.id"),
        ("bytea", "control.keyring_checks.proof"),
    }
    left_out = frozenset({"control.keyring_checks.proof"})
    assert {f.canary for f in search(canaries, await tables(dsn, left_out))} == {"text"}
