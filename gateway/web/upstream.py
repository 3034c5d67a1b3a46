"""Whether the databases that this process stands on answer just now."""

from __future__ import annotations

import asyncio

from gateway.database import Database
from gateway.errors import Unavailable
from gateway.service import Gateway


async def answers(database: Database, timeout_s: float) -> bool:
    """One question to one database, given up after `timeout_s`."""

    async def ask() -> bool:
        try:
            return bool(await database.fetchval("SELECT true"))
        except Unavailable:
            return False

    task = asyncio.ensure_future(ask())
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.wait((task,), timeout=timeout_s)
    finally:
        if not task.done():
            task.cancel()  # and not waited for: cancelling talks to the database too
    return task.done() and not task.cancelled() and task.exception() is None and task.result()


async def dependencies(gateway: Gateway, timeout_s: float) -> dict[str, bool]:
    """By name (`control`, `region:NAME`), all asked at once."""
    asked = {"control": gateway.control} | {f"region:{region.name}": region.database for region in gateway.regions}
    found = await asyncio.gather(*(answers(database, timeout_s) for database in asked.values()))
    return dict(zip(asked, found, strict=True))


async def reachable(gateway: Gateway, timeout_s: float) -> bool:
    """Whether all of them answer within `timeout_s`."""
    return all((await dependencies(gateway, timeout_s)).values())
