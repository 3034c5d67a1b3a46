"""How providers are: failures that would end grants are counted here, and the guard's verdict is kept (one row a provider).

Whoever counts holds the provider's row until its transaction ends, so failures of one provider come one after the other and
it trips once. Order of locks: connections, then this row, then the log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from gateway.connections import checks, guard
from gateway.connections.guard import LIMITS, Counts, Limits
from gateway.database import Database, Db
from gateway.stream.append import NewEvent, append

# refused: the token endpoint calls a refresh token dead; rejected: the API refuses an access token that ought to be
# good; odd, odd_api: an answer of either that is none of the provider's (an HTML page with status 200).
ErrorClass = Literal["refused", "rejected", "odd", "odd_api"]
BY_TOKENS = ("refused", "odd")  # what only its token endpoint can make good

EVENT_WINDOW_S = 3600


@dataclass(frozen=True, slots=True)
class Condition:
    """How a provider is in this region."""

    provider: str
    degraded_since: datetime | None
    error_class: ErrorClass | None
    failures: int
    passed: int
    waiting: int  # grants to be checked again once it is well


@dataclass(frozen=True, slots=True)
class Counted:
    """Whether a failure moves no connection, and what is to be said on the stream of it."""

    guarded: bool
    event: NewEvent | None = None


MAKE = "INSERT INTO gateway.provider_conditions (provider) VALUES ($1) ON CONFLICT DO NOTHING"
LOCK = """SELECT degraded_since, passed, error_class, canary_at <= gateway.now() AS due
            FROM gateway.provider_conditions WHERE provider = $1 FOR UPDATE"""
ADD = """INSERT INTO gateway.provider_failures (provider, error_class, at, tenant_id, connection_id)
         VALUES ($1, $2, gateway.now(), $3, $4)"""
# Connections, not failures: one dead token that is reported a thousand times makes nothing usual. What came while
# the guard held was not kept: canaries that find dead grants would trip it anew for as long as there are any. The clock in a subquery: it
# is asked once then, not for each row, and the index is of use. Whoever asks holds everybody up.
IN_WINDOW = """
SELECT count(DISTINCT connection_id) AS connections, count(DISTINCT tenant_id) AS tenants FROM gateway.provider_failures
 WHERE provider = $1 AND error_class = $2 AND at > (SELECT gateway.now() - make_interval(secs => $3))"""
BEFORE = """
SELECT count(DISTINCT connection_id) FROM gateway.provider_failures
 WHERE provider = $1 AND error_class = $2 AND at <= (SELECT gateway.now() - make_interval(secs => $3))
   AND at > (SELECT gateway.now() - make_interval(secs => $4))"""
DEGRADE = """UPDATE gateway.provider_conditions SET degraded_since = gateway.now(), error_class = $2, failures = 1, passed = 0,
                    canary_at = gateway.now() + make_interval(secs => $3) WHERE provider = $1 RETURNING degraded_since"""
WORSE = "UPDATE gateway.provider_conditions SET failures = failures + 1, passed = 0 WHERE provider = $1"
DEGRADED = """SELECT true FROM gateway.provider_conditions WHERE provider = $1 AND degraded_since IS NOT NULL
                 AND (NOT $2 OR canary_at <= gateway.now())"""
WAITING = "SELECT EXISTS (SELECT FROM gateway.grant_checks WHERE provider = $1 AND waits)"
HOW_MANY = "SELECT count(*) FROM gateway.grant_checks WHERE provider = $1 AND waits"
PASS = "UPDATE gateway.provider_conditions SET passed = passed + 1 WHERE provider = $1"
TURN = """UPDATE gateway.provider_conditions SET canary_at = gateway.now() + make_interval(secs => $2)
           WHERE provider = $1 AND degraded_since IS NOT NULL AND canary_at <= gateway.now() + make_interval(secs => $2 / 2)
       RETURNING true"""
NEXT = (
    "UPDATE gateway.provider_conditions SET canary_at = gateway.now() + make_interval(secs => $2) WHERE provider = $1"
)
RECOVER = """UPDATE gateway.provider_conditions SET degraded_since = NULL, error_class = NULL, passed = 0 WHERE provider = $1
             RETURNING failures, gateway.now() AS at"""
ALL = """SELECT provider, degraded_since, error_class, failures, passed,
                (SELECT count(*) FROM gateway.grant_checks k WHERE k.provider = c.provider AND k.waits) AS waiting
           FROM gateway.provider_conditions c ORDER BY provider"""
TELL = "SELECT pg_notify('posthouse_breakers', '')"  # every process makes or leaves its calls accordingly
FORGET = "DELETE FROM gateway.provider_failures WHERE at < (SELECT gateway.now()) - make_interval(secs => $1)"


async def failed(
    tx: Db, provider: str, error_class: ErrorClass, tenant: str, connection: UUID, event_id: UUID,
    limits: Limits = LIMITS,
) -> Counted:  # fmt: skip
    """Count a failure. The caller says `event`, if there is one, in this transaction's append."""
    await tx.execute(MAKE, provider)
    row = await tx.fetchrow(LOCK, provider)
    assert row is not None
    if row["degraded_since"] is not None:  # counted, not kept: an outage has no end of them
        await tx.execute(WORSE, provider)
        return Counted(True)
    await tx.execute(ADD, provider, error_class, tenant, connection)
    counts = await _counts(tx, provider, error_class, limits)
    if not guard.tripped(counts, limits):
        return Counted(False)
    since = await tx.fetchval(DEGRADE, provider, error_class, limits.canary_s)
    await tx.execute(TELL)
    said = {"error_class": error_class, "connections": counts.connections, "tenants": counts.tenants, "since": since}
    return Counted(True, event("degraded", provider, event_id, since, said))


