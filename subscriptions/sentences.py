"""Words for what is planned: times, spans, and the reason of each plan. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from subscriptions import policy
from subscriptions.facts import Known
from subscriptions.policy import Plan


def of_grant(known: Known, grant: policy.Grant, plan: Plan, now: float) -> str:
    """What is next for a grant, and why; `known` is it, `grant` what the policy saw of it."""
    why = {
        "used": "it was used within its last life, so it will be again",
        "subscription": "a subscription falls due, and its token would be over by then",
        "keep_alive": f"its refresh token dies of idleness on {shown(maybe(grant.keep_by))} unless it is used",
        "overdue": "it ran out while it was in use",
        "unused": "nobody uses it, and whoever does will refresh it",
        "no_expiry": "its access token does not expire",
        "cannot_renew": "it has no refresh token, and nothing mints it",
        "hard_end": f"nothing prolongs it beyond {shown(maybe(grant.ends_at))}, only a reconnect does",
        "state": f"no token is handed out of a grant that is {known.grant.state}",
        "held": "it is held before a cut-over",
        "restored": "it came out of a backup (`posthouse restored --release` lets it go on)",
        "in_doubt": "a check is to decide whether it lives",
        "backing_off": f"the last try failed ({known.extra.last_error or 'no answer'})",
    }[plan.reason]
    end = "" if known.grant.expires_at is None else f" Its access token expires at {shown(known.grant.expires_at)}."
    if plan.act == "nothing" or math.isinf(plan.at):
        return f"not renewed ahead: {why} ({plan.reason}).{end}"
    if plan.act == "look":
        return f"not renewed now: {why} ({plan.reason}).{end}"
    if plan.at <= now:
        return f"renewed now: {why} ({plan.reason}).{end}"
    within = ""
    if plan.window is not None:
        within = f", a moment between {shown(at_time(plan.window[0]))} and {shown(at_time(plan.window[1]))}"
    return f"renewed at {shown(at_time(plan.at))}{within}: {why} ({plan.reason}).{end}"


def at_time(seconds: float) -> datetime:
    """Of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def maybe(seconds: float | None) -> datetime | None:
    """None: it does not come."""
    return None if seconds is None or math.isinf(seconds) else at_time(seconds)


def shown(at: datetime | None) -> str:
    """To the second, UTC."""
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def between(before: datetime, after: datetime) -> str:
    """How long between them, in the two largest units."""
    left = max(int((after - before).total_seconds()), 0)
    parts: list[str] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or (name == "s" and not parts):
            parts.append(f"{number} {name}")
    return " ".join(parts[:2])


def spans(hours: Sequence[int]) -> str:
    """Hours of the day as spans: `0-5, 22-23`."""
    spans: list[list[int]] = []
    for hour in sorted(hours):
        if spans and hour == spans[-1][1] + 1:
            spans[-1][1] = hour
        else:
            spans.append([hour, hour])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
