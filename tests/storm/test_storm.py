"""One expired token, eight processes, four hundred callers, and a provider that ends the account if its refresh token comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gateway.tokens.leases import LEASE_S
from tests.storm.crowd import Told
from tests.storm.fleet import Worker
from tests.storm.town import Account, Town

PROCESSES, CALLERS = 8, 400
OFF_S = 30.0


def judge(town: Town, account: Account, told: Sequence[Told]) -> None:
    """One call, and everybody has what it brought."""
    assert {(one.status, one.version) for one in told} == {(200, 2)}, town.crowd.statuses
    assert len({one.said["access_token"] for one in told}) == 1
    assert town.spent(account) == 1
    assert town.ended(account) is None


def urls(workers: Sequence[Worker]) -> list[str]:
    return [worker.url for worker in workers]


async def test_four_hundred_callers_at_eight_processes_are_one_refresh(town: Town) -> None:
    """Each has the new token at its first asking. The wall clocks of two processes are half a minute off, either way, and each
    of those wins once: nobody's clock judges a lease but the database's."""
    fast, slow, *others = await town.fleet.start_each(
        [{"clock_off_s": OFF_S}, {"clock_off_s": -OFF_S}, *[{}] * (PROCESSES - 2)]
    )
    await town.declare(others[0], "strict")
    accounts = await town.accounts(others[0], 3)
    for account, first in zip(accounts, (others[0], fast, slow), strict=True):
        begun = asyncio.create_task(town.crowd.storm([first.url], account.path, 1, patient=False))
        while not await town.phase(account) and not begun.done():  # noqa: ASYNC110 - on a row of the database
            await asyncio.sleep(0)
        told = await town.crowd.storm(urls([fast, slow, *others]), account.path, CALLERS - 1, patient=False)
        judge(town, account, [*await begun, *told])


async def test_a_refresh_that_outlives_its_lease_is_still_the_only_one(town: Town) -> None:
    """The provider acts, and its answer takes longer than the lease by the database's clock. Nobody else spends the token, one that
    comes later included; the answer is kept, and all have it."""
    *workers, late = await town.fleet.start(PROCESSES + 1)
    await town.declare(workers[0], "strict")
    [account] = await town.accounts(workers[0], 1)
    town.provider.misbehave("refresh_token", "slow_answer")
    asking = asyncio.create_task(town.crowd.storm(urls(workers), account.path, CALLERS - 1))
    await town.provider.gate.until(1)
    await town.pass_s(LEASE_S + 1)
    asking_late = asyncio.create_task(town.crowd.storm([late.url], account.path, 1))
    while town.crowd.statuses["checking"] < CALLERS:  # noqa: ASYNC110 - all have looked again, and were told to come later
        await asyncio.sleep(0.01)
    await town.provider.gate.open()
    judge(town, account, [*await asking, *await asking_late])
    assert (await town.grant(account))[0] == "active"
