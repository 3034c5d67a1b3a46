"""The rules of a breaker, without clock, chance or database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.breakers.breaker import PACES, TROUBLES, Heard, Trouble, Window, answered, begun, heard
from providers.errors import (
    GrantEnded,
    Misconfigured,
    NotAllowed,
    OddAnswer,
    RateLimited,
    ScopeLacking,
    Suspended,
    Unreachable,
)  # fmt: skip

SAYS: list[tuple[BaseException | None, bool, Heard | None]] = [
    (None, False, "well"),
    (GrantEnded(), False, "well"),
    (Suspended(), False, "well"),
    (ScopeLacking(), False, "well"),
    (Unreachable("timed_out"), False, "failing"),
    (Unreachable("closed"), False, None),  # we are going
    (OddAnswer(), False, "failing"),
    (RateLimited(), False, "limited"),
    (Misconfigured("invalid_client"), False, "misconfigured"),
    (NotAllowed("host_not_listed"), False, "misconfigured"),
    (NotAllowed("address_not_public"), True, "failing"),  # of a user's choice
    (ValueError(), False, None),
]


@pytest.mark.parametrize(("error", "chosen", "says"), SAYS, ids=lambda value: repr(value))
def test_what_the_end_of_a_call_says(error: BaseException | None, chosen: bool, says: Heard | None) -> None:
    """A refusal of one grant is an answer like any other; only what would refuse everybody counts against the way."""
    assert heard(error, chosen=chosen) == says


@pytest.mark.parametrize(
    ("failures", "passes", "trips"), [(4, 0, False), (5, 0, True), (5, 5, True), (5, 6, False), (100, 101, False)]
)
def test_it_trips_at_five_failures_and_half_of_the_calls(failures: int, passes: int, trips: bool) -> None:
    window = Window()
    for failed in [False] * passes + [True] * failures:
        window.add(failed, 10.0)
    assert window.trips(39.9) is trips
    assert not window.trips(40.1)  # they are 30 s ago
    assert window.idle(40.1)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=60))
def test_a_window_counts_what_is_younger_than_thirty_seconds(ends: list[tuple[bool, float]]) -> None:
    """Like the plain count over all of them."""
    window, now = Window(), 0.0
    kept: list[tuple[bool, float]] = []
    for failed, later in ends:
        now += later
        window.add(failed, now)
        kept = [(one, at) for one, at in [*kept, (failed, now)] if at > now - 30]
        bad = sum(one for one, _ in kept)
        assert window.trips(now) == (bad >= 5 and bad * 2 >= len(kept))


def test_canaries_of_an_outage_come_seldomer_and_never_within_a_second() -> None:
    """1 s, then up to 2, 4, 8 and 15, by chance."""
    for chance, waits in ((0.0, [1.0] * 6), (1.0, [1, 2, 4, 8, 15, 15])):
        turn = begun("failing", None, chance)
        found = [turn.wait_s]
        for _ in waits[1:]:
            turn = answered("failing", turn.pause_s, turn.passed, "failing", None, chance)
            found.append(turn.wait_s)
        assert found == waits


def test_three_canaries_open_it_a_second_apart_and_one_that_fails_begins_anew() -> None:
    turn = answered("failing", 15.0, 0, "well", None, 1.0)
    assert (turn.passed, turn.wait_s, turn.over) == (1, 1.0, False)
    turn = answered("failing", turn.pause_s, turn.passed, "limited", None, 1.0)  # an answer, whatever it says
    assert (turn.passed, turn.wait_s, turn.over) == (2, 1.0, False)
    assert answered("failing", turn.pause_s, turn.passed, "well", None, 1.0).over
    turn = answered("failing", turn.pause_s, turn.passed, "failing", None, 1.0)
    assert (turn.passed, turn.pause_s, turn.over) == (0, 2.0, False)


@pytest.mark.parametrize(("told_s", "wait_s"), [(17.0, 17.0), (0.0, 1.0), (86400.0, 3600.0), (None, 30.0)])
def test_a_rate_limit_is_what_the_provider_says(told_s: float | None, wait_s: float) -> None:
    """To the second, an hour at most; half a minute where it says nothing, and longer when it says that again."""
    assert begun("limited", told_s, 0.5).wait_s == wait_s
    assert answered("limited", 30.0, 0, "limited", told_s, 0.5).wait_s == (60.0 if told_s is None else wait_s)
    assert answered("limited", 30.0, 0, "well", None, 0.5).over
    assert answered("limited", 30.0, 0, "failing", None, 0.5).over  # it limits us no more


def test_an_incident_is_tried_seldom_and_ended_only_by_an_answer() -> None:
    """60 s, 120, 240, 480, 600; an outage in between says nothing of the set-up."""
    turn = begun("misconfigured", None, 0.0)
    waits = [turn.wait_s]
    for _ in range(5):
        turn = answered("misconfigured", turn.pause_s, 0, "misconfigured", None, 0.0)
        waits.append(turn.wait_s)
    assert waits == [60, 120, 240, 480, 600, 600]
    assert not answered("misconfigured", 600.0, 0, "failing", None, 0.0).over
    assert not answered("misconfigured", 600.0, 0, "limited", None, 0.0).over
    assert answered("misconfigured", 600.0, 0, "well", None, 0.0).over


@given(
    st.sampled_from(TROUBLES), st.floats(1, 3600), st.integers(0, 2),
    st.sampled_from(["well", "failing", "limited", "misconfigured", None]), st.none() | st.floats(0, 1e9),
    st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_whatever_is_heard_the_next_canary_is_a_second_away_and_not_for_ever(
    why: Trouble, pause_s: float, passed: int, said: Heard | None, told_s: float | None, chance: float
) -> None:
    turn = answered(why, pause_s, min(passed, PACES[why].passes - 1), said, told_s, chance)
    assert 1 <= turn.wait_s <= PACES[why].most_s
    assert turn.over or turn.passed < PACES[why].passes
