"""The public listener's connections, met as a socket meets them: what comes in one piece, in many, too early or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway import listen
from gateway.door import CONTINUE, Door, Exchange
from gateway.service import Gateway
from gateway.web.hooks import public_door
from providers.contract import Answer
from tests.flows import raw
from tests.flows.house import House, declare, metric, opened
from tests.flows.raw import connected
from tests.serving import serving

LOCK = "SELECT pg_advisory_lock(hashtext('posthouse.append'))"
ALSO = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.fixture
async def house(gateway: Gateway) -> AsyncIterator[House]:
    """One with GitHub declared, and a small limit for bodies."""
    gateway.settings = gateway.settings.model_copy(update={"max_body_bytes": 200_000})
    async with opened(gateway) as made:
        await declare(made, "github")
        yield made


def delivery(house: House, *headers: tuple[str, str], filler: int = 0, **how: int) -> bytes:
    """A new signed delivery, as bytes."""
    target, signed, body = house.signed("github", b'{"a":"%b"}' % (b"x" * filler))
    return raw.request(target, [*signed.items(), *headers], body, **how)


@asynccontextmanager
async def commits_held(house: House) -> AsyncIterator[None]:
    """Nothing commits inside the block; at its end a delivery waits for that."""
    database = house.gateway.regions.home.database
    holder = await database.connect()
    try:
        await holder.fetchval(LOCK)
        yield
        while not await database.fetchval(ALSO):
            pass
    finally:
        await holder.close()


async def until(house: House, kept: int) -> None:
    """Wait until so many events are kept, and no byte of a delivery is in memory any more."""
    async with asyncio.timeout(raw.PATIENCE_S):
        while len(await house.kept()) != kept or metric("posthouse_inflight_bytes"):
            pass


async def test_pipelined_requests_are_answered_in_their_order(house: House) -> None:
    """Those that need no commit wait for those before them that do."""
    none = raw.request("/hooks/nobody", method="GET")
    async with connected(house.url) as connection:
        connection.send(delivery(house) + none + delivery(house, chunked=5) + none + none + delivery(house))
        assert [(await connection.answer()).status for _ in range(6)] == [200, 404, 200, 404, 404, 200]
    assert len(await house.kept()) == 3


async def test_thousands_of_requests_behind_one_that_waits(house: House) -> None:
    """One after the other, not one inside the other."""
    async with connected(house.url) as connection:
        connection.send(delivery(house) + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 5000)
        assert [(await connection.answer()).status for _ in range(5001)] == [200] + [404] * 5000


async def test_a_client_that_does_not_read_its_answers_is_not_read_from(house: House) -> None:
    """And has them all when it does."""
    async with connected(house.url) as connection:
        asking = asyncio.create_task(_ask_often(connection, 50_000))
        assert (await house.deliver("github")).status == 200  # others are served meanwhile
        for _ in range(50_000):
            assert (await connection.answer()).status == 404
        await asking


async def _ask_often(connection: raw.Connection, times: int) -> None:
    for _ in range(times // 100):
        connection.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 100)
        await connection.sent()


@pytest.mark.parametrize("chunked", [0, 11])
async def test_a_request_may_come_in_any_pieces(house: House, chunked: int) -> None:
    """Cut in the head, at its end, in the body, before the last byte; and byte by byte."""
    whole = delivery(house, chunked=chunked)
    head = whole.index(b"\r\n\r\n") + 4
    async with connected(house.url) as connection:
        for cut in (1, head - 2, head, head + 1, len(whole) - 1):
            whole = delivery(house, chunked=chunked)
            for piece in (whole[:cut], whole[cut:]):
                connection.send(piece)
                await connection.sent()
                await house.gateway.regions.home.database.fetchval("SELECT 1")  # so the rest comes by itself
            assert (await connection.answer()).status == 200
        for byte in (whole := delivery(house, chunked=chunked)):
            connection.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await connection.answer()).status == 200
    assert len(await house.kept()) == 6


async def test_long_bodies_come_whole(house: House) -> None:
    """Many times what one read brings."""
    async with connected(house.url) as connection:
        for chunked in (0, 7, 70_000):
            assert (await connection.ask(delivery(house, filler=190_000, chunked=chunked))).status == 200
    await until(house, kept=3)


async def test_a_client_that_goes_before_the_answer_has_delivered_all_the_same(house: House) -> None:
    """It was whole and verified: kept, answered to nobody, and its memory is free again."""
    async with commits_held(house):
        connection = await raw.Connection.open(house.url)
        connection.send(delivery(house) + delivery(house)[:-1])  # and another one, not whole, behind it
        await connection.sent()
        await house.gateway.regions.home.database.fetchval("SELECT 1")
        connection.hang_up()
    await until(house, kept=1)
    assert (await house.deliver("github")).status == 200


async def test_a_client_that_goes_before_its_body_is_whole_leaves_nothing(house: House) -> None:
    """Not even memory."""
    connection = await raw.Connection.open(house.url)
    connection.send(delivery(house, filler=100_000)[:-1])
    while not metric("posthouse_inflight_bytes"):
        assert await house.kept() == []
    connection.hang_up()
    await until(house, kept=0)


async def test_who_waits_for_a_commit_when_the_server_stops_is_answered(gateway: Gateway) -> None:
    """With `connection: close`; an idle connection ends at once, and the server when all are answered."""
    bound = listen.bind("127.0.0.1:0", "public")
    server = listen.direct(public_door(gateway))
    running = asyncio.create_task(server.serve([bound]))
    house = House(gateway, listen.url_of(bound))
    await declare(house, "github")
    async with connected(house.url) as idle, connected(house.url) as waiting:
        assert (await idle.ask(delivery(house))).status == 200
        async with commits_held(house):
            waiting.send(delivery(house))
            while not server.unfinished():
                assert len(await house.kept()) == 1
            server.should_exit = True
            assert await idle.ended() == b""
            assert not running.done()
        answer = await waiting.answer()
        assert (answer.status, answer.header("connection")) == (200, "close")
        assert await waiting.ended() == b""
        await running
    assert server.unfinished() == 0
    assert len(await house.kept()) == 2


async def test_one_who_asks_whether_to_send_its_body_is_told(house: House) -> None:
    """`Expect: 100-continue`: not where the head is refused already, and not needed where the body came along."""
    whole = delivery(house, ("Expect", "100-Continue"))
    head = whole.index(b"\r\n\r\n") + 4
    async with connected(house.url) as connection:
        connection.send(whole[:head])
        assert await connection.until(b"\r\n\r\n") == CONTINUE
        assert (await connection.ask(whole[head:])).status == 200
        assert (await connection.ask(delivery(house, ("Expect", "100-continue")))).status == 200
        too_large = raw.request(
            "/hooks/github", [("expect", "100-continue"), ("content-length", "200001")], length=False
        )
        connection.send(too_large)
        assert (await connection.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("version", "said"), [("1.0", ""), ("1.0", "keep-alive"), ("1.1", "close")])
async def test_a_connection_that_is_not_to_stay_ends_with_its_answer(house: House, version: str, said: str) -> None:
    """HTTP/1.0, whatever it wishes, and `Connection: close`; what comes behind is not looked at."""
    whole = delivery(house, ("Connection", said)).replace(b"HTTP/1.1\r\n", f"HTTP/{version}\r\n".encode(), 1)
    async with connected(house.url) as connection:
        connection.send(whole + delivery(house))
        answer = await connection.answer()
        assert (answer.status, answer.header("connection"), answer.header("content-length")) == (200, "close", "0")
        assert answer.header("date") is not None
        assert await connection.ended() == b""
    assert len(await house.kept()) == 1


async def test_behind_a_last_request_nothing_is_taken(house: House) -> None:
    """Also where the last one was answered before the next was read."""
    async with connected(house.url) as connection:
        last = raw.request("/hooks/nobody", [("connection", "close")])
        assert (await connection.ask(last + delivery(house))).status == 404
        assert await connection.ended() == b""
    assert (await house.deliver("github")).status == 200
    assert len(await house.kept()) == 1


async def test_a_body_of_thousands_of_chunks_costs_no_more_than_its_bytes(house: House) -> None:
    """Chunks of one byte."""
    async with connected(house.url) as connection:
        assert (await connection.ask(delivery(house, filler=190_000, chunked=1))).status == 200


@pytest.mark.parametrize("target", ["http://hooks.example.com", "/hooks/github\xe9", "hooks/github"])
async def test_a_target_that_is_no_path_is_no_request(house: House, target: str) -> None:
    """400, and the connection ends."""
    async with connected(house.url) as connection:
        assert (await connection.ask(raw.request(target))).status == 400
        assert await connection.ended() == b""


@asynccontextmanager
async def answering(door: Door) -> AsyncIterator[str]:
    """A server of that door."""
    bound = listen.bind("127.0.0.1:0", "public")
    async with serving(listen.direct(door), bound) as url:
        yield url


async def test_no_value_of_an_answer_begins_another_header() -> None:
    """A challenge's answer may carry text of a stranger's; a line's end in it is never written."""

    async def door(exchange: Exchange) -> Answer:
        return Answer(200, b"x", headers=(("x-a", "b\r\nset-cookie: c"),))

    async with answering(door) as url:
        answer = await raw.ask(url, raw.request("/"))
        assert (answer.status, answer.body, answer.header("set-cookie")) == (500, b"internal_error", None)


async def test_a_door_that_fails_is_a_500_and_the_end_of_the_connection() -> None:
    """At once, or after it has awaited something."""

    async def door(exchange: Exchange) -> Answer:
        if exchange.query:
            await asyncio.get_running_loop().run_in_executor(None, int)
        raise ZeroDivisionError

    async with answering(door) as url:
        for target in ("/", "/?later"):
            async with connected(url) as connection:
                assert (await connection.ask(raw.request(target))).status == 500
                assert await connection.ended() == b""
