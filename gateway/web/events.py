"""Reading the stream: pages with a long poll, and server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse

from gateway import ids, metrics
from gateway.access.keys import ApiKey
from gateway.errors import CursorGone, Problem, Unauthenticated, Unavailable
from gateway.regions import Region
from gateway.service import Gateway
from gateway.stream import envelope, read
from gateway.stream.cursor import Cursor, parse
from gateway.stream.read import Filter, Page
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Call, Query, Route

MOST_WAIT_S = 25.0
KEEP_ALIVE_S = 15.0  # a comment when nothing happens, so that proxies and clients know that the line lives
AWAY_S = 20.0  # a stream outlives this much absence of the database
STREAM_PAGE = 256
STREAM_BYTES = 1024 * 1024  # a client that reads slowly keeps a page in our memory, and there may be many of them

Partition = Annotated[int, Field(ge=0, le=63)]


class Wanted(Query):
    """Which events, and from where."""

    after: str | None = Field(None, max_length=100, description="a cursor, `earliest` (the default) or `latest`")
    type: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(
        None, description="a type, or a dotted prefix of types; may repeat"
    )
    integration: str | None = Field(None, max_length=63)
    tenant: str | None = Field(None, max_length=200)
    connection: str | None = Field(None, max_length=100)
    partition: list[Partition] | None = Field(None, description="consumer partitions; may repeat")


class WantedPage(Wanted):
    limit: int = Field(100, ge=1, le=read.MAX_EVENTS)
    wait_s: float = Field(0, ge=0, le=MOST_WAIT_S, description="long poll: wait for the first event this long")


class CloudEvent(BaseModel):
    """A CloudEvent 1.0 in its JSON format."""

    specversion: str = "1.0"
    id: str
    type: str
    source: str
    subject: str | None = None
    time: str
    datacontenttype: str
    data_base64: str | None = Field(None, description="of a delivery: the item's bytes exactly as sent")
    data: Any = Field(None, description="of an event of our own")
    integration: str | None = Field(None, description="the integration's name, while it exists")


class Entry(BaseModel):
    """One event with its place in the stream."""

    cursor: str
    partitions: list[int]
    connections: list[str]
    tenants: list[str]
    event: CloudEvent
    delivery: dict[str, Any] | None = Field(description="headers, verification, digests; null for events of our own")


class EventPage(Answer):
    """Events in the order of their commits. Go on after `next_cursor`, also when `items` is empty."""

    items: list[Entry]
    next_cursor: str
    at_end: bool = Field(description="false: there is more to look at now; ask again at once")


async def list_events(gateway: Gateway, call: Call[None, WantedPage]) -> Response:
    """A page of events; with `wait_s` the answer comes when there is one, or when the time is over."""
    region, wanted = gateway.regions.home, await _filter(gateway, call.query)
    cursor = await _start(region, call.query.after)
    deadline = gateway.clock.monotonic() + call.query.wait_s
    news = region.news.subscribe()
    try:
        while True:
            news.clear()  # before reading: what is committed from here on sets it again
            page = await _read(region, cursor, wanted, call.query.limit, read.MAX_BYTES)
            left_s = deadline - gateway.clock.monotonic()
            if page.events or left_s <= 0 or gateway.draining.is_set():
                return Response(_page(gateway, page, wanted), media_type="application/json")
            cursor = page.next
            if page.at_end:
                await region.news.wait(news, left_s)
    finally:
        region.news.unsubscribe(news)


async def stream_events(gateway: Gateway, call: Call[None, Wanted]) -> Response:
    """Server-sent events, each with its cursor as `id`; a client that comes back sends it as `Last-Event-ID`.

    The stream ends with the API key that opened it: revoked or expired, it shows nothing more.
    """
    assert call.key is not None, "the route asks for a key"
    region, wanted = gateway.regions.home, await _filter(gateway, call.query)
    cursor = await _start(region, call.headers.get("last-event-id") or call.query.after)
    await _read(
        region, cursor, wanted, 1, STREAM_BYTES
    )  # a cursor that is gone is told in the status, not inside the stream
    return StreamingResponse(
        _frames(gateway, region, cursor, wanted, call.key),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _frames(
    gateway: Gateway, region: Region, cursor: Cursor, wanted: Filter, key: ApiKey
) -> AsyncIterator[bytes]:
    """The stream's frames until the client goes, the process drains, or the cursor or the key is gone."""
    now = gateway.clock.monotonic
    news = region.news.subscribe()
    metrics.SSE_CLIENTS.inc()
    spoke = well = now()
    told = cursor
    try:
        yield b"retry: 1000\n\n"
        while not gateway.draining.is_set():
            news.clear()
            if not gateway.catalog.opens(key, gateway.clock.now()):
                raise Unauthenticated("The API key of this stream was revoked or has expired.")
            try:
                page = await _read(region, cursor, wanted, STREAM_PAGE, STREAM_BYTES)
                well = now()
            except Unavailable:
                if now() - well > AWAY_S:
                    break
                await asyncio.sleep(region.news.poll_s)
                continue
            cursor = page.next
            for event in page.events:
                yield _frame(str(event.cursor(cursor.epoch)), event.type, _entry(gateway, event, cursor, wanted))
            if page.events:
                spoke, told = now(), cursor
            elif now() - spoke > KEEP_ALIVE_S:
                # An id without data moves Last-Event-ID and is no event: events filtered out are not read again.
                yield b": keep-alive\n\n" if told == cursor else f"id: {cursor}\n\n".encode()
                spoke, told = now(), cursor
            if page.at_end:
                await region.news.wait(news)
        yield _frame(str(cursor), "posthouse.stream.closing", orjson.dumps({"cursor": str(cursor)}))
    except Problem as problem:  # the cursor or the key went while we were reading
        yield b"event: posthouse.stream.error\ndata: " + orjson.dumps(problem.body("")) + b"\n\n"
    finally:
        metrics.SSE_CLIENTS.dec()
        region.news.unsubscribe(news)


