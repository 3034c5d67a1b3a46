"""The wired parts of one process. Whoever answers requests or runs loops is handed a `Gateway`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal
from uuid import UUID

from gateway import ids, metrics, processes, restored, traffic
from gateway.breakers import breakers
from gateway.breakers.breakers import Breakers
from gateway.catalog import Catalog
from gateway.checking.asking import Asking
from gateway.checking.checker import Checker
from gateway.checking.reports import Reports
from gateway.clock import Clock, SystemClock
from gateway.connections import conditions, expiring
from gateway.connections.expiring import Expiring
from gateway.connections.retention import Retention
from gateway.database import AWAY, Database, Listener
from gateway.ending.worker import Worker
from gateway.endpoints.cache import EndpointCache
from gateway.errors import SetupError, Unavailable
from gateway.follower import store as set_aside
from gateway.follower.follower import Follower
from gateway.follower.meaning import Meaning
from gateway.loop import ended, every
from gateway.outbound import Outbound
from gateway.processes import Process
from gateway.published_keys import PublishedKeys
from gateway.refusals import Refusals
from gateway.regions import DEFAULT, Region, Regions
from gateway.settings import Settings
from gateway.stream import consumers
from gateway.stream.epoch import settle
from gateway.tokens import draining, leases
from gateway.tokens.check import Checks
from gateway.tokens.draining import Drain
from gateway.tokens.reading import TokenReads
from gateway.tokens.refresh import Refresher
from gateway.tokens.spool import Spool
from gateway.vault import checks, choose, holders, keyring, openbao, sweep, watch
from gateway.vault.keyring import Keyring
from gateway.vault.upkeep import EVERY_S as VAULT_EVERY_S
from gateway.vault.upkeep import VaultUpkeep
from gateway.vault.watch import KeyringWatch

UPKEEP_EVERY_S = 3600.0
WATCH_EVERY_S = 5.0
REFUSALS_EVERY_S = 1.0
CLOSING_EVERY_S = 2.0
CHECKS_EVERY_S = 0.5
REFRESHES_POLL_S = 4.0


class Gateway:
    """One process's databases, keyrings, memory of control, and background loops."""

    def __init__(self, settings: Settings, clock: Clock, keys: Keyring) -> None:
        if settings.database_url is None or settings.control_url is None:
            raise SetupError("POSTHOUSE_DATABASE_URL is not set (or use `posthouse up`, which brings a database)")
        self.settings, self.clock, self.control_keyring = settings, clock, keys
        self.control = Database(settings.control_url.get_secret_value())
        self.bao = choose.openbao(settings, clock)
        self.regions = Regions(
            [Region.build(DEFAULT, settings.database_url.get_secret_value(), keys, settings, clock, self.bao)]
        )
        self.catalog = Catalog(self.control, keys, clock, settings)
        self.outbound = Outbound(settings, clock)
        self.published_keys = PublishedKeys(clock, settings, self.outbound)
        self.endpoints = EndpointCache(clock)
        self._checks = {r.name: Checks(r.database, settings.commit_deadline_s) for r in self.regions}
        self._process = ids.uuid7(clock.now())
        self.processes = {r.name: Process(r.database, self._process) for r in self.regions}
        self.spool = Spool(settings.spool_folder, {r.name: r.keyring for r in self.regions}, self._process)
        self.drain_spool = Drain(self.spool, self.regions, self.catalog, keys, self._process, self.new_id).run_once
        self._refreshed = {r.name: Listener(r.database, leases.CHANNEL, REFRESHES_POLL_S) for r in self.regions}
        self.breakers = {
            r.name: Breakers(r.database, self.catalog, clock, settings, self.new_id, region=r.name)
            for r in self.regions
        }  # fmt: skip
        self.refresher = Refresher(
            self.catalog, self.outbound, clock, keys, settings.public_url, breakers=self.breakers,
            news=self._refreshed, processes=self.processes, spool=self.spool, spool_grace_s=settings.spool_grace_s,
        )  # fmt: skip
        asking = Asking(self.refresher, self.outbound, clock, settings.public_url, self.breakers)
        self.checkers = {r.name: Checker(r, self.catalog, asking, clock, self.new_id) for r in self.regions}
        self.tokens = TokenReads(self.regions, self._checks, self.refresher, clock)
        self.reports = Reports(self.catalog, self.checkers, self.new_id)
        meaning, worker = Meaning(self.catalog, keys), f"gateway-{ids.uuid7(clock.now()).hex}"
        self._followers = [
            Follower(r, meaning, clock, worker, self.new_id, self.checkers[r.name].wake.set) for r in self.regions
        ]
        self.refusals = Refusals()
        self.keyring_watch = KeyringWatch(keys, settings)
        self._told_at = float("-inf")
        self._told: tuple[int, tuple[int, ...]] = (0, ())
        self.state: Literal["starting", "ready", "draining"] = "starting"
        self.draining = asyncio.Event()  # set once, by drain(): streams close themselves with their cursor
        self._loops: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, settings: Settings, clock: Clock | None = None) -> Gateway:
        """Load the keyring, connect, check that it is the right one, read control, start the loops.

        Raises: SetupError (no keyring, the wrong one, no database set), or one of `database.AWAY`.
        """
        gateway = cls(settings, clock or SystemClock(), keyring.load(settings))
        try:
            await gateway._open()
        except BaseException:
            await gateway.close()
            raise
        return gateway

    @classmethod
    async def for_command(cls, settings: Settings, clock: Clock | None = None) -> Gateway:
        """The parts for one command: connected, control read once, nothing in the background.    Raises: as `open`."""
        gateway = cls(settings, clock or SystemClock(), keyring.load(settings))
        try:
            await gateway.control.open()
            if gateway.bao is not None:
                await gateway.bao.enter()
            await checks.verify_against(gateway.control, gateway.control_keyring)
            for region in gateway.regions:
                await region.database.open()
                await region.sealing.verify()
            await gateway.catalog.refresh()
        except BaseException:
            await gateway.close()
            raise
        return gateway

    async def _open(self) -> None:
        await self.control.open()
        if self.bao is not None:
            await self.bao.enter()
        await checks.compare(self.control, self.control_keyring)
        for region in self.regions:
            await checks.compare(self.control, region.keyring, region.name)
            await region.open()
        await checks.verify_against(self.control, self.control_keyring)  # all fit: from here on things are written
        for region in self.regions:
            await checks.verify_against(self.control, region.keyring, region.name)
            await settle(region.database)
            await region.upkeep.ready()
            await self.processes[region.name].run_once()
            await self._refreshed[region.name].start()
            await self.breakers[region.name].start()
            await self._checks[region.name].start()
        await self.catalog.open()
        await self.look_for_restores()
        await self.spool.open()
        await self.drain_spool()  # before anything is claimed, and before anybody is told that we are ready
        self._loops = [
            asyncio.create_task(every(WATCH_EVERY_S, self.watch, name="watch")),
            asyncio.create_task(every(REFUSALS_EVERY_S, self.write_refusals, name="refusals")),
            asyncio.create_task(every(watch.EVERY_S, self.follow_keyring, name="keyring")),
            *(
                asyncio.create_task(
                    every(VAULT_EVERY_S, VaultUpkeep(r.tokens.keys, r.database, r.tokens.blobs).run_once, name="vault")
                )
                for r in self.regions
            ),
            *(
                asyncio.create_task(every(processes.EVERY_S, p.run_once, name="process"))
                for p in self.processes.values()
            ),
            *(
                asyncio.create_task(every(breakers.IDLE_S, b.run_once, name="breakers", wake=b.wake))
                for b in self.breakers.values()
            ),
            asyncio.create_task(every(WATCH_EVERY_S, self.look_for_restores, name="restored")),
            asyncio.create_task(every(draining.EVERY_S, self.drain_spool, name="spool")),
            *(
                asyncio.create_task(every(CLOSING_EVERY_S, self.closing_worker(r).run_once, name="closing"))
                for r in self.regions
            ),
            *(asyncio.create_task(follower.follow(), name="follower") for follower in self._followers),
            *(asyncio.create_task(self._checks_of(self.checkers[r.name])) for r in self.regions),
            *(asyncio.create_task(every(UPKEEP_EVERY_S, r.upkeep.run_once, name="upkeep")) for r in self.regions),
            *(
                asyncio.create_task(
                    every(UPKEEP_EVERY_S, Retention(r.database, self.settings.history_days).run_once, name="retention")
                )
                for r in self.regions
            ),
            *(
                asyncio.create_task(every(expiring.EVERY_S, self.expiring(r).run_once, name="expiring"))
                for r in self.regions
            ),
            *(asyncio.create_task(every(traffic.EVERY_S, r.traffic.run_once, name="traffic")) for r in self.regions),
        ]
        if self.bao is not None:
            self._loops.append(asyncio.create_task(every(openbao.RENEW_EVERY_S, self.bao.run_once, name="openbao")))
        self._loops += [
            asyncio.create_task(every(sweep.EVERY_S, r.sealing.sweep.run_once, name="kv_sweep"))
            for r in self.regions if r.sealing.sweep is not None
        ]  # fmt: skip
        self.state = "ready"

    async def close(self) -> None:
        """Finish what was accepted, write what is buffered, disconnect."""
        await ended(self._loops)
        await asyncio.gather(*(checker.close() for checker in self.checkers.values()))
        await asyncio.gather(self._write_notes(), *map(_left, self._followers))
        await self.catalog.close()
        await self.published_keys.close()
        await self.refresher.close()
        await self.spool.close()
        await self.outbound.close()
        for region in self.regions:
            await self._checks[region.name].stop()
            await self._refreshed[region.name].stop()
            await self.breakers[region.name].stop()
            await self._left(self.processes[region.name])
            await region.close()
        if self.bao is not None:
            await self.bao.close()
        await self.control.close()

    async def _left(self, process: Process) -> None:
        try:
            await process.leave()
        except (Unavailable, AttributeError, *AWAY):
            pass  # its row ages

    async def _write_notes(self) -> None:
        try:
            await self.write_refusals()
            for region in self.regions:
                await region.traffic.run_once()
            await holders.leave(self.control, self._process)
        except (Unavailable, AttributeError, *AWAY):
            pass  # notes: about refused deliveries, not deliveries; of a holder, whose row ages

    async def _checks_of(self, checker: Checker) -> None:
        await every(CHECKS_EVERY_S, partial(self.begin_checks, checker), name="checks", wake=checker.wake)

    async def begin_checks(self, checker: Checker) -> None:
        """What is due; not while we drain: another process has the time to wait for the answers."""
        if not self.draining.is_set():
            await checker.begin()

    def repeat(self, interval_s: float, run_once: Callable[[], Awaitable[object]], *, name: str) -> None:
        """One more background loop, of a package above this one; it ends with the gateway."""
        self._loops.append(asyncio.create_task(every(interval_s, run_once, name=name)))

    def drain(self) -> None:
        """Not ready any more; long polls and streams end now, everything else goes on."""
        self.state = "draining"
        self.draining.set()
        for region in self.regions:
            region.news.wake()

    def integration_name(self, id: UUID) -> str | None:
        """For an event that names its integration by id; None when it is gone or control is away for long."""
        try:
            integration = self.catalog.integration_by_id(id)
        except Unavailable:
            return None
        return None if integration is None else integration.name

    async def watch(self) -> None:
        """Figures that somebody must ask for: which dependencies are up, how far behind each consumer is."""
        states: list[consumers.ConsumerState] = []
        metrics.DEPENDENCY_UP.labels("control").set(await _up(self.control))
        waiting = await self.spool.waiting()
        metrics.SPOOL_USABLE.set(waiting.usable)
        metrics.SPOOL_ENTRIES.set(waiting.entries)
        metrics.SPOOL_OLDEST.set(waiting.age_s(self.clock.now()))
        for region in self.regions:
            metrics.DEPENDENCY_UP.labels(f"region:{region.name}").set(await _up(region.database))
            async with region.database.acquire() as db:
                states += await consumers.states(db)
                metrics.SET_ASIDE.labels(region.name).set(await set_aside.count(db))
                for one in await conditions.all_of(db):
                    degraded = one.degraded_since is not None
                    metrics.PROVIDER_DEGRADED.labels(region.name, one.provider).set(degraded)
        for gauge in (metrics.CONSUMER_LAG_EVENTS, metrics.CONSUMER_LAG_SECONDS):
            gauge.clear()  # one that was removed would lag for ever
        for state in states:
            metrics.CONSUMER_LAG_EVENTS.labels(state.name).set(state.lag_events)
            metrics.CONSUMER_LAG_SECONDS.labels(state.name).set(state.lag_s)

    async def follow_keyring(self) -> None:
        """Look whether the keyring's file changed; say in control what this process holds."""
        self.keyring_watch.look()
        holds, now = (self.control_keyring.current, self.control_keyring.versions), self.clock.monotonic()
        if holds != self._told or now - self._told_at >= holders.EVERY_S:
            await holders.tell(self.control, self._process, socket.gethostname(), self.control_keyring)
            self._told, self._told_at = holds, now

    def new_id(self) -> UUID:
        """An id for what a background loop makes."""
        return ids.uuid7(self.clock.now())

    def closing_worker(self, region: Region) -> Worker:
        """What revokes tokens of connections that ended there."""
        url = self.settings.public_url
        return Worker(region, self.regions, self.control, self.catalog, self.outbound, url, self.clock)

    def expiring(self, region: Region) -> Expiring:
        """What tells of grants there that only a reconnect will keep."""
        return Expiring(region.database, self.settings.expiring_soon_days, self.new_id)

    async def look_for_restores(self) -> None:
        """Set aside what must not be refreshed if a database was put back to an earlier point."""
        for region in self.regions:
            await restored.look(region, self.catalog, self.new_id)

    async def write_refusals(self) -> None:
        """Put the buffered notes about refused deliveries where `GET /v1/refusals` reads them."""
        for region in self.regions:
            await self.refusals.flush(region.database)


async def _left(follower: Follower) -> None:
    try:
        await follower.leave()
    except (Unavailable, *AWAY):
        pass  # its leases end by themselves


async def _up(database: Database) -> int:
    try:
        return int(await database.fetchval("SELECT 1"))
    except Unavailable:
        return 0