async def _counts(tx: Db, provider: str, error_class: ErrorClass, limits: Limits) -> Counts:
    """What is usual is counted only where it decides: a week's failures may be many."""
    seen = await tx.fetchrow(IN_WINDOW, provider, error_class, limits.window_s)
    assert seen is not None
    counts = Counts(seen["connections"], seen["tenants"], 0)
    if not guard.tripped(counts, limits):
        return counts
    before = await tx.fetchval(BEFORE, provider, error_class, limits.window_s, limits.usual_s)
    return replace(counts, before=before)


async def passed(
    tx: Db, provider: str, event_id: UUID, *, renewed: bool, limits: Limits = LIMITS
) -> NewEvent | None:  # fmt: skip
    """A grant was found alive; the event to say, if with that the provider is well again.

    `renewed`: by its token endpoint; a call that the API takes says nothing of one that refuses everybody. Where nothing
    waits there is nobody left to send as a canary, and one that passes is enough.
    """
    row = await tx.fetchrow(LOCK, provider)
    if row is None or row["degraded_since"] is None or (row["error_class"] in BY_TOKENS and not renewed):
        return None
    if not guard.released(row["passed"] + 1, limits) and await tx.fetchval(WAITING, provider):
        await tx.execute(PASS, provider)
        return None
    return await recover(tx, provider, row["degraded_since"], event_id)


async def well(
    database: Database, provider: str, new_id: Callable[[], UUID], *, renewed: bool, unasked: bool = False,
    limits: Limits = LIMITS,
) -> None:  # fmt: skip
    """`passed`, where the provider counts as unwell; and say it.    Raises: Unavailable.

    `unasked`: nobody doubted the grant, it was refreshed as always. That takes a canary's place, and its turn: while half of
    what is asked fails, three that succeed in a row are soon found.
    """
    if await database.fetchval(DEGRADED, provider, unasked):
        async with database.transaction() as tx:
            if unasked:
                row = await tx.fetchrow(LOCK, provider)
                if row is None or not row["due"]:
                    return
                await tx.execute(NEXT, provider, limits.canary_s)
            if (event := await passed(tx, provider, new_id(), renewed=renewed)) is not None:
                await append(tx, [event])


async def turn(tx: Db, provider: str, limits: Limits = LIMITS) -> bool:
    """Let an ordinary call go in the place of a canary, half a pause before one would.

    Canaries are taken from what waits, and all of that may be dead: the guard would hold for as long as there is any.
    """
    return bool(await tx.fetchval(TURN, provider, float(limits.canary_s)))


async def unwell(db: Db, provider: str) -> bool:
    """Does the guard hold at this provider?"""
    return bool(await db.fetchval(DEGRADED, provider, False))


async def recover(tx: Db, provider: str, since: datetime, event_id: UUID) -> NewEvent:
    """The provider is well: everything that waited for that is checked again."""
    row = await tx.fetchrow(RECOVER, provider)
    assert row is not None
    await tx.execute(TELL)
    await checks.release(tx, provider, guard.spread_s(await tx.fetchval(HOW_MANY, provider)))
    return event("recovered", provider, event_id, row["at"], {"since": since, "failures": row["failures"]})


async def release(tx: Db, provider: str, event_id: UUID) -> NewEvent | None:
    """On an operator's word; None: it is well."""
    row = await tx.fetchrow(LOCK, provider)
    if row is None or row["degraded_since"] is None:
        return None
    return await recover(tx, provider, row["degraded_since"], event_id)


async def released(database: Database, provider: str, event_id: UUID) -> bool:
    """`release`, and say so on the stream; False: it is well.    Raises: Unavailable."""
    async with database.transaction() as tx:
        event = await release(tx, provider, event_id)
        if event is not None:
            await append(tx, [event])
    return event is not None


async def all_of(db: Db) -> list[Condition]:
    """How every provider is that ever failed."""
    return [Condition(**dict(row)) for row in await db.fetch(ALL)]


async def forget(db: Db, limits: Limits = LIMITS) -> None:
    """Drop what no rate is taken from any more."""
    await db.execute(FORGET, limits.usual_s)


def event(name: str, provider: str, event_id: UUID, at: datetime, said: dict[str, Any]) -> NewEvent:
    """What the stream says of a provider: of no connection, for whoever sees them all."""
    return NewEvent(
        id=event_id, key=event_id, window_s=EVENT_WINDOW_S, type=f"posthouse.provider.{name}", time=at, integration=None,
        connection=None, accounts=(), drop_unmatched=False, signal=False, content_type="application/json", delivery=None,
        data=orjson.dumps({"provider": provider, **said}, option=orjson.OPT_UTC_Z),
    )  # fmt: skip
