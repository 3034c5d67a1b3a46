"""Why a connection is renewed when it is: the plan of each of its grants, made anew by the policy, in sentences.

Nothing here decides: it reads what the scheduler reads, and asks the policy what the scheduler asks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway import exchange, ids
from gateway.breakers import store as breakers
from gateway.breakers.ways import way_of
from gateway.catalog import Integration
from gateway.connections import conditions
from gateway.connections.store import Connection
from gateway.regions import Region
from gateway.service import Gateway
from subscriptions import facts, store
from subscriptions.facts import Known
from subscriptions.hours import QuietHours
from subscriptions.policy import EVEN
from subscriptions.sentences import at_time, between, maybe, of_grant, shown, spans
from subscriptions.store import ASKED

QUIET = 1.0  # an hour that is likelier than this is a quiet one


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantPlan:
    """What is next for one grant, and why."""

    access_profile: str
    state: str
    act: str  # renew, look, nothing
    reason: str
    at: datetime | None
    window: tuple[datetime, datetime] | None
    expires_at: datetime | None
    keep_by: datetime | None
    ends_at: datetime | None
    last_error: str | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What is in the way of its provider's token calls just now."""

    why: str
    code: str | None
    since: datetime | None
    until: datetime | None  # when one call is tried
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What will happen to a connection's tokens, when and why. Times UTC, of the region's clock."""

    connection: str
    tenant: str
    integration: str | None
    provider: str | None
    state: str
    now: datetime
    act: str
    reason: str
    at: datetime | None  # None: nothing until something changes
    under_way: bool
    tries: int
    last_error: str | None
    used_at: datetime | None
    quiet_hours: tuple[int, ...]  # UTC; none: nothing is known of its traffic
    grants: tuple[GrantPlan, ...]
    obstacles: tuple[Obstacle, ...]
    calls_per_s: float | None  # to its provider at the most, by all processes together

    @property
    def sentences(self) -> list[str]:
        """All of it, for people."""
        where = "an integration that is gone" if self.integration is None else f"{self.integration} ({self.provider})"
        used = "never since it is watched" if self.used_at is None else f"{between(self.used_at, self.now)} ago"
        lines = [
            f"{self.connection} of tenant {self.tenant} at {where} is {self.state}. Its tokens were last read {used}."
        ]
        lines.append(self._next())
        if self.tries:
            lines.append(
                f"It has failed {self.tries} {'time' if self.tries == 1 else 'times'} in a row: {self.last_error}."
            )
        lines += [f"{one.access_profile}: {one.sentence}" for one in self.grants]
        if self.quiet_hours:
            lines.append(
                f"Quiet hours (UTC), learnt from this tenant's traffic and everybody's: {spans(self.quiet_hours)}."
            )
        else:
            lines.append("No quiet hours: nothing is known of its traffic yet, so every hour is as good as another.")
        if self.calls_per_s is not None:
            lines.append(
                f"{self.provider} is called {self.calls_per_s:g} times a second at the most, by all processes together."
            )
        return lines + [one.sentence for one in self.obstacles]

    def _next(self) -> str:
        if self.under_way:
            return "A process is at it now."
        if self.at is None:
            return "Nothing is planned until something changes."
        when = "Now" if self.at <= self.now else f"At {shown(self.at)}, in {between(self.now, self.at)},"
        if self.act == "renew":
            return f"{when} it is renewed." if self.reason != ASKED else "It is renewed now: somebody asked for it."
        if self.reason == "changed":
            return f"{when} it is looked at: by then it is known whether anybody uses it."
        return f"{when} it is looked at again."


async def explain(gateway: Gateway, region: Region, connection: Connection) -> Explained:
    """What will happen to this connection, and why.    Raises: Unavailable."""
    database = region.database
    integration = gateway.catalog.integration_by_id(connection.integration_id)
    row = await store.row(database, connection.id)
    now_s = await store.now(database)
    known = (await facts.read(database, [connection.id])).get(connection.id, [])
    turn = (connection.integration_id, connection.tenant_id)
    hours = (await QuietHours(gateway.clock).of(database, [turn]))[turn]
    usable = integration is not None and integration.trouble is None
    planned_at = row.due_at.timestamp() if row is not None and row.act == "renew" and row.due_at is not None else None
    return Explained(
        connection=ids.show(ids.CONNECTION, connection.id), tenant=connection.tenant_id,
        integration=None if integration is None else integration.name,
        provider=None if integration is None else integration.provider.facts.name,
        state=connection.state, now=at_time(now_s),
        act="nothing" if row is None or row.due_at is None else row.act,
        reason="state" if row is None else row.reason,
        at=None if row is None else row.due_at, under_way=row is not None and row.leased,
        tries=0 if row is None else row.tries, last_error=None if row is None else row.last_error,
        used_at=None if row is None else row.used_at,
        quiet_hours=() if hours == EVEN else tuple(hour for hour in range(24) if hours[hour] > QUIET),
        grants=tuple(_plans(known, integration, now_s, hours, planned_at)) if usable and integration is not None else (),
        obstacles=tuple(await _obstacles(region, integration)), calls_per_s=_budget(gateway, integration),
    )  # fmt: skip


def _plans(
    known: Sequence[Known], integration: Integration, now: float, hours: Sequence[float], planned_at: float | None
) -> list[GrantPlan]:  # fmt: skip
    its = exchange.facts_of(integration)
    told = []
    for one, plan in facts.plans(known, its, now, hours, planned_at):
        grant = facts.as_grant(one, its)
        told.append(GrantPlan(
            access_profile=one.grant.access_profile, state=one.grant.state, act=plan.act, reason=plan.reason,
            at=maybe(plan.at), window=None if plan.window is None else (at_time(plan.window[0]), at_time(plan.window[1])),
            expires_at=one.grant.expires_at, keep_by=maybe(grant.keep_by), ends_at=maybe(grant.ends_at),
            last_error=one.extra.last_error, sentence=of_grant(one, grant, plan, now),
        ))  # fmt: skip
    return told


async def _obstacles(region: Region, integration: Integration | None) -> list[Obstacle]:
    if integration is None:
        return [_obstacle("misconfigured", "Its integration is gone: nothing is renewed.", "integration_gone")]
    if integration.trouble is not None:
        said = f"Its integration cannot be used, so nothing is renewed: {integration.trouble}."
        return [_obstacle("misconfigured", said, "integration_unusable")]
    way = way_of(integration, "token")
    scopes = {way.failing, way.limited, way.misconfigured}
    words = {
        "failing": f"{way.host} gives no usable answers to token calls",
        "limited": f"{way.host} has asked us to wait",
        "misconfigured": f"{way.provider} refuses the integration itself",
    }
    found = []
    for one in await breakers.all_open(region.database):
        if one.scope in scopes:
            code = "" if one.code is None else f" ({one.code})"
            said = f"In the way: {words[one.why]}{code}, since {shown(one.since)}; one call is tried at {shown(one.canary_at)}."
            found.append(Obstacle(why=one.why, code=one.code, since=one.since, until=one.canary_at, sentence=said))
    for condition in await conditions.all_of(region.database):
        if condition.provider == integration.condition and condition.degraded_since is not None:
            said = (
                f"In the way: {condition.provider} calls everybody's grants dead since {shown(condition.degraded_since)}, "
                f"which nobody believes; checks find out when it is well."
            )
            found.append(Obstacle(
                why="guarded", code=condition.error_class, since=condition.degraded_since, until=None, sentence=said
            ))  # fmt: skip
    return found


def _budget(gateway: Gateway, integration: Integration | None) -> float | None:
    if integration is None:
        return None
    settings = gateway.settings
    return settings.provider_calls_per_s.get(integration.provider.facts.name, settings.calls_per_s)


def _obstacle(why: str, sentence: str, code: str) -> Obstacle:
    return Obstacle(why=why, code=code, since=None, until=None, sentence=sentence)
