"""When a grant's tokens are renewed, and why: a pure function of what is known of it, of its surroundings, and of the time.

    lazily     nobody uses it: whoever does will refresh it. Nothing is sent meanwhile
    ahead      somebody uses it (or a subscription falls due): in a window before its end, at a moment that chance picks, the
               quiet hours more likely than others. So nobody waits, and nobody's renewals come in one heap
    kept       its refresh token dies of idleness: used once before it does, whoever uses the grant
    at once    it ran out while it was in use (an outage, say)
    anew       its moment is long past and its window is not (an outage, or it has just come to us): another moment of what is
               left, so that what was put off comes in no heap

Times are seconds of the region's clock since 1970, floats: the simulator decides tens of millions of times with this very
function. Chance is an argument, one number for each token set, so that whoever asks again gets the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

HOUR_S, DAY_S = 3600.0, 86400.0

WINDOW_S = DAY_S  # the longest window before an expiry …
SHORT_SHARE = 0.2  # … and for short lives this share of them
MARGIN_SHARE, MOST_MARGIN_S = 0.05, 600.0  # the window ends so long before the expiry
LEAST_USED_S, MOST_USED_S = HOUR_S, 30 * DAY_S  # used within its last life, but within these bounds: it will be again
KEEP_SHARE, MOST_KEEP_S = 0.15, 14 * DAY_S  # before a refresh token dies of idleness: the window …
KEEP_MARGIN_SHARE, MOST_KEEP_MARGIN_S = 0.03, 2 * DAY_S  # … and its end
DOUBT_S = 900.0  # what is in doubt is looked at again after so long
LATE_S = 120.0  # so long after its moment: it was put off
NEED_MARGIN_S = 300.0  # a token must outlive what is asked of it by so much

Act = Literal["renew", "look", "nothing"]
Reason = Literal[
    "used",  # it was used within its last life
    "subscription",  # a subscription falls due, and its token would be over by then
    "keep_alive",  # the refresh token would die of idleness
    "overdue",  # it ran out while it was in use
    "unused",  # nobody uses it: refreshed on use
    "no_expiry",  # the access token does not expire
    "cannot_renew",  # there is no refresh token, and nothing mints it
    "hard_end",  # nothing prolongs it: only a reconnect does
    "state",  # no token is handed out in its state
    "held",  # imported before a cut-over
    "restored",  # came out of a backup
    "in_doubt",  # a check decides about it
    "backing_off",  # the last try failed
]
Barred = Literal["state", "held", "restored", "in_doubt"]


@dataclass(slots=True)  # not frozen: the simulator makes millions
class Grant:
    """What the policy knows of one grant. Times: None, there is no such time."""

    issued_at: float
    expires_at: float | None
    can_renew: bool = True  # with a refresh token, or by minting
    barred: Barred | None = None  # why nothing is sent for it just now
    keep_by: float | None = None  # its refresh token dies then, unless it is used before
    kept_since: float | None = None  # when it was last used; None: with `issued_at`
    ends_at: float | None = None  # nothing prolongs it beyond
    used_at: float | None = None  # when somebody last read a token of its connection
    needed_at: float | None = None  # when a subscription of its connection falls due
    again_at: float | None = None  # the last try failed: not before then
    planned_at: float | None = None  # the moment that was chosen last time; None: none was
    chance: float = 0.5  # 0 to 1, its own


@dataclass(frozen=True, slots=True)
class Plan:
    """What is next. `at`: when; infinity with `nothing`, which only a change ends."""

    at: float
    act: Act
    reason: Reason
    window: tuple[float, float] | None = None  # that the moment was chosen from


EVEN: tuple[float, ...] = (1.0,) * 24
MOST_WEIGHT, LEAST_WEIGHT = 1.35, 0.55  # of an hour of the day in choosing a moment; their mean is 1


def plan(grant: Grant, now: float, hours: Sequence[float] = EVEN) -> Plan:
    """What is next for one grant. With `at` at or before `now`, it is to be done now.

    `hours`: how likely each hour of the day (UTC) is chosen, of `quiet()`.
    """
    if grant.barred == "in_doubt":
        return Plan(now + DOUBT_S, "look", "in_doubt")  # its end is told; this is for one that is lost on the way
    if grant.barred is not None:
        return Plan(math.inf, "nothing", grant.barred)
    if not grant.can_renew:
        return Plan(math.inf, "nothing", "cannot_renew")
    if grant.ends_at is not None and grant.expires_at is not None and grant.expires_at >= grant.ends_at:
        return Plan(math.inf, "nothing", "hard_end")
    first = _ahead(grant, now, hours)
    if grant.keep_by is not None:
        window = _kept(grant, grant.keep_by)
        if window[0] < first.at:  # else it is not the first, whatever its moment
            at = moment(window, grant.chance, hours)
            first = first if first.at <= at else Plan(at, "renew", "keep_alive", window)
    if first.at < now - LATE_S:
        first = _late(first, grant, now, hours)
    if first.act == "renew" and grant.again_at is not None and grant.again_at > max(now, first.at):
        return Plan(grant.again_at, "renew", "backing_off", first.window)
    return first


def earliest(plans: Sequence[Plan]) -> Plan:
    """What is next for a connection, of the plans of its grants. Renewing goes before looking.

    Where nothing is, `unused` goes before other reasons: that one ends with the next use (`gateway.traffic` asks for it).
    """
    first = min(plans, key=_order, default=None)
    return Plan(math.inf, "nothing", "state") if first is None else first


def _order(plan: Plan) -> tuple[float, bool, bool]:
    return plan.at, plan.act != "renew", plan.reason != "unused"


def _ahead(grant: Grant, now: float, hours: Sequence[float]) -> Plan:
    expires_at = grant.expires_at
    if expires_at is None:
        return Plan(math.inf, "nothing", "no_expiry")
    life_s = max(expires_at - grant.issued_at, 1.0)
    reason: Reason
    needed_at = grant.needed_at
    if needed_at is not None and needed_at + NEED_MARGIN_S > expires_at:
        # In the window before it is needed; the end of the token comes too early by itself.
        reason, end = "subscription", max(min(needed_at, expires_at), now)
    elif grant.used_at is not None and now - grant.used_at <= _used_s(life_s):
        reason, end = "used", expires_at
        if now >= expires_at:
            return Plan(now, "renew", "overdue")
    else:
        return Plan(math.inf, "nothing", "unused")
    width_s = min(WINDOW_S, SHORT_SHARE * life_s)
    window = (end - width_s, end - min(MARGIN_SHARE * life_s, MOST_MARGIN_S))
    return Plan(moment(window, grant.chance, hours), "renew", reason, window)


def _kept(grant: Grant, keep_by: float) -> tuple[float, float]:
    """The last window for whoever uses it, and for whoever does not."""
    idle_s = max(keep_by - (grant.issued_at if grant.kept_since is None else grant.kept_since), 1.0)
    return keep_by - min(KEEP_SHARE * idle_s, MOST_KEEP_S), keep_by - min(
        KEEP_MARGIN_SHARE * idle_s, MOST_KEEP_MARGIN_S
    )


def _late(plan: Plan, grant: Grant, now: float, hours: Sequence[float]) -> Plan:
    """Its moment is past. Chosen anew once: `planned_at` tells the new moment from the old."""
    if plan.window is None or plan.window[1] - now < LATE_S:
        return plan
    planned_at = grant.planned_at
    if planned_at is not None and planned_at >= now - LATE_S:
        return plan if planned_at <= now else Plan(planned_at, plan.act, plan.reason, plan.window)
    window = (now, plan.window[1])
    # Another number of the same chance. Later rather than sooner: others have less time left.
    return Plan(moment(window, math.sqrt(grant.chance * 997.0 % 1.0), hours), plan.act, plan.reason, window)


def _used_s(life_s: float) -> float:
    return min(max(life_s, LEAST_USED_S), MOST_USED_S)


def moment(window: tuple[float, float], chance: float, hours: Sequence[float] = EVEN) -> float:
    """The moment in a window below which `chance` of it lies, each hour of the day counting by its weight."""
    start, end = window
    if end - start <= HOUR_S or hours is EVEN:  # within an hour there is nothing to choose
        return start + chance * (end - start)
    days, sought = divmod(chance * _weighed(start, end, hours), DAY_S)  # a whole day's weight is a day: the mean is 1
    at = start + days * DAY_S
    while True:
        step = min(_next_hour(at), end)
        weight = hours[int(at // HOUR_S) % 24]
        here = (step - at) * weight
        if here >= sought or step >= end:
            return min(at + sought / weight, end)
        sought, at = sought - here, step


def _weighed(start: float, end: float, hours: Sequence[float]) -> float:
    """The seconds of a window, each counting by its hour's weight. Whole days count as they are: the mean is 1."""
    days = math.floor((end - start) / DAY_S)
    total, at = days * DAY_S, start + days * DAY_S
    while at < end:
        step = min(_next_hour(at), end)
        total, at = total + (step - at) * hours[int(at // HOUR_S) % 24], step
    return total


def _next_hour(at: float) -> float:
    return (math.floor(at / HOUR_S) + 1) * HOUR_S


def quiet(traffic: Sequence[float]) -> tuple[float, ...]:
    """How likely each hour of the day is chosen, from the traffic in it (24 numbers of any unit): less where there is more.

    Bounded, so that what is moved into the quiet hours makes no heap there. The mean is 1.
    """
    total = sum(traffic)
    if total <= 0:
        return EVEN
    mean = total / 24
    weights = [1 / (0.5 + of / mean) for of in traffic]
    for _ in range(8):  # scaled to the mean and bounded, which moves the mean: a few rounds settle both
        scale = 24 / sum(weights)
        weights = [min(max(weight * scale, LEAST_WEIGHT), MOST_WEIGHT) for weight in weights]
    return tuple(weights)
