"""What the next holder may do about a refresh that was left open: the whole table."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from gateway.tokens import intent
from gateway.tokens.leases import LEASE_S, Open
from providers.oauth import OAuthFacts, Rotation

ME, OTHER = UUID(int=1), UUID(int=2)
GRACE_S = 900.0
NOTHING = Open(
    generation=1, token_version=1, phase="claimed", holder=OTHER, fence=1, lease_left_s=-1.0, holder_silent_s=1.0,
    unanswered_s=None, spender_silent_s=None, again_in_s=-1.0, tries=0, last_error=None,
)  # fmt: skip
SENT = replace(NOTHING, phase="sent")
LOST = replace(NOTHING, phase="lost", unanswered_s=5.0, again_in_s=15.0)


def facts(rotation: Rotation, grace_s: int = 0) -> OAuthFacts:
    return OAuthFacts(authorize_url=None, token_url="https://a.example/t", rotation=rotation, reuse_grace_s=grace_s)


STRICT, GRACE, NONE = facts("strict"), facts("grace", 600), facts("none")
CASES: list[tuple[str, Open, OAuthFacts, float]] = [
    ("nothing has left", NOTHING, STRICT, 0.0),
    ("nothing has left, whoever is gone", replace(NOTHING, holder_silent_s=None), STRICT, 0.0),
    ("held up: it is heard of", SENT, STRICT, 1.0),
    ("silent: it may come back with its spool", replace(SENT, holder_silent_s=100.0), STRICT, GRACE_S - 100),
    ("silent for long enough", replace(SENT, holder_silent_s=GRACE_S), STRICT, 0.0),
    ("forgotten", replace(SENT, holder_silent_s=None), STRICT, 0.0),
    ("our own: no task of ours is at it", replace(SENT, holder=ME, lease_left_s=LEASE_S - 25.0), STRICT, 0.0),
    ("our own, and its end is not written yet", replace(SENT, holder=ME, lease_left_s=10.0), STRICT, 20 + 10 - LEASE_S),
    ("the old token lives on", SENT, NONE, 0.0),
    ("… for a while", SENT, GRACE, 0.0),
    ("… and that is over", replace(SENT, lease_left_s=LEASE_S - 600.0, holder_silent_s=100.0), GRACE, GRACE_S - 100),
    ("the holder says that no answer comes", LOST, STRICT, 15.0),
    ("after a moment", replace(LOST, again_in_s=-1.0), STRICT, 0.0),
    ("answered, and not with tokens", replace(NOTHING, phase="failed", again_in_s=4.0), STRICT, 4.0),
]


@pytest.mark.parametrize(("story", "open", "of", "wait_s"), CASES, ids=[case[0] for case in CASES])
def test_how_long_nobody_may_send_it_again(story: str, open: Open, of: OAuthFacts, wait_s: float) -> None:
    assert intent.wait_s(open, of, "code", ME, GRACE_S) == pytest.approx(wait_s, abs=0.01), story


def test_what_is_minted_spends_nothing() -> None:
    assert not intent.is_dangerous(replace(SENT, holder_silent_s=100.0), STRICT, "installation")
    assert intent.wait_s(replace(SENT, holder_silent_s=100.0), STRICT, "client_credentials", ME, GRACE_S) == 0


def test_an_answer_that_went_missing_stays_dangerous_through_a_second_claim() -> None:
    """Whoever claims it next and dies before he sends changes nothing of that."""
    assert intent.is_dangerous(replace(NOTHING, unanswered_s=40.0), STRICT, "code")
    assert not intent.is_dangerous(replace(NOTHING, unanswered_s=40.0), GRACE, "code")
    assert intent.is_dangerous(replace(NOTHING, unanswered_s=600.0), GRACE, "code")
    assert intent.is_dangerous(replace(NOTHING, unanswered_s=595.0), GRACE, "code")  # it would come too late


def test_pauses_double_and_are_spread() -> None:
    assert [intent.pause_s(tries, 1.0) for tries in range(8)] == [5, 10, 20, 40, 80, 160, 240, 240]
    assert [intent.pause_s(0, chance) for chance in (0.0, 0.5, 1.0)] == [2.5, 3.75, 5.0]
