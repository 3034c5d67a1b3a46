"""Looking for secrets where they must not be: as they are, and in every form that a careless writer could give them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

import asyncpg

SHORTEST = 12  # a shorter text would be found by chance

COLUMNS = """SELECT table_schema, table_name, column_name FROM information_schema.columns
              JOIN information_schema.tables USING (table_schema, table_name)
             WHERE table_schema IN ('gateway', 'control') AND table_type = 'BASE TABLE'
             ORDER BY table_schema, table_name, ordinal_position"""


@dataclass(frozen=True, slots=True)
class Find:
    """A secret that stands where it must not. Names only: the report of a leak must not be one."""

    canary: str
    place: str
    form: str

    def __str__(self) -> str:
        return f"{self.canary} in {self.place} ({self.form})"


def forms(secret: str | bytes) -> dict[str, bytes]:
    """How `secret` may look, by the name of the form. One that is bytes (a key) is no text that could be escaped."""
    if len(secret) < SHORTEST:
        raise ValueError("a canary must be longer: a short one is found by chance")
    raw = secret.encode() if isinstance(secret, str) else secret
    made = {"plain": raw, "hex": raw.hex().encode(), "reversed": raw[::-1]}
    if isinstance(secret, str):
        made["url"] = quote(secret, safe="").encode()
        made["url, plus"] = quote_plus(secret).encode()
        made["json"] = json.dumps(secret)[1:-1].encode()
    for shift in range(3):  # base64 of a text that holds it: three alignments, the edges cut off
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            made[f"{name} at {shift}"] = encode(b"\0" * shift + raw)[4 if shift else 0 : -4]
    return made


def search(canaries: Mapping[str, str | bytes], places: Iterable[tuple[str, bytes]]) -> list[Find]:
    """Every canary in every place."""
    needles = [(name, form, needle) for name, secret in canaries.items() for form, needle in forms(secret).items()]
    found = []
    for place, text in places:
        found += [Find(name, place, form) for name, form, needle in needles if needle in text]
    return found


async def tables(dsn: str, sealed: frozenset[str]) -> list[tuple[str, bytes]]:
    """Every column of every table as text and as bytes, but the `sealed` ones (`schema.table.column`)."""
    db = await asyncpg.connect(dsn)
    try:
        places = []
        for schema, table, column in await db.fetch(COLUMNS):
            name = f"{schema}.{table}.{column}"
            if name in sealed:
                continue
            values = await db.fetch(f'SELECT "{column}"::text AS value FROM "{schema}"."{table}"')  # noqa: S608 catalog names
            text = "\n".join(row["value"] for row in values if row["value"] is not None)
            places.append((name, text.encode()))
            if text.startswith("\\x"):  # bytea: what it holds, beside how it is shown
                places.append((name, b"\n".join(bytes.fromhex(line[2:]) for line in text.splitlines())))
        return places
    finally:
        await db.close()
