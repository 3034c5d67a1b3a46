"""Clients that go: in the middle of a body, or before they have heard the answer. Never half an event."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows import raw
from tests.flows.house import House, metric
from tests.flows.raw import Connection, NoAnswer
from tests.signers_b import hubspot_body, hubspot_event, microsoft_body, microsoft_change
from tests.stream.lossy import LossyWire
from tests.stream.making import until

BODY = microsoft_body(*(microsoft_change(id=f"item-{number}") for number in range(5)))


async def settled() -> bool:
    """Whether the process holds no delivery's bytes any more: every request has ended."""
    return metric("posthouse_inflight_bytes") == 0


@pytest.mark.parametrize("chunked", [0, 100])
async def test_a_connection_cut_in_the_middle_of_a_body_leaves_nothing(house: House, chunked: int) -> None:
    """At every place of the request; then the whole of it is taken, on the same listener."""
    target, headers, body = house.signed("microsoft/endpoint", BODY)
    whole = raw.request(target, headers, body, chunked=chunked)
    for cut in range(10, len(whole) - 1, len(whole) // 40):
        connection = await Connection.open(house.url)
        connection.send(whole[:cut])
        await connection.sent()
        connection.hang_up()
    for cut in range(10, len(whole) - 1, len(whole) // 10):  # the end of what it says, but not of the connection
        connection = await Connection.open(house.url)
        connection.send(whole[:cut])
        await connection.close()
    assert (await house.ask(whole)).status == 202
    await until(settled)
    assert [event.delivery["item"]["index"] for event in await house.kept()] == list(range(5))


async def test_a_client_that_is_gone_before_the_answer_is_kept_whole_or_not_at_all(house: House) -> None:
    """All items of the array or none; when it comes again, each is there once."""
    for number in range(30):
        body = microsoft_body(*(microsoft_change(id=f"{number}-{index}") for index in range(3)))
        target, headers, body = house.signed("microsoft/endpoint", body)
        connection = await Connection.open(house.url)
        connection.send(raw.request(target, headers, body))
        await connection.sent()
        for _ in range(number):  # more and more of the way through the house
            await asyncio.sleep(0)
        connection.hang_up()
    await until(settled)
    first = [event.data for event in await house.kept()]
    assert len(first) % 3 == 0
    for number in range(30):
        body = microsoft_body(*(microsoft_change(id=f"{number}-{index}") for index in range(3)))
        assert (await house.deliver("microsoft/endpoint", body)).status == 202
    again = [event.data for event in await house.kept()]
    assert again[: len(first)] == first
    assert len(again) == len(set(again)) == 90


async def test_a_client_that_waits_while_the_database_is_away_and_goes(house: House, line: LossyWire) -> None:
    """Its delivery may be kept when the database is back, whole, or not; nobody else notices."""
    assert (await house.deliver("github")).status == 200
    await line.close()
    target, headers, body = house.signed("microsoft/endpoint", BODY)
    waiting = [await Connection.open(house.url) for _ in range(5)]
    target, headers, body = house.signed("github")
    for connection in waiting:
        connection.send(raw.request(target, headers, body))
        await connection.sent()
        connection.hang_up()
    await line.open()

    async def taken() -> bool:
        return (await house.deliver("github", delivery_id="after")).status == 200

    await until(taken)
    await until(settled)
    assert len(await house.kept()) in (2, 3)  # five times the same delivery


async def test_answers_of_one_connection_come_in_the_order_of_its_requests(house: House) -> None:
    """Pipelined: forged, good, malformed, good; each answer belongs to its request."""
    target, headers, body = house.signed("github")
    good = raw.request(target, headers, body)
    forged = raw.request(target, {**headers, "x-hub-signature-256": "sha256=" + "0" * 64}, body)
    connection = await Connection.open(house.url)
    connection.send(forged + good + raw.request(target, headers, body, method="PUT") + good)
    assert [(await connection.answer()).status for _ in range(4)] == [401, 200, 405, 200]
    connection.send(b"nonsense\r\n\r\n")
    assert (await connection.answer()).status == 400
    with pytest.raises(NoAnswer):
        await connection.answer()
    await connection.close()
    assert len(await house.kept()) == 1


def test_bodies_of_arrays_are_what_these_tests_think() -> None:
    """HubSpot's and Graph's: several items in one request."""
    assert BODY.count(b"subscriptionId") == 5
    assert hubspot_body(hubspot_event(), hubspot_event()).count(b"eventId") == 2
