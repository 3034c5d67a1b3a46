"""The table is total and keeps its promises by itself; so do the fold, the fences and the guard, which are pure too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import combinations, permutations, product
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.connections.fences import MARGIN_S, Fence, weigh
from gateway.connections.guard import LIMITS, Counts, released, tripped
from gateway.connections.machine import SIGNALS, TABLE, Signal, step
from gateway.connections.states import ISSUED, PRESSING, STATES, State, fold

PAIRS = list(product(STATES, SIGNALS))
CONSENTS: set[Signal] = {"authorized", "narrowed"}
# Signals that are a provider's word (or the clock's) that something is over.
SURE: set[Signal] = {"narrowed", "scopes_lost", "ran_out", "left"}


def to(state: State, signal: Signal) -> State:
    return step(state, signal).to


# -- the table -----------------------------------------------------------------------------------------------------------


def test_every_pair_is_written_down() -> None:
    """States and signals are those that the types name, and no pair is left to chance."""
    assert set(TABLE) == set(STATES) == set(get_args(State))
    assert all(set(row) == set(SIGNALS) for row in TABLE.values())


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("signal", SIGNALS)
def test_a_step_is_what_the_table_says(state: State, signal: Signal) -> None:
    """It moves, stays, or is illegal and changes nothing."""
    target = TABLE[state][signal]
    stepped = step(state, signal)
    assert stepped.to == (state if target is None else target)
    assert stepped.outcome == ("illegal" if target is None else "stays" if target == state else "moved")


@pytest.mark.parametrize("signal", SIGNALS)
def test_closed_is_the_end(signal: Signal) -> None:
    """Whatever comes late finds it closed, a consent too."""
    assert to("closed", signal) == "closed"
    assert step("closed", signal).outcome == ("illegal" if TABLE["closed"][signal] is None else "stays")


def test_everything_can_be_closed() -> None:
    assert all(to(state, "closed") == "closed" for state in STATES)


def test_a_consent_mends_whatever_is_open() -> None:
    """With every scope it is active, without it asks for another consent."""
    for state in set(STATES) - {"closed"}:
        assert (to(state, "authorized"), to(state, "narrowed")) == ("active", "reauth_required")


def test_nothing_is_pending_again() -> None:
    assert not any(to(state, signal) == "pending" for state, signal in PAIRS if state != "pending")


def test_what_nobody_consented_to_cannot_be_withdrawn() -> None:
    for signal in set(SIGNALS) - CONSENTS - {"closed"}:
        assert step("pending", signal).outcome == "illegal"


def test_only_a_consent_or_an_end_leads_out_of_revoked() -> None:
    """No refresh that was under way, no probe, no other word of the provider's."""
    leaving = {signal for signal in SIGNALS if to("revoked", signal) != "revoked"}
    assert leaving == {"authorized", "narrowed", "left", "closed"}
    assert step("revoked", "refreshed").outcome == "illegal"  # so its tokens are not kept either


def test_a_revocation_takes_hold_of_whatever_lives() -> None:
    for state in ("active", "suspect", "suspended", "reauth_required", "revoked"):
        assert to(state, "revoked") == "revoked"


def test_only_what_is_suspect_is_refused() -> None:
    """Promise 3, by the table alone: no grant is declared dead on one ambiguous answer."""
    assert {state for state in STATES if to(state, "refused") != state} == {"suspect"}
    assert step("active", "refused").outcome == "illegal"


def test_evidence_makes_suspect_and_no_more() -> None:
    assert {to("active", "doubted"), to("suspect", "doubted")} == {"suspect"}
    assert all(to(state, "doubted") == state for state in set(STATES) - {"active", "suspect"})


def test_nothing_takes_an_active_grant_to_the_user_but_what_is_sure() -> None:
    """Nobody is asked to reconnect for an answer that may have been an outage's."""
    assert {signal for signal in SIGNALS if to("active", signal) == "reauth_required"} == SURE
    assert {signal for signal in SIGNALS if to("suspect", signal) == "reauth_required"} == SURE | {"refused"}