async def _filter(gateway: Gateway, query: Wanted) -> Filter:
    integration = connection = None
    if query.integration is not None:
        found = gateway.catalog.integration(query.integration)
        if found is None:
            raise invalid("query.integration", "no such integration")
        integration = found.id
    if query.connection is not None:
        connection = ids.parse(ids.CONNECTION, query.connection)
        if connection is None:
            raise invalid("query.connection", "is not a connection's id")
    return Filter(
        types=None if query.type is None else tuple(query.type),
        integration=integration,
        tenant=query.tenant,
        connection=connection,
        partitions=None if query.partition is None else tuple(query.partition),
    )


async def _start(region: Region, after: str | None) -> Cursor:
    if after is None or after == "earliest":
        async with region.database.acquire() as db:
            return await read.earliest(db)
    if after == "latest":
        async with region.database.acquire() as db:
            return await read.latest(db)
    return parse(after)


async def _read(region: Region, cursor: Cursor, wanted: Filter, limit: int, most_bytes: int) -> Page:
    async with region.readers, region.database.acquire() as db:
        return await read.read(db, cursor, wanted, limit, most_bytes)


def _entry(gateway: Gateway, event: read.Event, cursor: Cursor, wanted: Filter) -> bytes:
    return envelope.entry(event, cursor.epoch, wanted, gateway.integration_name)


def _page(gateway: Gateway, page: Page, wanted: Filter) -> bytes:
    return orjson.dumps(
        {
            "items": [orjson.Fragment(_entry(gateway, event, page.next, wanted)) for event in page.events],
            "next_cursor": str(page.next),
            "at_end": page.at_end,
        }
    )


def _frame(id: str, event: str, data: bytes) -> bytes:
    return b"id: " + id.encode() + b"\nevent: " + event.encode() + b"\ndata: " + data + b"\n\n"


ROUTES = [
    Route(
        "GET", "/v1/events", "events:read", list_events, "Events after a cursor, with a long poll",
        query=WantedPage, answer=EventPage, errors=(CursorGone,), limit_s=MOST_WAIT_S + 10,
    ),
    Route(
        "GET", "/v1/events/stream", "events:read", stream_events, "Events as they are committed (server-sent events)",
        query=Wanted, answer=Entry, errors=(CursorGone,), stream=True, media="text/event-stream",
    ),
]  # fmt: skip
