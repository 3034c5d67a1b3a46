"""This product: `subscriptions.policy.plan` decides about every token, asked when the scheduler would ask it.

A new token is looked at after half of its life, when it is known whether it is used (gateway/connections/renewals.py); again
at the moment that was chosen; and when somebody uses what nobody was thought to use. What readers do is known a minute later.
The scheduler leaves a fifth of a provider's rate to readers. Quiet hours are learnt from the traffic of the days before.

In an outage the breaker lets a call through now and then for the whole fleet (gateway/breakers); what falls due meanwhile
is planned anew when it closes. A reader whose token is over is told so at once, and his asking counts as use.
"""

from __future__ import annotations

import math
from random import Random

from gateway.traffic import EVERY_S as KNOWN_S
from gateway.traffic import HALF_LIFE_S
from subscriptions import policy
from subscriptions.hours import quiet
from subscriptions.policy import DAY_S, HOUR_S, Grant, Plan
from subscriptions.simulate.fleet import Fleet
from subscriptions.simulate.people import Connection, Hours, Tenant
from subscriptions.simulate.provider import Minutes
from subscriptions.simulate.tally import ANSWER_S, QUARTER_S, TTL_S, Tally
from subscriptions.simulate.uses import Never, Uses

AHEAD = 0.8  # of the rate, for renewals ahead
TRIPS_S = 2.0  # calls fail so long until the breaker opens
CANARY_S = 8.0  # between canaries, in the mean: up to 15 s with full jitter
CLOSES_S = 18.0  # after the provider is back: the next canary, and three that pass


