"""The generator of a fleet: tenants, their connections, and when each is used. Chance is seeded, and is all there is.

A connection is one of three for the whole run: called by a job at a fixed step (day and night), used by people (who come on
some days, for one session within the working day of their tenant, and call at moments that chance picks), or not used at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from subscriptions.policy import DAY_S, HOUR_S
from subscriptions.simulate.fleet import Fleet, Provider, Usage
from subscriptions.simulate.uses import Every, Listed, Never, Uses

DAYS_BEFORE = 5  # people's past that is drawn too, so that the first morning is like any other
Hours = list[float]


@dataclass(slots=True)
class Connection:
    """One connection of a tenant."""

    provider: int  # its place in the fleet's list
    uses: Uses
    luck: float  # 0 to 1: how far its token's life has gone when the run begins


@dataclass(slots=True)
class Tenant:
    """One tenant: its connections, and its traffic a day and hour (UTC) by provider, for the quiet hours."""

    utc_offset_h: float
    connections: list[Connection] = field(default_factory=list)
    traffic: dict[int, list[Hours]] = field(default_factory=dict)  # of each day of the run


def tenants(fleet: Fleet, connections: int, chance: Random) -> Iterator[Tenant]:
    """Tenants with so many connections together: few big ones, many small ones."""
    left = connections
    zones = [zone.share for zone in fleet.tenants.zones]
    shares = [one.share for one in fleet.providers]
    which = range(len(fleet.providers))
    while left > 0:
        size = min(left, max(1, round(fleet.tenants.connections * chance.expovariate(1))))
        tenant = Tenant(chance.choices(fleet.tenants.zones, zones)[0].utc_offset_h)
        for provider in chance.choices(which, shares, k=size):
            uses = _uses(fleet, fleet.providers[provider], tenant, provider, chance)
            tenant.connections.append(Connection(provider, uses, chance.random()))
        left -= size
        yield tenant


def _uses(fleet: Fleet, provider: Provider, tenant: Tenant, place: int, chance: Random) -> Uses:
    usage = fleet.usages[provider.usage]
    kind = chance.random()
    if kind < usage.scheduled:
        step = chance.uniform(*usage.every_s)
        for day in _traffic(tenant, place, fleet.days):
            for hour in range(24):
                day[hour] += HOUR_S / step
        return Every(chance.random() * step, step)
    if kind < usage.scheduled + usage.people:
        return _people(fleet, usage, tenant, place, chance)
    return Never()


def _people(fleet: Fleet, usage: Usage, tenant: Tenant, place: int, chance: Random) -> Uses:
    """Sessions of the run's days and of some before it."""
    draw = chance.random
    opens, closes = (hour * HOUR_S for hour in fleet.tenants.workday_h)
    traffic = _traffic(tenant, place, fleet.days)
    moments: list[float] = []
    for day in range(-DAYS_BEFORE, fleet.days + 1):
        if draw() >= (usage.come_weekends if day % 7 >= 5 else usage.come):
            continue
        length = min(chance.uniform(*usage.session_s), closes - opens)
        begins = opens + draw() * (closes - opens - length)
        start = day * DAY_S + begins - tenant.utc_offset_h * HOUR_S
        calls = round(chance.uniform(*usage.calls))
        moments += [start + draw() * length for _ in range(calls)]
        _spread(traffic, start, length, calls)
    return Listed(moments)


def _spread(traffic: list[Hours], start: float, length: float, calls: int) -> None:
    """A session's calls to the hours it lies in."""
    at, end = start, start + length
    while at < end:
        step = min((at // HOUR_S + 1) * HOUR_S, end)
        day, hour = divmod(int(at // HOUR_S), 24)
        if 0 <= day < len(traffic):
            traffic[day][hour] += calls * (step - at) / length
        at = step


def _traffic(tenant: Tenant, place: int, days: int) -> list[Hours]:
    known = tenant.traffic.get(place)
    if known is None:
        known = tenant.traffic[place] = [[0.0] * 24 for _ in range(days)]
    return known
