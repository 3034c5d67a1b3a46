"""Ids: a prefix that names the kind, and a UUIDv7 in 32 hex digits (`conn_0192f3c0…`).

In the database an id is a `uuid`; the prefix lives at the API only, so one that names another kind is a 404 and
never a row of the wrong table.    Source: RFC 9562 section 5.7.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import cast
from uuid import UUID

# A `uuid.UUID` (a subclass) made in C, as asyncpg's own rows hold: five times faster, and the hot path makes several.
from asyncpg.pgproto import pgproto

from gateway.clock import random_bytes

INTEGRATION, CONNECTION, ENDPOINT, EVENT, KEY, SESSION = "int", "conn", "hook", "evt", "key", "sess"


def of(raw: bytes) -> UUID:
    """The uuid of these 16 bytes."""
    return cast(UUID, pgproto.UUID(raw))


_pool: list[bytes] = []  # tails of ids to be; a system call for each would cost more than the id


def uuid7(now: datetime, entropy: Callable[[int], bytes] | None = None) -> UUID:
    """A UUIDv7 of `now` (millisecond precision) and 74 random bits."""
    if entropy is not None:
        tail = _tail(entropy(10))
    else:
        if not _pool:
            page = random_bytes(4000)
            _pool.extend([_tail(page[at : at + 10]) for at in range(0, 4000, 10)])
        tail = _pool.pop()
    return of(int(now.timestamp() * 1000).to_bytes(6, "big") + tail)


def _tail(chance: bytes) -> bytes:
    """Ten random bytes, with the version and the variant put in."""
    made = bytearray(chance)
    made[0] = 0x70 | made[0] & 0x0F
    made[2] = 0x80 | made[2] & 0x3F
    return bytes(made)


def show(prefix: str, value: UUID) -> str:
    """`value` as the API shows it, e.g. `evt_` + 32 hex digits."""
    return f"{prefix}_{value.hex}"


def parse(prefix: str, text: str) -> UUID | None:
    """The uuid in `text`, or None unless it is exactly what `show` makes for this prefix."""
    head, _, tail = text.partition("_")
    if head != prefix or len(tail) != 32 or not tail.isascii() or not tail.isalnum() or tail != tail.lower():
        return None
    try:
        return of(bytes.fromhex(tail))
    except ValueError:
        return None
