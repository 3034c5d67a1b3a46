"""Lists: `limit` and `cursor` in, `items` and `next_cursor` out. A cursor is opaque: callers only hand it back.

It holds where the page ended and a mark of the question it belongs to, so that one from another list, or with other
filters, is refused instead of answered with nonsense.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Generic, TypeVar
from uuid import UUID

import orjson
from pydantic import Field, StringConstraints

from gateway.regions import Region
from gateway.service import Gateway
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Query

MOST_ITEMS = 200
DEFAULT_ITEMS = 50

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")


class PageQuery(Query):
    """How much of a list, and from where."""

    limit: Annotated[int, Field(ge=1, le=MOST_ITEMS, description="how many items at most")] = DEFAULT_ITEMS
    cursor: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=500)] | None,
        Field(description="`next_cursor` of the page before, as it came"),
    ] = None


class Page(Answer, Generic[ItemT]):
    """A part of a list. `next_cursor` null: the list ends here."""

    items: list[ItemT]
    next_cursor: str | None


def after(query: PageQuery, kind: str) -> list[str] | None:
    """Where to go on, as given to `cursor`, or None at the beginning.    Raises: Invalid."""
    if query.cursor is None:
        return None
    try:
        text = query.cursor.encode("ascii")
        held = orjson.loads(base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        held = None
    if (
        not isinstance(held, list)
        or not all(isinstance(part, str) for part in held)
        or len(held) < 2
        or held[0] != _mark(query, kind)
        or any("\0" in part for part in held)
    ):
        raise invalid("query.cursor", "is not a cursor of this list")
    return held[1:]


def cut(
    query: PageQuery,
    kind: str,
    found: Sequence[FoundT],
    position: Callable[[FoundT], str],
    show: Callable[[FoundT], ItemT],
) -> Page[ItemT]:
    """The page of `found`, which was asked for with one more than the limit: that one tells whether there is more."""
    shown = found[: query.limit]
    further = cursor(query, kind, position(shown[-1])) if len(found) > len(shown) else None
    return Page(items=[show(one) for one in shown], next_cursor=further)


def uuid_after(query: PageQuery, kind: str) -> UUID | None:
    """Where to go on in a list by id.    Raises: Invalid."""
    position = after(query, kind)
    try:
        return None if position is None else UUID(hex=position[0])
    except ValueError:
        raise invalid("query.cursor", "is not a cursor of this list") from None


def cursor(query: PageQuery, kind: str, *position: str) -> str:
    """What the next page is asked for with."""
    return base64.urlsafe_b64encode(orjson.dumps([_mark(query, kind), *position])).rstrip(b"=").decode()


def _mark(query: PageQuery, kind: str) -> str:
    """Which list this is: its kind and its filters."""
    filters = query.model_dump_json(exclude={"limit", "cursor"})
    return hashlib.sha256(f"{kind}\0{filters}".encode()).hexdigest()[:12]


Read = Callable[[Region, UUID | None, int], Awaitable[Sequence[FoundT]]]


async def across(
    gateway: Gateway, query: PageQuery, kind: str, read: Read[FoundT], id_of: Callable[[FoundT], UUID]
) -> tuple[list[FoundT], str | None]:
    """A page of things that live in regions: by region, then by id. What is found, and the next cursor.

    `read(region, after, limit)` reads one region.    Raises: Invalid, the cursor is none of this list.
    """
    place, last = _place(query, kind)
    found: list[tuple[str, FoundT]] = []
    for region in sorted(gateway.regions, key=lambda region: region.name):
        if place is None or region.name >= place:
            start = last if region.name == place else None
            found += [(region.name, one) for one in await read(region, start, query.limit + 1 - len(found))]
        if len(found) > query.limit:
            break
    shown = found[: query.limit]
    further = cursor(query, kind, shown[-1][0], id_of(shown[-1][1]).hex) if len(found) > len(shown) else None
    return [one for _, one in shown], further


def _place(query: PageQuery, kind: str) -> tuple[str | None, UUID | None]:
    position = after(query, kind)
    if position is None:
        return None, None
    try:
        region, last = position
        return region, UUID(hex=last)
    except ValueError:
        raise invalid("query.cursor", "is not a cursor of this list") from None
