"""Who gets how much of what there is room for: shares between integrations, and between tenants. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar
from uuid import UUID

Turn = tuple[UUID, str]  # integration and tenant

T = TypeVar("T")


def quotas(wants: Mapping[T, int], free: int) -> dict[T, int]:
    """`free` places shared among those who want some: equally, what one leaves over is the others', the first go first.

    >>> quotas({"a": 1, "b": 50, "c": 50}, 20)
    {'a': 1, 'b': 10, 'c': 9}
    """
    given = dict.fromkeys(wants, 0)
    while free > 0 and (hungry := [name for name, want in wants.items() if want > given[name]]):
        each = max(free // len(hungry), 1)
        for name in hungry:
            more = min(each, wants[name] - given[name], free)
            given[name], free = given[name] + more, free - more
    return given


def shares(turns: Sequence[Turn], rooms: Mapping[UUID, int], free: int, most: int) -> dict[Turn, int]:
    """How many rows of each tenant whose turn it is are taken: `rooms` of each integration, `free` in all.

    At least one of each tenant, as far as that goes (the longest waiting stand first), and `most` at the most. Tenants
    that get nothing are left out: their turn is still to come.
    """
    by_integration: dict[UUID, list[Turn]] = {}
    for turn in turns:
        by_integration.setdefault(turn[0], []).append(turn)
    taken: dict[Turn, int] = {}
    for integration, quota in quotas({one: rooms[one] for one in by_integration}, free).items():
        served = by_integration[integration][:quota]
        taken |= quotas(dict.fromkeys(served, most), quota)
    return taken
