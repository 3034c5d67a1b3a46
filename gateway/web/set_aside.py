"""Deliveries that could not be digested, over HTTP: look at them, and have them tried again. Of every tenant: for operators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import Field

from gateway import ids
from gateway.errors import NotFound
from gateway.follower import store
from gateway.regions import Region
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.paging import Page, PageQuery
from gateway.web.routing import Answer, Call, NoQuery, Route


class SetAside(Answer):
    """A delivery that its provider's interpreter stumbled over. It stays on the stream as it came."""

    event: str
    region: str
    integration: str | None = Field(description="its name; null when the integration is gone")
    type: str
    at: datetime = Field(description="when it was set aside, the last time")
    error: str = Field(description="a code, never a text of the provider's")
    tries: int
    redrive: bool = Field(description="it was asked for, and has not been tried yet")


class Redriven(Answer):
    """How many are tried again, within a second or two. What succeeds leaves the list."""

    asked: int


async def list_all(gateway: Gateway, call: Call[None, PageQuery]) -> Page[SetAside]:
    """By region and age."""

    async def read(region: Region, after: UUID | None, limit: int) -> Sequence[tuple[str, store.SetAside]]:
        return [(region.name, one) for one in await store.listed(region.database, after=after, limit=limit)]

    found, further = await paging.across(gateway, call.query, "set_aside", read, lambda pair: pair[1].event_id)
    return Page(items=[_shown(gateway, region, one) for region, one in found], next_cursor=further)


async def redrive(gateway: Gateway, call: Call[None, NoQuery]) -> Redriven:
    """Have one tried again. It passes the fences with its original time: what is out of date by now moves nothing."""
    event = call.id("event_id", ids.EVENT)
    for region in gateway.regions:
        if asked := await store.redrive(region.database, event):
            return Redriven(asked=asked)
    raise NotFound("No such event is set aside.")


async def redrive_all(gateway: Gateway, call: Call[None, NoQuery]) -> Redriven:
    """Have all tried again, in the order in which they came."""
    return Redriven(asked=sum([await store.redrive(region.database, None) for region in gateway.regions]))


def _shown(gateway: Gateway, region: str, one: store.SetAside) -> SetAside:
    return SetAside(
        event=ids.show(ids.EVENT, one.event_id),
        region=region,
        integration=None if one.integration_id is None else gateway.integration_name(one.integration_id),
        type=one.type,
        at=one.at,
        error=one.error,
        tries=one.tries,
        redrive=one.redrive,
    )


ROUTES = [
    Route(
        "GET", "/v1/set-aside", "set_aside:read", list_all, "Deliveries that could not be digested",
        query=PageQuery, answer=Page[SetAside],
    ),
    Route("POST", "/v1/set-aside/redrive", "set_aside:write", redrive_all, "Have all of them tried again", answer=Redriven),
    Route(
        "POST", "/v1/set-aside/{event_id}/redrive", "set_aside:write", redrive, "Have one tried again",
        answer=Redriven, errors=(NotFound,),
    ),
]  # fmt: skip
