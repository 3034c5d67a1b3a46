"""What is next for a connection that has several grants."""

from __future__ import annotations

import math

import pytest

from subscriptions import policy
from subscriptions.policy import Plan, Reason


@pytest.mark.parametrize("other", ["no_expiry", "cannot_renew", "hard_end", "state", "held"])
def test_one_that_is_unused_is_planned_anew_by_its_next_use_whatever_else_there_is(other: Reason) -> None:
    """`gateway.traffic` looks for that reason: beside another one the use would tell nobody."""
    unused, idle = Plan(math.inf, "nothing", "unused"), Plan(math.inf, "nothing", other)
    assert policy.earliest([idle, unused]) == policy.earliest([unused, idle]) == unused
    soon = Plan(10.0, "look", "in_doubt")
    assert policy.earliest([unused, soon, idle]) == soon
    assert policy.earliest([soon, Plan(10.0, "renew", "used")]).act == "renew"
