"""What was put off beyond its moment: spread anew over what is left of its window, once."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.database import Database
from subscriptions.policy import DAY_S, HOUR_S, LATE_S, Grant, plan
from subscriptions.store import Settled, settle
from tests.subscriptions.conftest import Works
from tests.subscriptions.rows import Rows

LIFE_S = 30 * DAY_S
WINDOW = (LIFE_S - DAY_S, LIFE_S - 600.0)


def long(chance: float, **more: float) -> Grant:
    """Thirty days of life, in use."""
    return Grant(issued_at=0.0, expires_at=LIFE_S, used_at=LIFE_S - DAY_S, chance=chance, **more)


@given(chance=st.floats(0, 1), now=st.floats(WINDOW[0], LIFE_S - 1))
def test_a_late_one_has_another_moment_and_keeps_it(chance: float, now: float) -> None:
    """In what is left of the window; whoever asks then is told to renew, not to wait again."""
    first = plan(long(chance), WINDOW[0])
    late = plan(long(chance, planned_at=first.at), now)
    if now - first.at <= LATE_S or WINDOW[1] - now < LATE_S:
        assert late == first  # on time; or no time is left
        return
    assert now <= late.at <= WINDOW[1] + 1e-3
    assert (late.act, late.reason) == ("renew", first.reason)
    before = plan(long(chance, planned_at=late.at), (now + late.at) / 2)
    assert before.at in (late.at, first.at)  # asked between: it stands, or its time has come within minutes
    assert plan(long(chance, planned_at=late.at), late.at).at <= late.at


def test_after_an_outage_they_come_in_no_heap() -> None:
    """All of two hours is due at their end. What had run out is renewed then; of the rest, a quarter of an hour has hardly more than any."""
    number, begin, end = 20_000, WINDOW[0] + 10 * HOUR_S, WINDOW[0] + 12 * HOUR_S
    quarters: Counter[int] = Counter()
    for place in range(number):  # windows that begin all the time, and moments anywhere in them
        began, chance = HOUR_S * (42 * place / number - 25), place * 0.6180339887 % 1
        grant = long(chance)
        grant.issued_at, grant.expires_at, grant.used_at = began, LIFE_S + began, LIFE_S + began - DAY_S
        at = plan(grant, 0.0).at
        grant.planned_at = at
        if begin <= at < end:
            late = plan(grant, end)
            if late.reason == "overdue":
                continue
            at = max(late.at, end)
        quarters[int((at - end) // 900)] += 1
    usual = sum(quarters[quarter] for quarter in range(-24, -8)) / 16
    assert max(quarters[quarter] for quarter in range(12)) <= 1.5 * usual


def test_what_was_never_planned_is_spread() -> None:
    """A fleet that comes to us in the middle of its windows is not renewed in one heap."""
    moments = [plan(long(number / 1000), LIFE_S - 6 * HOUR_S).at for number in range(1000)]
    now = sum(at <= LIFE_S - 6 * HOUR_S + 900 for at in moments)
    assert now < 50


async def test_a_claim_tells_the_planned_from_the_looked_at(database: Database) -> None:
    """Who was to be renewed, and when; who only to be looked at."""
    rows, at = Rows(database), uuid4()
    await rows.put(at, "t", 2)
    looked_at = await rows.claim(8, at)
    assert [one.planned_at for one in looked_at] == [None, None]
    due_at = await database.fetchval("SELECT extract(epoch FROM gateway.now())::float8") + 60
    one, other = looked_at
    await settle(
        database,
        [
            Settled(one.connection, one.fence, None, due_at, "renew", "used"),
            Settled(other.connection, other.fence, None, due_at, "look", "in_doubt"),
        ],
    )
    await rows.shift(7200)
    again = {claimed.connection: claimed for claimed in await rows.claim(8, at)}
    assert again[one.connection].planned_at == pytest.approx(due_at, abs=1)
    assert again[other.connection].planned_at is None


async def test_what_a_standstill_put_off_is_spread_by_the_scheduler(works: Works) -> None:
    """The real one: late, it chooses anew and says so in the row; at that moment it renews, and not a third time later."""
    life_s, left_s = 10 * DAY_S, 0.0
    works.town.provider.rules(access_ttl_s=int(life_s))
    while left_s < HOUR_S:  # a few in a hundred have their moment too near the window's end for this story
        account = await works.connected(end_user_id=f"u-{left_s}")
        await works.used(account)
        await works.after(life_s / 2 + 5)
        due_in_s = await works.due_in_s(account)
        assert due_in_s is not None
        left_s = life_s / 2 - 600 - due_in_s
    await works.after(due_in_s + left_s / 2)  # nothing was claimed meanwhile
    assert (await account.grant()).token_version == 1
    row, again_in_s = await works.row(account), await works.due_in_s(account)
    assert (row.act, row.reason) == ("renew", "used")
    assert again_in_s is not None
    assert 0 < again_in_s <= left_s / 2 + 10
    await works.after(again_in_s + 1)
    assert (await account.grant()).token_version == 2
