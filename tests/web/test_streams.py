"""Server-sent events as the private listener gives them: for as long as somebody may see them, and beside others."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta

import httpx
import orjson

from gateway import ids
from gateway.access import keys
from gateway.regions import READERS
from gateway.stream.read import Event, Filter, earliest
from gateway.web import events
from tests.clock import FakeClock
from tests.stream.making import event, keep, until, waiting_for_a_lock
from tests.web.conftest import Api


async def told(lines: httpx.Response) -> list[tuple[str, dict[str, object]]]:
    """Every frame until the stream ends: its event, and the data."""
    frames = (await lines.aread()).decode().split("\n\n")
    fields = [dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line) for frame in frames]
    return [(found["event"], orjson.loads(found["data"])) for found in fields if "data" in found]


async def test_a_stream_ends_with_its_key(api: Api) -> None:
    """Who is shut out must not go on reading until somebody restarts a process."""
    database = api.gateway.regions.home.database
    token = await api.key("reader")
    async with api.http.stream("GET", "/v1/events/stream", headers={"authorization": f"Bearer {token}"}) as stream:
        assert stream.status_code == 200
        await api.gateway.control.execute("UPDATE control.api_keys SET revoked_at = now() WHERE role = 'reader'")
        await api.gateway.catalog.refresh()
        await keep(database, event(b"kept after that"))
        [(last, problem)] = (await told(stream))[-1:]
    assert (last, problem["status"]) == ("posthouse.stream.error", 401)
    assert "kept after that" not in str(problem)


async def test_a_client_that_does_not_read_keeps_little_in_memory(api: Api) -> None:
    """Of many large events 1 MiB at a time; all of them come, in their order."""
    region = api.gateway.regions.home
    sent = [event(b"%02d" % number + bytes(400_000)) for number in range(20)]
    await keep(region.database, *sent)
    async with region.database.acquire() as db:
        start = await earliest(db)
    key = api.gateway.catalog.api_key(api.admin, api.gateway.clock.now())
    assert key is not None
    frames = events._frames(api.gateway, region, start, Filter(), key)
    came = []
    async for frame in frames:
        if b"\ndata: " not in frame:
            continue
        held = sum(len(one.data) for one in gc.get_objects() if isinstance(one, Event))
        assert 0 < held <= 1024 * 1024
        came.append(orjson.loads(frame.partition(b"\ndata: ")[2])["event"]["id"])
        if len(came) == len(sent):
            break
    await frames.aclose()  # type: ignore[attr-defined]  # a generator, typed as what it is iterated by
    assert [id[-32:] for id in came] == [one.id.hex for one in sent]


async def test_a_stream_ends_when_its_key_expires(api: Api, clock: FakeClock) -> None:
    """Though nothing in control moves then."""
    async with api.gateway.control.transaction() as tx:
        made = await keys.create(
            tx, api.gateway.control_keyring, clock.now(), name="short", expires_at=clock.now() + timedelta(minutes=1)
        )
    await api.gateway.catalog.refresh()
    async with api.http.stream("GET", "/v1/events/stream", headers={"authorization": f"Bearer {made.token}"}) as stream:
        clock.move(60)
        [(last, problem)] = (await told(stream))[-1:]
    assert (last, problem["status"]) == ("posthouse.stream.error", 401)


async def test_readers_leave_connections_for_deliveries(api: Api) -> None:
    """However many read, and however long it takes them: a delivery's hook endpoint is looked up beside them."""
    gateway = api.gateway
    region = gateway.regions.home
    async with region.database.transaction() as db:
        await db.execute("LOCK TABLE gateway.events")
        reading = [asyncio.create_task(api("GET", "/v1/events")) for _ in range(25)]
        await until(lambda: waiting_for_a_lock(region.database, READERS))
        assert await gateway.endpoints.get(region, ids.uuid7(gateway.clock.now())) is None
    answers = await asyncio.gather(*reading)
    assert {answer.status_code for answer in answers} <= {200, 503}