class Hybrid:
    """All connections of a part of the fleet, tenant by tenant."""

    def __init__(self, fleet: Fleet, tally: Tally, chance: Random) -> None:
        self._fleet, self._tally, self._end = fleet, tally, fleet.days * DAY_S
        self._draw = chance.random
        self._all: dict[int, list[Hours]] = {}  # traffic of each provider: of all tenants so far
        self._quiet: dict[int, list[tuple[float, ...]]] = {}
        self._ahead = [max(1, int(AHEAD * one.limit)) for one in tally.providers]

    def meet(self, tenant: Tenant) -> None:
        """Its connections come next."""
        self._quiet = {}
        for place, days in tenant.traffic.items():
            everybody = self._all.setdefault(place, [[0.0] * 24 for _ in days])
            for day, hours in enumerate(days):
                everybody[day] = [a + b for a, b in zip(everybody[day], hours, strict=True)]
            self._quiet[place] = [quiet(known(days[:day]), known(everybody[:day])) for day in range(len(days))]

    def live(self, connection: Connection) -> None:
        """One connection's run: from one look of the scheduler, or one reader who finds the token over, to the next."""
        place, uses, end, tally = connection.provider, connection.uses, self._end, self._tally
        told, minutes, ahead = self._fleet.providers[place], tally.providers[place], self._ahead[place]
        hours = self._quiet.get(place) or [policy.EVEN] * self._fleet.days
        life, idle, draw = told.access_life_s, told.refresh_idle_s, self._draw
        ttl = min(TTL_S, life / 2)
        grant = start(uses, life, idle, connection.luck, draw())
        asked, over = 0, end

        def ask(now: float) -> Plan:
            nonlocal asked
            asked += 1
            grant.used_at = uses.before(now - KNOWN_S + 0.001)
            return policy.plan(grant, now, hours[int(now // DAY_S)])

        at = 0.0  # the next look
        need = uses.after(max(at, grant.issued_at + life - ttl))  # the next reader who finds it over
        while at < end:
            chosen, when = ask(at), math.inf
            if chosen.act == "renew":
                grant.planned_at = due = max(chosen.at, at)
                when = minutes.room(due if minutes.back(due) == due else self._shut(minutes, due), ahead)
            elif (use := uses.after(at)) < need:
                at = use + KNOWN_S  # it is planned anew when that is known
                continue
            first = min(when, need)
            if grant.keep_by is not None and grant.keep_by < min(first, end):
                over = max(grant.keep_by, 0.0)
                tally.lose(over)
                break
            if first >= end:
                break
            if need < when:
                if minutes.back(need) > need:
                    at = self._refused(uses, minutes, need, grant.issued_at + life)
                    need = uses.after(at)
                    continue
                ready = self._on_use(uses, minutes, need)
            else:
                if when > at:  # asked again when it is due
                    at, chosen = when, ask(when)
                    if chosen.act != "renew" or chosen.at > when:
                        continue
                ready = when
                self._ahead_of(chosen, ready)
            minutes.call(ready)
            grant.issued_at, grant.expires_at, grant.planned_at, grant.chance = ready, ready + life, None, draw()
            if idle is not None:
                grant.kept_since, grant.keep_by = ready, ready + idle
            at, need = ready + life / 2, uses.after(ready + life - ttl)
        tally.users += uses.count(0.0, over)
        tally.decisions += asked

    def _shut(self, minutes: Minutes, due: float) -> float:
        """It falls due in an outage: tried in vain at its begin, not at all later. Returns when the breaker has closed."""
        began = minutes.outage(due)
        if began is not None and due < began[0] + TRIPS_S:
            minutes.fail(due)
        return minutes.back(due) + CLOSES_S

    def _refused(self, uses: Uses, minutes: Minutes, need: float, expires_at: float) -> float:
        """Readers get no token from its expiry on, until the breaker has closed; returns that moment."""
        closed = minutes.back(need) + CLOSES_S
        self._tally.unserved += uses.count(max(need, expires_at), min(closed, self._end))
        return closed

    def _on_use(self, uses: Uses, minutes: Minutes, need: float) -> float:
        """A reader found it over, and waits; who comes within the second as well. Returns when the new one came."""
        ready = minutes.room(need, minutes.limit)
        self._tally.wait(need, 1 + uses.count(need + 0.001, ready + ANSWER_S))
        self._tally.reasons["on_use"] += 1
        return ready

    def _ahead_of(self, chosen: Plan, at: float) -> None:
        """It is renewed as planned."""
        self._tally.reasons[chosen.reason] += 1
        window = chosen.window
        if window is not None and window[1] - window[0] >= HOUR_S:
            self._tally.movable[int(at // QUARTER_S)] += 1


def start(uses: Uses, life: float, idle: float | None, luck: float, chance: float) -> Grant:
    """A grant as it stands when the policy has long been at work: its token is as old as `luck` says, of what it lets it become."""
    grant = Grant(0.0, life, used_at=None if isinstance(uses, Never) else 0.0, chance=chance)
    if idle is not None:
        grant.keep_by = idle
    becomes = policy.plan(grant, 0.0).at
    age = luck * (becomes if math.isfinite(becomes) else life)
    used = uses.before(0.0)
    if used is not None and life <= 2 * HOUR_S:  # its user's last session may be long ago …
        age = max(age, -used - luck * life)
    if idle is not None:  # … and it was kept alive since
        grant.used_at = None
        age %= policy.plan(grant, 0.0).at
    grant.issued_at, grant.expires_at = -age, life - age
    if idle is not None:
        grant.kept_since, grant.keep_by = -age, idle - age
    return grant


def known(days: list[Hours]) -> Hours:
    """What `gateway.traffic` knows of the hours of the day after these days."""
    weights = [0.5 ** ((len(days) - day) * DAY_S / HALF_LIFE_S) for day in range(len(days))]
    return [sum(w * day[hour] for w, day in zip(weights, days, strict=True)) for hour in range(24)]


def canaries(fleet: Fleet, tally: Tally) -> None:
    """One at a time for the whole fleet, while a provider is down."""
    for minutes in tally.providers:
        for minute in range(minutes.minutes):
            if minutes.back(minute * 60.0) > minute * 60.0:
                minutes.failed[minute] += round(60 / CANARY_S)