def test_suspended_is_lifted_by_the_provider_or_a_consent() -> None:
    """A probe that passes, a refresh that works do not lift it: they may well, where the provider only paused it."""
    assert {signal for signal in SIGNALS if to("suspended", signal) in ISSUED} == {"authorized", "resumed"}


def test_an_acquittal_mends_only_what_is_suspect() -> None:
    assert {state for state in STATES if to(state, "acquitted") != state} == {"suspect"}


@given(st.sampled_from(STATES), st.sampled_from(SIGNALS))
def test_the_same_signal_twice_is_the_same_signal_once(state: State, signal: Signal) -> None:
    """But for `refused`, whose second is the point; from `suspect` even that one has decided at once."""
    once = to(state, signal)
    assert to(once, signal) == once


@given(st.lists(st.sampled_from(SIGNALS), max_size=30))
def test_no_token_after_a_revocation_without_a_consent(signals: list[Signal]) -> None:
    """Whatever follows, in any order."""
    assume(not CONSENTS & set(signals) and "left" not in signals)
    state: State = "revoked"
    for signal in signals:
        state = to(state, signal)
        assert state not in ISSUED


# -- the fold ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(STATES), max_size=6), st.randoms(use_true_random=False))
def test_the_fold_knows_a_set(states: list[State], chance: object) -> None:
    """Neither order nor number counts."""
    assert fold(states) == fold(reversed(states)) == fold(set(states)) == fold([*states, *states])


def test_the_fold_of_every_set() -> None:
    """Closed grants do not count; `revoked` only where nothing else is left; else the most pressing speaks."""
    for size in range(len(STATES) + 1):
        for states in combinations(STATES, size):
            rest = set(states) - {"closed"}
            folded = fold(states)
            if not rest:
                assert folded == "pending"
            elif rest <= {"revoked", "pending"}:
                assert folded == ("revoked" if "revoked" in rest else "pending")
            elif rest & {"revoked", "reauth_required"}:
                assert folded == "reauth_required"
            else:
                assert folded == max(rest, key=PRESSING.__getitem__)
            assert all(fold(order) == folded for order in permutations(states)) or size > 4


# -- fences --------------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = st.integers(1, 4)
TIMES = st.integers(-300, 300).map(lambda s: NOW + timedelta(seconds=s))
FENCES = st.builds(
    Fence, generation=st.none() | NUMBERS, token_version=st.none() | NUMBERS, final=st.booleans(), at=st.none() | TIMES
)


@given(FENCES, NUMBERS, NUMBERS, TIMES)
def test_another_generation_is_stale_whatever_else_is_said(
    fence: Fence, generation: int, version: int, alive_at: datetime
) -> None:
    """Promise 5: neither a name for ever nor a late time lets a signal about generation 3 at generation 4."""
    assume(fence.generation not in (None, generation))
    assert weigh(fence, generation=generation, token_version=version, alive_at=alive_at) == "stale"


@given(FENCES, NUMBERS, NUMBERS, TIMES)
def test_another_token_set_is_stale(fence: Fence, generation: int, version: int, alive_at: datetime) -> None:
    assume(fence.token_version not in (None, version))
    assert weigh(fence, generation=generation, token_version=version, alive_at=alive_at) == "stale"


@given(NUMBERS, NUMBERS, TIMES, st.sampled_from(["generation", "token_version", "both", "final"]))
def test_what_names_the_grant_is_proof(generation: int, version: int, alive_at: datetime, by: str) -> None:
    fence = {
        "generation": Fence(generation=generation), "token_version": Fence(token_version=version),
        "both": Fence(generation=generation, token_version=version), "final": Fence(final=True),
    }[by]  # fmt: skip
    assert weigh(fence, generation=generation, token_version=version, alive_at=alive_at) == "proof"


@given(NUMBERS, NUMBERS, TIMES)
def test_what_knows_nothing_is_contested(generation: int, version: int, alive_at: datetime) -> None:
    assert weigh(Fence(), generation=generation, token_version=version, alive_at=alive_at) == "contested"


