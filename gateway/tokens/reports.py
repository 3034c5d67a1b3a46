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

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from gateway.catalog import Catalog
from gateway.clock import Clock
from gateway.connections import grants
from gateway.connections.states import ISSUED, State
from gateway.database import Db
from gateway.errors import Invalid, Problem
from gateway.outbound import Outbound
from gateway.regions import Region
from gateway.tokens import problems, rotation
from gateway.tokens.refresh import Refresher
from gateway.tokens.rotation import REFUSED, REJECTED, Due
from gateway.vault.cipher import SealBroken
from providers.errors import GrantEnded, ProviderError, ScopeLacking

NEW_S = 60.0  # a token set younger than this is not renewed for a report that nothing confirms
FORBIDDEN = 403

Outcome = Literal["stale", "works", "refreshed", "too_new", "suspect", "not_issued", "unchecked"]
Probed = Literal["works", "dead", "undecided", "no_probe"]


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

    def __init__(
        self, catalog: Catalog, refresher: Refresher, outbound: Outbound, clock: Clock, public_url: str
    ) -> None:
        self._catalog, self._refresher, self._outbound = catalog, refresher, outbound
        self._clock, self._public_url = clock, public_url

    async def take(self, region: Region, report: Report) -> Told:
        """Check what is reported.    Raises: NotIssued (no such grant), Invalid (no such version), Unavailable."""
        profile = await _profile(region, report)
        stored = await _stored(region, report, profile)
        if report.token_version > stored.grant.token_version:
            raise Invalid("There is no such token version yet.", errors=[])
        stale = report.token_version < stored.grant.token_version
        await _note(region.database, report, stored, "signal.stale" if stale else "signal.token_rejected")
        if stale:
            return Told("stale", stored.grant)
        if stored.grant.state not in ISSUED:
            return Told("not_issued", stored.grant)
        outcome = await self._checked(region, report, stored)
        after = (await _stored(region, report, profile)).grant
        if after.token_version != stored.grant.token_version:
            return Told("refreshed", after)
        if after.state not in ISSUED:
            return Told("not_issued", after)
        return Told("suspect" if after.reason in (REFUSED, REJECTED) else outcome, after)

    async def _checked(self, region: Region, report: Report, stored: grants.Stored) -> Outcome:
        """Probe, and refresh where that could mend it."""
        integration = self._catalog.integration_by_id(stored.integration_id)
        if integration is None or integration.trouble is not None:
            return "unchecked"
        due = Due(region, integration, stored)
        probed: Probed = "no_probe" if report.status == FORBIDDEN else await self._probed(due)
        if probed == "undecided":
            return "unchecked"
        if probed == "works":
            if stored.grant.reason == REJECTED:
                await rotation.acquitted(due, self._clock.now())
            return "works"
        if probed == "dead" and not due.can_be_asked:
            await rotation.refused(due, self._clock.now(), REJECTED)
            return "unchecked"  # whoever called reads the new state
        if probed == "no_probe" and (stored.age_s is None or stored.age_s < NEW_S):
            return "too_new"
        try:
            seen = (stored.grant.generation, stored.grant.token_version)
            await self._refresher.refresh(region, report.connection, stored.grant.access_profile, seen)
        except Problem:
            pass  # why not is what the next read of the token says
        return "unchecked"

    async def _probed(self, due: Due) -> Probed:
        if due.integration.provider.probe is None or due.stored.data_key_version is None:
            return "no_probe"
        try:
            await rotation.probe(self._outbound, due, self._public_url, self._clock.now())
        except GrantEnded:
            return "dead"
        except ScopeLacking:
            return "works"
        except (ProviderError, SealBroken):
            return "undecided"
        return "works"


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
        kind, do = problems.BY_STATE[closed]
        raise kind(access_profile=profile, state=closed, do=do)
    return found


NOTE = """INSERT INTO gateway.audit (at, action, actor, tenant_id, connection_id, access_profile, generation, token_version)
          VALUES (gateway.now(), $1, $2, $3, $4, $5, $6, $7)"""


async def _note(db: Db, report: Report, stored: grants.Stored, action: str) -> None:
    await db.execute(
        NOTE, action, report.actor, stored.tenant, report.connection, stored.grant.access_profile,
        stored.grant.generation, report.token_version,
    )  # fmt: skip
