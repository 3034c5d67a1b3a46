"""Writing what lies in the spool, once the database is back: what dead processes left (a living one writes its own from memory).

The grant is looked at first. Whatever was written meanwhile wins, so a token set that was overtaken is dropped; where another
process has sent the old token once more and waits for the answer, ours waits too: what that one brings is newer. Otherwise it
takes its place like one that came this moment, with the life that it has left. While one cannot be written (the vault is away, say),
its heir is heard of in the dead process's stead, so that nobody sends the old token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Literal
from uuid import UUID

import structlog

from gateway import metrics, processes
from gateway.catalog import Catalog
from gateway.connections import grants
from gateway.connections.grants import Stored
from gateway.database import AWAY
from gateway.errors import Unavailable
from gateway.regions import Region, Regions
from gateway.tokens import rotation
from gateway.tokens.leases import NotNow
from gateway.tokens.rotation import Due, Fresh
from gateway.tokens.spool import Spool
from gateway.tokens.spooled import Entry
from gateway.vault.keyring import Keyring

EVERY_S = 5.0
NOW = "SELECT gateway.now()"

# gone: it is of no use, and nothing is left to do with it.
Outcome = Literal["written", "overtaken", "gone", "later"]

log = structlog.get_logger(__name__)


class Drain:
    """The draining of one process's spool."""

    def __init__(
        self, spool: Spool, regions: Regions, catalog: Catalog, keyring: Keyring, process: UUID, new_id: Callable[[], UUID]
    ) -> None:  # fmt: skip
        """`keyring`: control's."""
        self._spool, self._regions, self._catalog = spool, regions, catalog
        self._keyring, self._process, self._new_id = keyring, process, new_id

    async def run_once(self) -> int:
        """Write what can be written now; how many are left for later. What fails is said in the log, and comes again."""
        left: defaultdict[str, list[UUID]] = defaultdict(list)  # by region: whose
        away = set[str]()
        # Of two for the same token set the newer one: the provider let the old one live, and may have ended the first.
        for name, entry in reversed(await self._spool.entries()):
            if entry.holder == self._process:
                continue
            outcome: Outcome = "later"
            if entry.place.region not in away:
                try:
                    outcome = await self._written(self._regions.get(entry.place.region), entry)
                except NotNow:
                    pass
                except (Unavailable, *AWAY):
                    away.add(entry.place.region)
                except Exception as error:
                    log.error("spool.undrained", file=name, error=type(error).__name__)
            if outcome == "later":
                left[entry.place.region].append(entry.holder)
                continue
            await self._spool.remove(name)
            metrics.SPOOL_DRAINED.labels(outcome).inc()
            log.info("spool.drained", file=name, connection=str(entry.place.connection), outcome=outcome)
        for region, holders in left.items():
            await self._vouch(self._regions.get(region), set(holders))
        return sum(map(len, left.values()))

    async def _vouch(self, region: Region, holders: set[UUID]) -> None:
        try:
            await processes.vouch(region.database, holders)
        except (Unavailable, *AWAY):
            pass  # the grace runs by the clock of that very database

    async def _written(self, region: Region, entry: Entry) -> Outcome:
        """Raises: NotNow; Unavailable, asyncpg's errors, SealBroken."""
        now: datetime = await region.database.fetchval(NOW)
        waited_s = entry.waited_s(now)
        integration = self._catalog.integration_by_id(entry.integration_id)
        if integration is None or integration.trouble is not None:  # it may be mended
            return "later"
        stored = await self._stored(region, entry, waited_s)
        if stored is None:
            return "gone"
        due = Due(region, integration, stored)
        if stored.grant.state != "closed" and due.seen != (replaced := (entry.place.generation, entry.place.version)):
            if due.seen > replaced:
                return "overtaken"
            # The database was put back: this one is newer than what it holds, whose refresh token is superseded. Of another
            # consent it is an operator's to judge: it may be another account's.
            if due.seen[0] != entry.place.generation:
                return "later"
        fresh = Fresh(entry.tokens, entry.refresh_token, 0.0, entry.asked_s)
        known = rotation.known(self._keyring, due, fresh, "spool", entry.holder)
        kept = await rotation.keep(due, fresh, waited_s, self._new_id, known, fence=entry.fence)
        return "written" if kept else "overtaken"

    async def _stored(self, region: Region, entry: Entry, waited_s: float) -> Stored | None:
        """The grant as it was when the token set came, and in the state that it has now; None: there is none any more."""
        stored = await grants.stored(region.database, *entry.name)
        if stored is None:
            return await self._ended(region, entry)
        left_s = stored.refresh_left_s
        return replace(
            stored, refresh_left_s=None if left_s is None else left_s + waited_s,
            since_consent_s=stored.since_consent_s - waited_s,
        )  # fmt: skip

    async def _ended(self, region: Region, entry: Entry) -> Stored | None:
        """A grant whose connection is closed: `keep` has what came for it revoked."""
        grant = next(
            (one for one in await grants.of(region.database, [entry.place.connection]) if one.access_profile == entry.place.profile),
            None,
        )  # fmt: skip
        if grant is None:
            return None
        return Stored(
            grant=grant, tenant=entry.place.tenant, integration_id=entry.integration_id, data_key_version=None,
            sealed_access=None, sealed_refresh=None, kv_path=None, age_s=None, in_state_s=0.0, expired=True, check=None,
            check_in_s=None, refresh_left_s=None, since_consent_s=0.0,
        )  # fmt: skip
