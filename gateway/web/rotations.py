"""The token sets of a connection over HTTP: when each came and how. No token, and no hash of one."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import Field

from gateway import ids
from gateway.connections import rotations
from gateway.connections.rotations import Position, Reuse, Rotation, Source
from gateway.errors import NotFound
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.connections import locate
from gateway.web.paging import Page, PageQuery
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Call, Route


class ShownRotation(Answer):
    """One token set that came."""

    at: datetime
    access_profile: str
    generation: int
    token_version: int
    source: Source = Field(description="`spool`: a refresh's, written later: the database was away when it came")
    rotated: bool = Field(description="its refresh token is another one than that before")
    reuse: Reuse | None = Field(
        description="it showed that somebody else has this refresh token (`posthouse.security.refresh_token_reuse`)"
    )
    reuse_at: datetime | None


async def list_all(gateway: Gateway, call: Call[None, PageQuery]) -> Page[ShownRotation]:
    """Newest first: the last 20 of each access profile, kept for `POSTHOUSE_HISTORY_DAYS`."""
    region, found = await locate(gateway, call.id("connection_id", ids.CONNECTION))
    kind = f"rotations {found.id.hex}"  # a cursor of another connection's is none of this one's
    kept = await rotations.page(region.database, found.id, before=_before(call.query, kind), limit=call.query.limit + 1)
    shown = kept[: call.query.limit]
    further = None
    if len(kept) > len(shown):
        last = shown[-1]
        further = paging.cursor(call.query, kind, last.at.isoformat(), last.access_profile, str(last.token_version))
    return Page(items=[_shown(one) for one in shown], next_cursor=further)


def _before(query: PageQuery, kind: str) -> Position | None:
    """Raises: Invalid."""
    position = paging.after(query, kind)
    if position is None:
        return None
    try:
        at, profile, version = position
        found = datetime.fromisoformat(at).astimezone(UTC), profile, int(version)
        profile.encode()
    except (ValueError, OverflowError):
        found = None
    if found is None or not 0 <= found[2] < 2**31:
        raise invalid("query.cursor", "is not a cursor of this list")
    return found


def _shown(one: Rotation) -> ShownRotation:
    return ShownRotation(
        at=one.at, access_profile=one.access_profile, generation=one.generation, token_version=one.token_version,
        source=one.source, rotated=one.rotated, reuse=one.reuse, reuse_at=one.reuse_at,
    )  # fmt: skip


ROUTES = [
    Route(
        "GET", "/v1/connections/{connection_id}/rotations", "connections:read", list_all, "When its token sets came",
        query=PageQuery, answer=Page[ShownRotation], errors=(NotFound,),
    ),
]  # fmt: skip
