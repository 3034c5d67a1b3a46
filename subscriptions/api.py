"""Renewals over HTTP: why a connection is renewed when it is, and what the coming day brings. This package's own routes."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gateway import ids
from gateway.errors import Conflict, NotFound
from gateway.service import Gateway
from gateway.web.connections import locate
from gateway.web.routing import Answer, Call, NoQuery, Route
from subscriptions import explain, outlook, store

REASONS = (
    "`used` within its last life; `subscription` falls due; `keep_alive`: the refresh token would die of idleness; `overdue`: "
    "it ran out while it was in use; `unused`: refreshed on use; `no_expiry`; `cannot_renew`; `hard_end`: only a reconnect "
    "prolongs it; `state`: none in which tokens are handed out; `held`; `restored`; `in_doubt`: a check decides; "
    "`backing_off`: the last try failed; of the connection also `changed`: something did, and it is looked at; `asked`: somebody wants it renewed now"
)


class Window(Answer):
    """That a moment is chosen from."""

    begins_at: datetime
    ends_at: datetime


class GrantRenewal(Answer):
    """What is next for one grant."""

    state: str
    act: str = Field(description="`renew`, `look` or `nothing`")
    reason: str = Field(description=REASONS)
    at: datetime | None = Field(description="null: not until something changes")
    window: Window | None
    expires_at: datetime | None = Field(description="the access token; null: it does not, or there is none")
    keep_by: datetime | None = Field(description="the refresh token dies then, unless it is used before")
    ends_at: datetime | None = Field(description="whatever is done: only a reconnect prolongs it")
    last_error: str | None = Field(description="of its last refresh, as long as none has passed since")
    sentence: str


class Obstacle(Answer):
    """Why its provider's token endpoint is not called just now."""

    why: str = Field(description="`failing`, `limited`, `misconfigured` or `guarded`")
    code: str | None
    since: datetime | None
    until: datetime | None = Field(description="when one call is tried")
    sentence: str


class Renewal(Answer):
    """What will happen to a connection's tokens, when and why."""

    connection: str
    act: str = Field(description="`renew`, `look` or `nothing`")
    reason: str = Field(description=REASONS)
    at: datetime | None = Field(description="null: not until something changes")
    under_way: bool
    tries: int = Field(description="that failed, one after the other")
    last_error: str | None
    used_at: datetime | None = Field(description="when a token was last read, to a few minutes")
    quiet_hours: list[int] = Field(description="of the day, UTC; empty: nothing is known of its traffic")
    access_profiles: dict[str, GrantRenewal]
    obstacles: list[Obstacle]
    calls_per_s: float | None = Field(description="to its provider at the most, by all processes together")
    sentences: list[str] = Field(description="all of it, for people")


class ProviderDay(Answer):
    """One provider's coming day."""

    provider: str
    renewals: list[int] = Field(description="that fall due in each slot from now on")
    looks: int = Field(description="connections that are looked at meanwhile: whether they are renewed is seen then")
    overdue: int = Field(description="due already")


class RenewalPlan(Answer):
    """The coming day as it is planned now: each connection's next renewal, once."""

    begins_at: datetime
    slot_s: int
    providers: list[ProviderDay]


async def show(gateway: Gateway, call: Call[None, NoQuery]) -> Renewal:
    """When its tokens are renewed next, and why then: by use, window, quiet hours, and what is in the way."""
    region, connection = await locate(gateway, call.id("connection_id", ids.CONNECTION))
    told = await explain.explain(gateway, region, connection)
    return Renewal(
        connection=told.connection, act=told.act, reason=told.reason, at=told.at, under_way=told.under_way,
        tries=told.tries, last_error=told.last_error, used_at=told.used_at, quiet_hours=list(told.quiet_hours),
        access_profiles={one.access_profile: _grant(one) for one in told.grants},
        obstacles=[
            Obstacle(why=one.why, code=one.code, since=one.since, until=one.until, sentence=one.sentence)
            for one in told.obstacles
        ],
        calls_per_s=told.calls_per_s, sentences=told.sentences,
    )  # fmt: skip


def _grant(one: explain.GrantPlan) -> GrantRenewal:
    window = None if one.window is None else Window(begins_at=one.window[0], ends_at=one.window[1])
    return GrantRenewal(
        state=one.state, act=one.act, reason=one.reason, at=one.at, window=window, expires_at=one.expires_at,
        keep_by=one.keep_by, ends_at=one.ends_at, last_error=one.last_error, sentence=one.sentence,
    )  # fmt: skip


async def plan(gateway: Gateway, call: Call[None, NoQuery]) -> RenewalPlan:
    """How many renewals fall due when in the coming 24 hours, by provider. It counts every connection: ask seldom."""
    found = await outlook.outlook(gateway.regions, gateway.catalog)
    return RenewalPlan(
        begins_at=found.begins, slot_s=int(outlook.SLOT_S),
        providers=[
            ProviderDay(provider=one.name, renewals=one.renewals, looks=one.looks, overdue=one.overdue)
            for one in found.providers
        ],
    )  # fmt: skip


async def now(gateway: Gateway, call: Call[None, NoQuery]) -> Renewal:
    """Have its tokens renewed now, whatever the plan says. It is done within seconds; ask when it was by `GET`.

    Nothing is sent for grants that are in doubt, held, set aside by a restore, or that only a reconnect prolongs.
    """
    region, connection = await locate(gateway, call.id("connection_id", ids.CONNECTION))
    if not await store.ask(region.database, connection.id):
        raise Conflict("It has no tokens that could be renewed.")
    return await show(gateway, call)


ROUTES = [
    Route(
        "GET", "/v1/connections/{connection_id}/renewal", "connections:read", show,
        "When a connection is renewed, and why", answer=Renewal, errors=(NotFound,),
    ),
    Route(
        "POST", "/v1/connections/{connection_id}/renewal", "connections:write", now, "Renew a connection now",
        answer=Renewal, status=202, errors=(NotFound, Conflict),
    ),
    Route("GET", "/v1/renewals/plan", "connections:read", plan, "The coming day's renewals", answer=RenewalPlan),
]  # fmt: skip
