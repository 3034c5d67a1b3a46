"""Bounded concurrency."""

from __future__ import annotations

import asyncio

import pytest

from gateway.breakers.places import Places
from gateway.breakers.ways import Shut


async def held(places: Places, scope: str, release: asyncio.Event, order: list[int], number: int) -> None:
    async with places.one(scope, waits=True):
        order.append(number)
        await release.wait()


async def begun(*tasks: asyncio.Task[None]) -> None:
    for _ in range(3 + len(tasks)):
        await asyncio.sleep(0)


async def test_first_come_first_served_and_beyond_that_crowded() -> None:
    places, release, order = Places(2, most_waiting=3), asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(held(places, "a", release, order, number)) for number in range(5)]
    await begun(*tasks)
    assert order == [0, 1]
    assert places.free("a") == 0
    assert places.free("b") == 2  # another way's places are its own
    with pytest.raises(Shut) as found:
        async with places.one("a", waits=True):
            pass
    assert (found.value.why, found.value.retry_after_s) == ("crowded", 2)
    with pytest.raises(Shut):
        async with places.one("a", waits=False):
            pass
    release.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]
    assert places.free("a") == 2


async def test_who_has_waited_long_enough_is_told_to_come_again() -> None:
    places, release, order = Places(1, wait_s=0), asyncio.Event(), list[int]()
    task = asyncio.create_task(held(places, "a", release, order, 0))
    await begun(task)
    with pytest.raises(Shut):
        async with places.one("a", waits=True):
            pass
    release.set()
    await task
    async with places.one("a", waits=True):
        assert places.free("a") == 0
    assert places.free("a") == 1


async def test_who_is_called_off_leaves_no_place_taken() -> None:
    """While it waits, and in the very breath in which its turn comes."""
    places, release, order = Places(1), asyncio.Event(), list[int]()
    first, waits, last = (asyncio.create_task(held(places, "a", release, order, number)) for number in range(3))
    await begun(first, waits, last)
    waits.cancel()
    await begun(waits)
    release.set()
    await asyncio.gather(first, last)
    assert order == [0, 2]
    release.clear()
    first, waits = (asyncio.create_task(held(places, "a", release, order, number)) for number in (3, 4))
    await begun(first, waits)
    first.cancel()  # its place is given to the one that waits …
    await asyncio.sleep(0)
    waits.cancel()  # … which does not want it any more
    await asyncio.gather(first, waits, return_exceptions=True)
    assert places.free("a") == 1
