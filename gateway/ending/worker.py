"""The worker of closing tasks: ask who shares it, revoke at the provider, shred. Any number of processes may run it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import orjson
import structlog

from gateway import metrics
from gateway.catalog import Catalog, Integration
from gateway.clock import Clock
from gateway.database import Database
from gateway.ending import tasks
from gateway.ending.tasks import Outcome, Task
from gateway.errors import Unavailable
from gateway.exchange import app_of, facts_of
from gateway.outbound import Outbound
from gateway.regions import Region, Regions
from gateway.vault import cipher
from gateway.vault.tokens import SealBroken, closing_place
from providers.errors import GrantEnded, ProviderError
from providers.oauth import TokenSet

log = structlog.get_logger(__name__)

MOST = 20  # tasks of one claim, all under way at once
DEADLINE_S = 60.0  # of one revocation, all its calls together: well within the lease


class _Later(Exception):
    """Not now: `code` says why."""

    def __init__(self, code: str, after_s: float | None = None) -> None:
        super().__init__(code)
        self.code, self.after_s = code, after_s


@dataclass(slots=True)
class Worker:
    """The closing tasks of one region."""

    region: Region
    regions: Regions
    control: Database = field(repr=False)
    catalog: Catalog
    outbound: Outbound
    public_url: str
    clock: Clock

    async def run_once(self) -> int:
        """Try what is due; how many tasks that was.    Raises: Unavailable."""
        tried = 0
        while found := await tasks.claim(self.region.database, MOST):
            await asyncio.gather(*(self._try(task) for task in found))
            tried += len(found)
        metrics.CLOSING_TASKS.labels(self.region.name).set(await tasks.count(self.region.database))
        return tried

    async def _try(self, task: Task) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                outcome = await self._outcome(task)
        except _Later as later:
            await self._later(task, later.code, later.after_s)
        except TimeoutError:
            await self._later(task, "timed_out", None)
        except ProviderError as error:
            if isinstance(error, GrantEnded):
                await self._end(task, "done")  # gone already: that is what was wanted
            else:
                await self._later(task, error.code, error.retry_after_s)
        except Unavailable:
            await self._later(task, "unavailable", None)
        except Exception as error:  # ours: it must neither hold up the others nor keep tokens beyond their time
            log.error("ending.failed", task=str(task.id), error=type(error).__name__)
            await self._later(task, "failed", None)
        else:
            await self._end(task, outcome)

    async def _outcome(self, task: Task) -> Outcome:
        """Raises: _Later, ProviderError, Unavailable."""
        integration = self.catalog.integration_by_id(task.integration_id)
        if integration is None or integration.provider.revoke is None:
            return "given_up"  # nobody knows its client id and secret any more
        facts = facts_of(integration)
        if facts.revoke_reach != "token" and await self._reaches_others(task):
            return "not_needed"
        try:
            tokens = await self._opened(task)
        except SealBroken:
            return "given_up"
        await self._revoke(integration, task, tokens)
        return "done"

    async def _reaches_others(self, task: Task) -> bool:
        """Whether a revocation would end a live grant of anybody, in any region.    Raises: _Later, Unavailable."""
        if task.reach_hash is None and not task.accounts:
            return True  # nobody can tell: then nothing is ended that nobody asked to end
        names = {self.region.name, *await tasks.regions(self.control, task)}
        for name in sorted(names):
            if not self.regions.holds(name):
                raise _Later("region_elsewhere")  # a process that serves it may take the task
            database = self.regions.get(name).database
            if await tasks.shared(database, task.integration_id, task.reach_hash, task.accounts):
                return True
            subject = task.subject_hash
            if subject is not None and await tasks.consented(database, task.integration_id, subject):
                raise _Later("consent_under_way")
        return False

    async def _opened(self, task: Task) -> TokenSet:
        """Raises: SealBroken, Unavailable."""
        name = (task.tenant_id, task.data_key_version)
        key = (await self.region.tokens.keys.for_opening([name]))[name]
        aad = closing_place(self.region.name, task.tenant_id, task.id, task.access_profile).aad("closing")
        told = orjson.loads(cipher.open_sealed({key.version: key.cipher}, task.sealed, aad))
        return TokenSet(
            access_token=told["access_token"], refresh_token=told["refresh_token"], token_type=told["token_type"],
            parameters=task.parameters,
        )  # fmt: skip

    async def _revoke(self, integration: Integration, task: Task, tokens: TokenSet) -> None:
        provider = integration.provider
        assert provider.revoke is not None
        app = app_of(integration, self.public_url, task.parameters, now=self.clock.now())
        http = self.outbound.for_app(provider.facts.name, facts_of(integration), app, kind="revoke")
        await provider.revoke(http, app, tokens)

    async def _later(self, task: Task, code: str, after_s: float | None) -> None:
        if task.over:
            await self._end(task, "given_up")
            return
        log.info("ending.later", task=str(task.id), error=code, tries=task.tries)
        await tasks.retry(self.region.database, task, code, after_s)

    async def _end(self, task: Task, outcome: Outcome) -> None:
        await tasks.end(self.region.database, task, outcome)
        integration = self.catalog.integration_by_id(task.integration_id)
        metrics.CLOSING_ENDED.labels("removed" if integration is None else integration.name, outcome).inc()
