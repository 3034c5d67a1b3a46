"""Budgets, with a clock that is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.breakers.budget import Budget


def taken(budget: Budget, now: float, most: int = 10_000, **how: bool) -> int:
    """How many calls may go at this moment."""
    return next(number for number in range(most) if budget.take(now, **how) is None)


def test_a_second_s_worth_may_go_at_once_and_then_so_many_a_second() -> None:
    budget = Budget(50, now=0)
    assert taken(budget, 0) == 50
    assert budget.back_in_s(0) == pytest.approx(0.02)
    assert taken(budget, 0.5) == 25
    assert taken(budget, 100) == 50


def test_calls_ahead_leave_a_fifth_to_users() -> None:
    budget = Budget(50, now=0)
    assert budget.ahead(0) == 40
    assert taken(budget, 0, ahead=True) == 40
    assert budget.ahead(0) == 0
    assert budget.back_in_s(0, ahead=True) == pytest.approx(0.02)
    assert taken(budget, 0) == 10


def test_a_user_waits_for_a_call_to_come_and_those_ahead_wait_for_users() -> None:
    budget = Budget(10, now=0)
    waits = [budget.take(0, most_wait_s=1) for _ in range(21)]
    assert waits[:10] == [0] * 10
    assert waits[10:20] == pytest.approx([number / 10 for number in range(1, 11)])
    assert waits[20] is None
    assert taken(budget, 2, ahead=True) == 8


def test_a_small_budget_lets_calls_ahead_go_too() -> None:
    budget = Budget(0.5, now=0)
    assert taken(budget, 0, ahead=True) == 1
    assert budget.back_in_s(0, ahead=True) == pytest.approx(2)
    assert taken(budget, 2, ahead=True) == 1


def test_processes_share_it() -> None:
    budget = Budget(50, now=0)
    budget.share(5, 0)
    assert taken(budget, 0) == 10
    budget.share(1, 0)
    assert taken(budget, 1) == 50


def test_one_call_in_five_may_be_a_second_try_and_two_a_second_in_any_case() -> None:
    budget = Budget(1000, now=0)
    assert taken(budget, 0, again=True) == 10  # saved up
    for _ in range(10):
        assert budget.take(0) == 0
    assert taken(budget, 0, again=True) == 2
    assert budget.back_in_s(0, again=True) == pytest.approx(0.5)
    assert taken(budget, 3, again=True) == 6
    assert budget.take(3, again=True, most_wait_s=1) == pytest.approx(0.5)  # a user waits for that, too


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=80), st.floats(0.5, 20))
def test_it_is_never_overdrawn(asked: list[tuple[float, bool, bool]], rate: float) -> None:
    """Whatever is asked: at most a burst more than the rate, and a fifth of second tries beside the floor."""
    budget, now, made, tries = Budget(rate, now=0), 0.0, 0, 0
    for later, ahead, again in asked:
        now += later
        if budget.take(now, ahead=ahead, again=again) is not None:
            made, tries = made + 1, tries + again
        assert made <= max(1, rate) + rate * now + 1e-6
        assert tries <= 10 + 2 * now + 0.2 * made + 1e-6
