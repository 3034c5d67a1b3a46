"""Ids: a prefix that names the kind, and a UUIDv7 in 32 hex digits (`conn_0192f3c0…`).

In the database an id is a `uuid`; the prefix lives at the API only, so one that names another kind is a 404 and
never a row of the wrong table.    Source: RFC 9562 section 5.7.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from gateway.clock import random_bytes

INTEGRATION, CONNECTION, ENDPOINT, EVENT, KEY = "int", "conn", "hook", "evt", "key"


def uuid7(now: datetime, entropy: Callable[[int], bytes] = random_bytes) -> UUID:
    """A UUIDv7 of `now` (millisecond precision) and 74 random bits."""
    return _uuid7(int(now.timestamp() * 1000), int.from_bytes(entropy(10), "big"))


def _uuid7(millis: int, chance: int) -> UUID:
    high = (millis & 0xFFFF_FFFF_FFFF) << 80
    rand_a, rand_b = (chance >> 68) & 0xFFF, chance & 0x3FFF_FFFF_FFFF_FFFF
    return UUID(int=high | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)


def show(prefix: str, value: UUID) -> str:
    """`value` as the API shows it, e.g. `evt_` + 32 hex digits."""
    return f"{prefix}_{value.hex}"


def parse(prefix: str, text: str) -> UUID | None:
    """The uuid in `text`, or None unless it is exactly what `show` makes for this prefix."""
    head, _, tail = text.partition("_")
    if head != prefix or len(tail) != 32 or not tail.isascii() or not tail.isalnum() or tail != tail.lower():
        return None
    try:
        return UUID(hex=tail)
    except ValueError:
        return None
