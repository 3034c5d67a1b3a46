"""The mass-failure guard: outage is not revocation. Pure; `conditions.py` feeds it.

A provider that is unwell calls live grants dead, all at once and everybody's. So when answers that would end grants exceed
what is usual, further ones go onto the provider's condition and move no connection, until canaries pass again. One tenant
alone cannot trip it: a customer who disconnects everything is no outage.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """When it trips, and what releases it. Windows in seconds."""

    window_s: int = 600
    usual_s: int = 7 * 24 * 3600  # over how long the usual rate is taken
    least: int = 5  # connections in a window that never trip it
    times: float = 5.0  # the usual rate
    tenants: int = 3
    canary_s: int = (
        5  # between two checks of a provider that is unwell: it is well within a quarter of a minute of its return
    )
    passes: int = 3  # canaries that must pass one after the other
    rechecks_per_s: float = 250.0  # of what waited, once it is well …
    least_spread_s: float = 10.0  # … but not at once …
    most_spread_s: float = 200.0  # … and within so long. What a provider takes a second is for its budget to say


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Counts:
    """What was seen at one provider of one class of error: connections and their tenants in the window, failures before."""

    connections: int
    tenants: int
    before: int  # connections from `usual_s` ago to the window's start


def tripped(counts: Counts, limits: Limits = LIMITS) -> bool:
    """More than max(least, times x the usual) connections in the window, of enough tenants?"""
    windows = max(limits.usual_s / limits.window_s - 1, 1)
    usual = counts.before / windows
    return counts.tenants >= limits.tenants and counts.connections > max(limits.least, limits.times * usual)


def released(passed: int, limits: Limits = LIMITS) -> bool:
    """Have enough canaries passed?"""
    return passed >= limits.passes


def spread_s(waiting: int, limits: Limits = LIMITS) -> float:
    """Over how long the checks that waited are spread, seconds, so that a provider that is well again is not run over."""
    return min(max(waiting / limits.rechecks_per_s, limits.least_spread_s), limits.most_spread_s)
