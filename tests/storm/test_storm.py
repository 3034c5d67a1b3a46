"""One expired token, eight processes, four hundred callers, and a provider that ends the account if its refresh token comes twice."""

from __future__ import annotations

import asyncio

import pytest

from tests.storm.town import Account, Town

PROCESSES, CALLERS = 8, 400


async def test_four_hundred_callers_at_eight_processes_are_one_refresh(town: Town) -> None:
    """Each has the same new token at its first asking."""
    workers = await town.fleet.start(PROCESSES)
    await town.declare(workers[0], "strict")
    [account] = await town.accounts(workers[0], 1)
    told = await town.crowd.storm([w.url for w in workers], account.path, CALLERS, patient=False)
    assert {(one.status, one.version) for one in told} == {(200, 2)}, town.crowd.statuses
    assert len({one.said["access_token"] for one in told}) == 1
    assert town.spent(account) == 1
    assert town.ended(account) is None
