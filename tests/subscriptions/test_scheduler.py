"""The scheduler over the real store, refresher and a provider over HTTP: renewed ahead, once, and left alone where it must be."""

from __future__ import annotations

import asyncio

from subscriptions.store import LEASE_S
from tests.subscriptions.conftest import HOUR_S, Works, scheduler_of
from tests.tokens.conftest import Account


async def idle(works: Works, account: Account) -> None:
    """Nobody uses it: nothing is planned but to keep its refresh token from dying of idleness, weeks from now."""
    assert (await works.row(account)).reason == "keep_alive"
    due_in_s = await works.due_in_s(account)
    assert due_in_s is not None
    assert due_in_s > 7 * 24 * HOUR_S


async def test_what_is_used_is_renewed_ahead(works: Works) -> None:
    """Looked at when half of its life is over, renewed in the last fifth: whoever reads then does not wait."""
    account = await works.connected()
    await works.used(account)
    assert await works.after(0) == 0
    assert await works.after(HOUR_S / 2 + 5) == 1
    row, due_in_s = await works.row(account), await works.due_in_s(account)
    assert (row.act, row.reason) == ("renew", "used")
    assert due_in_s is not None
    assert 0.8 * HOUR_S <= due_in_s + HOUR_S / 2 + 5 <= 0.95 * HOUR_S + 5
    assert works.calls == 0
    assert await works.after(due_in_s + 1) == 1
    assert works.calls == 1
    assert await works.used(account) == 2
    assert works.calls == 1  # nobody waited for it
    assert (await works.row(account)).reason == "used"


async def test_it_goes_on_as_long_as_it_is_used(works: Works) -> None:
    """Hours of use: renewed ahead every time, and not once too often; then nobody comes, and that ends."""
    account = await works.connected()
    for _ in range(20):
        await works.used(account)
        await works.after(HOUR_S / 2)
    assert works.calls == (await works.used(account)) - 1
    assert 10 <= works.calls <= 13  # an hour each, at 80 to 95 % of it
    calls = works.calls
    for _ in range(6):
        await works.after(HOUR_S / 2)
    assert works.calls <= calls + 2
    await idle(works, account)


async def test_what_nobody_uses_costs_nothing(works: Works) -> None:
    """It is looked at once, and never again; until somebody reads it, which is when it is planned anew."""
    account = await works.connected()
    await works.after(HOUR_S / 2 + 5)
    await idle(works, account)
    assert await works.after(20 * HOUR_S) == 0
    assert works.calls == 0
    await works.used(account)  # it had expired: refreshed on use, so there is a new token to look at later
    assert works.calls == 1
    assert await works.after(HOUR_S / 2 + 5) == 1
    assert (await works.row(account)).reason == "used"


async def test_a_read_of_what_was_planned_as_unused(works: Works) -> None:
    """Its token is good still, so nothing tells of the read but the traffic: planned anew at once."""
    account = await works.connected()
    await works.after(HOUR_S / 2 + 5)
    await idle(works, account)
    await works.used(account)
    assert await works.after(0) == 1
    assert (await works.row(account)).reason == "used"
    assert works.calls == 0


async def test_a_failure_is_put_off_longer_each_time(works: Works) -> None:
    """By chance, by what the provider says, and for good as soon as it works again."""
    account = await works.connected()
    await works.used(account)
    works.town.provider.misbehave("refresh_token", "server_error", times=None)
    await works.after(0.96 * HOUR_S)
    assert works.calls == 1
    row, first_s = await works.row(account), await works.due_in_s(account)
    assert row.tries == 1
    assert row.last_error is not None
    assert first_s is not None
    assert first_s > 2
    await works.after(first_s + 1)
    assert works.calls == 2
    row, second_s = await works.row(account), await works.due_in_s(account)
    assert row.tries == 2
    assert second_s is not None
    assert second_s > first_s
    works.town.provider.behave()
    await works.after(second_s + 1)
    assert works.calls == 3
    row = await works.row(account)
    assert (row.tries, row.last_error) == (0, None)
    assert await works.used(account) == 2


async def test_a_dead_grant_is_not_asked_again(works: Works) -> None:
    """The provider calls it dead: the machine has the word, and a check decides. The scheduler sends nothing more for it."""
    account = await works.connected()
    await works.used(account)
    [grant] = works.town.provider.grants()
    await works.town.provider.revoke(grant, tell=False)
    await works.after(0.96 * HOUR_S)
    assert works.calls == 1
    assert (await account.grant()).state == "suspect"
    assert (await works.row(account)).reason == "in_doubt"
    await account.move("reauth_required", "refresh_refused")
    for _ in range(6):
        await works.after(HOUR_S)
    assert works.calls == 1
    assert (await works.row(account)).reason == "state"
    assert await works.due_in_s(account) is None


async def test_two_schedulers_renew_once(works: Works) -> None:
    """Of six connections each is renewed by one of the two."""
    accounts = [await works.connected(end_user_id=f"u-{number}") for number in range(6)]
    for account in accounts:
        await works.used(account)
    other = scheduler_of(works.town.gateway, at_once=4)
    await other.start()
    try:
        await works.town.pass_s(0.96 * HOUR_S)
        took = await asyncio.gather(works.scheduler.run_once(), other.run_once())
    finally:
        await other.close()
    assert sum(took) == 6
    assert works.calls == 6
    assert {await works.used(account) for account in accounts} == {2}


async def test_a_killed_schedulers_connections_come_again(works: Works) -> None:
    """It was cut in the middle: another one does not touch it while the lease lasts, and finds what came meanwhile."""
    account = await works.connected()
    await works.used(account)
    doomed = scheduler_of(works.town.gateway)
    await doomed.start()
    works.town.provider.misbehave("refresh_token", "slow")
    await works.town.pass_s(0.96 * HOUR_S)
    assert await doomed.begin() == 1
    await works.town.provider.gate.until(1)
    await doomed.close()
    assert await works.scheduler.run_once() == 0
    await works.town.provider.gate.open()
    while (await account.grant()).token_version == 1:  # noqa: ASYNC110 the refresh itself was not cut
        await asyncio.sleep(0.01)
    assert await works.after(LEASE_S + 1) == 0
    assert await works.after(HOUR_S / 2) == 1
    assert works.calls == 1
    assert await works.used(account) == 2


async def test_drained(works: Works) -> None:
    """No more is claimed; what is under way ends; and what was claimed and not begun is given back, due at once."""
    account = await works.connected()
    await works.used(account)
    await works.town.pass_s(0.96 * HOUR_S)
    draining = works.town.gateway.draining
    works.town.provider.misbehave("refresh_token", "slow")
    assert await works.scheduler.begin() == 1
    await works.town.provider.gate.until(1)
    draining.set()
    assert await works.scheduler.run_once() == 0
    await works.town.provider.gate.open()
    await works.scheduler.ended()
    assert (await account.grant()).token_version == 2
    assert (await works.row(account)).reason == "used"