@given(TIMES, st.integers(0, 120), st.lists(st.integers(-400, 400), min_size=2, max_size=2))
def test_a_later_time_never_counts_less(alive_at: datetime, margin_s: int, seconds: list[int]) -> None:
    """And a later proof of life never makes it count more."""
    grades = ["stale", "contested", "proof"]

    def grade(at: datetime, alive: datetime) -> int:
        return grades.index(weigh(Fence(at=at, margin_s=margin_s), generation=1, token_version=1, alive_at=alive))

    earlier, later = (alive_at + timedelta(seconds=s) for s in sorted(seconds))
    assert grade(earlier, alive_at) <= grade(later, alive_at)
    assert grade(alive_at, earlier) >= grade(alive_at, later)


@pytest.mark.parametrize(
    ("seconds", "weight"),
    [(-MARGIN_S - 1, "stale"), (-MARGIN_S, "contested"), (0, "contested"), (MARGIN_S, "contested"), (MARGIN_S + 1, "proof")],
)  # fmt: skip
def test_within_the_clocks_margin_it_is_contested(seconds: int, weight: str) -> None:
    fence = Fence(at=NOW + timedelta(seconds=seconds))
    assert weigh(fence, generation=1, token_version=1, alive_at=NOW) == weight


@given(st.integers(0, MARGIN_S), st.integers(1, 600), st.integers(-MARGIN_S, MARGIN_S))
def test_an_honest_clock_never_ends_the_generation_after(age: int, before: int, skew: int) -> None:
    """What happened before a consent is no proof against it, as long as the clocks differ by no more than the margin."""
    happened = NOW - timedelta(seconds=before)
    fence = Fence(at=happened + timedelta(seconds=skew))
    assert weigh(fence, generation=2, token_version=2, alive_at=NOW) != "proof"


# -- the guard -----------------------------------------------------------------------------------------------------------

WEEK_WINDOWS = LIMITS.usual_s // LIMITS.window_s - 1  # those before this one


@pytest.mark.parametrize(
    ("connections", "tenants", "before", "trips"),
    [
        (5, 3, 0, False), (6, 3, 0, True), (6, 2, 0, False), (5000, 1, 0, False), (5000, 2, 0, False), (5000, 50, 0, True),
        # 2 a window is usual: 10 are five times that, 11 are more
        (10, 3, 2 * WEEK_WINDOWS, False), (11, 3, 2 * WEEK_WINDOWS, True),
        # less than one a window: the least counts
        (6, 3, WEEK_WINDOWS, True), (5, 3, WEEK_WINDOWS // 2, False), (6, 3, WEEK_WINDOWS * 6 // 5 + 1, False),
    ],
)  # fmt: skip
def test_when_the_guard_trips(connections: int, tenants: int, before: int, trips: bool) -> None:
    """More than max(5, 5 times the usual) connections in ten minutes, of three tenants."""
    assert tripped(Counts(connections, tenants, before)) == trips


@given(st.integers(0, 10_000), st.integers(0, 2), st.integers(0, 10_000))
def test_one_tenant_alone_never_trips_it(connections: int, tenants: int, before: int) -> None:
    """A customer who disconnects everything is no outage; nor are two."""
    assert not tripped(Counts(connections, tenants, before))


@given(st.integers(0, 5), st.integers(0, 100), st.integers(0, 10_000))
def test_a_few_never_trip_it(connections: int, tenants: int, before: int) -> None:
    assert not tripped(Counts(connections, tenants, before))


@given(st.integers(0, 500), st.integers(0, 10), st.integers(0, 100_000))
def test_more_failures_never_release_it(connections: int, tenants: int, before: int) -> None:
    """And what was usual never trips it."""
    if tripped(Counts(connections, tenants, before)):
        assert tripped(Counts(connections + 1, tenants, before))
        assert tripped(Counts(connections, tenants + 1, before))
    else:
        assert not tripped(Counts(connections, tenants, before + 1))


@pytest.mark.parametrize(("passed", "well"), [(0, False), (2, False), (3, True), (4, True)])
def test_three_canaries_release_it(passed: int, well: bool) -> None:
    assert released(passed) == well
