"""What platform code says of a token: that a provider refused it. Evidence that asks for a check, never proof.

A report names the token version that was refused, so one about version 7 never touches version 8. What is known then:

| outcome      | what it means                                                                                  |
|--------------|------------------------------------------------------------------------------------------------|
| `stale`      | another token has taken its place: read the token again                                        |
| `works`      | the provider takes the token: it refused that call, not the token                              |
| `refreshed`  | a new token came: read the token again                                                         |
| `too_new`    | it came a moment ago and nothing can try it: a token is not renewed each time a call is refused |
| `suspect`    | the provider calls the grant dead; a second answer, later, decides                             |
| `not_issued` | the grant is in a state in which no token is handed out                                        |
| `unchecked`  | nothing could be found out just now                                                            |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from gateway.catalog import Catalog
from gateway.checking.checker import Checker, Verdict
from gateway.connections import grants, transitions
from gateway.connections.moves import Hint
from gateway.connections.states import ACTIONS, ISSUED, State
from gateway.connections.telling import Because
from gateway.database import Db
from gateway.errors import Invalid
from gateway.regions import Region
from gateway.tokens import problems
from gateway.tokens.rotation import REFUSED, REJECTED

FORBIDDEN = 403

Outcome = Literal["stale", "works", "refreshed", "too_new", "suspect", "not_issued", "unchecked"]
OUTCOMES: dict[Verdict, Outcome] = {"alive": "works", "refreshed": "refreshed", "too_new": "too_new"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One access token was refused by its provider."""

    connection: UUID
    access_profile: str | None  # None: the only one
    token_version: int
    status: int | None  # what the provider answered; 403 is about scopes
    actor: UUID


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it, and how the grant stands now."""

    outcome: Outcome
    grant: grants.Grant


class Reports:
    """The reports that reach one process."""

    def __init__(self, catalog: Catalog, checkers: Mapping[str, Checker], new_id: Callable[[], UUID]) -> None:
        self._catalog, self._checkers, self._new_id = catalog, checkers, new_id

    async def take(self, region: Region, report: Report) -> Told:
        """Check what is reported.    Raises: NotIssued (no such grant), Invalid (no such version), Unavailable."""
        profile = await _profile(region, report)
        stored = await _stored(region, report, profile)
        grant = stored.grant
        if report.token_version > grant.token_version:
            raise Invalid("There is no such token version yet.", errors=[])
        stale = report.token_version < grant.token_version
        await _note(region.database, report, stored, "signal.stale" if stale else "signal.token_rejected")
        if stale:
            return Told("stale", grant)
        if grant.state not in ISSUED:
            return Told("not_issued", grant)
        integration = self._catalog.integration_by_id(stored.integration_id)
        if integration is None or integration.trouble is not None:
            return Told("unchecked", grant)
        await self._ask(region, report, grant, integration.condition)
        verdict = await self._checkers[region.name].run(report.connection, profile)
        after = (await _stored(region, report, profile)).grant
        if after.token_version != grant.token_version:
            return Told("refreshed", after)
        if after.state not in ISSUED:
            return Told("not_issued", after)
        outcome = OUTCOMES.get(verdict, "unchecked")
        return Told("suspect" if after.reason in (REFUSED, REJECTED) else outcome, after)

    async def _ask(self, region: Region, report: Report, grant: grants.Grant, condition: str) -> None:
        """Evidence that asks for a check, and no more. A 403 is about what the token reaches."""
        scopes = report.status == FORBIDDEN
        hint = Hint(
            connection=report.connection, access_profile=grant.access_profile, provider=condition,
            because=Because(cause="scope_refused" if scopes else "token_rejected", source="report"),
            why="hint" if scopes else "rejected", signal="scopes_changed" if scopes else None,
        )  # fmt: skip
        async with region.database.transaction() as tx:
            await transitions.apply(tx, [], self._new_id, hints=[hint])


async def _profile(region: Region, report: Report) -> str:
    """The access profile that a report is about.    Raises: NotIssued."""
    held = await grants.of(region.database, [report.connection])
    names = [g.access_profile for g in held if report.access_profile in (None, g.access_profile)]
    if not names:
        raise problems.NoGrant(access_profile=report.access_profile, do="reconnect")
    if len(names) > 1:
        raise problems.AccessProfileNeeded(
            "The connection has several access profiles.", access_profiles=sorted(names), do="name_profile"
        )
    return names[0]


async def _stored(region: Region, report: Report, profile: str) -> grants.Stored:
    found = await grants.stored(region.database, report.connection, profile)
    if found is None:
        closed: State = "closed"
        raise problems.BY_STATE[closed](access_profile=profile, state=closed, do=ACTIONS[closed])
    return found


NOTE = """INSERT INTO gateway.audit (at, action, actor, tenant_id, connection_id, access_profile, generation, token_version)
          VALUES (gateway.now(), $1, $2, $3, $4, $5, $6, $7)"""


async def _note(db: Db, report: Report, stored: grants.Stored, action: str) -> None:
    await db.execute(
        NOTE, action, report.actor, stored.tenant, report.connection, stored.grant.access_profile,
        stored.grant.generation, report.token_version,
    )  # fmt: skip
