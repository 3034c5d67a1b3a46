"""What a story plays on: one real database, a provider over HTTP, and processes that are parts of real gateways, each with its life.

A process is a `Gateway` without its loops: what they would do (beat, check, drain), the story does at its own moments. Its database
lies behind a wire of its own that can be cut. Time is the database's, moved by hand; with it moves everybody's.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from gateway import tenants
from gateway.clock import SystemClock
from gateway.connections import grants, scopes, transitions
from gateway.connections import store as connections
from gateway.connections.fences import NAMED_FOR_EVER
from gateway.connections.moves import Move
from gateway.connections.states import State
from gateway.connections.telling import Because
from gateway.database import Database
from gateway.integrations import store
from gateway.integrations.profiles import AccessProfile
from gateway.integrations.wanted import Wanted, checked
from gateway.regions import DEFAULT
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.stream.epoch import settle
from gateway.stream.upkeep import Upkeep
from gateway.tokens import refresh
from gateway.tokens.spool_locks import Locks
from gateway.vault.keyring import generate
from gateway.vault.tokens import Place
from providers.registry import all_providers
from tests.storm.mortal import Life
from tests.storm.theirs import Theirs, provider
from tests.storm.town import BEATS, GRACE_S, SCOPES, SHIFT, TELL, Rotation
from tests.stream.lossy import LossyWire

ROTATIONS: tuple[Rotation, ...] = ("strict", "grace", "none")
SLOTS = 3  # machines, each with a folder and an address of its own
WAIT_S = 0.4  # a reader's patience, in the place of `refresh.WAIT_S`: stories are short
POLLS_S = (0.02, 0.05, 0.1)
KEEP_PAUSES_S = (0.01, 0.05)
CALL_S = 8.0  # no call takes longer: its deadline cuts it
SWEEP_EVERY = 25  # stories
PROFILE = AccessProfile(required=SCOPES)

CLEAR = """DELETE FROM gateway.connections; DELETE FROM gateway.provider_failures; DELETE FROM gateway.provider_conditions;
           DELETE FROM gateway.breakers; DELETE FROM gateway.closing_tasks"""
SWEEP = "TRUNCATE gateway.events, gateway.dedupe, gateway.audit, gateway.history"


class Moved(SystemClock):
    """Time that goes by as anywhere, and by hand."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.by_s)

    def monotonic(self) -> float:
        return super().monotonic() + self.by_s


class House:
    """One process, on one of the machines."""

    def __init__(self, world: World, slot: int, wire: LossyWire, folder: Path) -> None:
        self.world, self.slot, self.wire, self._folder = world, slot, wire, folder
        self.address = f"127.0.0.{10 + slot}"
        self.life = Life(f"process {world.started} on machine {slot}", self._cut_off)
        self.gateway: Gateway = None  # type: ignore[assignment]  # once it is open
        self.born_at = world.clock.now()
        self.cut_at: list[datetime] = []  # when its database was away
        self.came_back_at: datetime | None = None  # when another one on its machine found what it had left in the spool

    @classmethod
    async def open(cls, world: World, slot: int) -> House:
        world.started += 1
        folder = Path(tempfile.mkdtemp(prefix="ph-storm-"))  # a socket's path must be short
        wire = LossyWire(world.dsn, folder)
        await wire.open()
        house = cls(world, slot, wire, folder)
        await house.life.call(house._open(), "open")
        return house

    async def _open(self) -> None:
        world = self.world
        settings = world.settings.model_copy(
            update={"database_url": SecretStr(self.wire.dsn), "home": world.folder / f"machine-{self.slot}"}
        )
        self.gateway = await Gateway.for_command(settings, world.clock)
        self.gateway.outbound._lookup = self._looked_up
        self.gateway.refresher._endings.keep_pauses_s = KEEP_PAUSES_S
        if world.started == 1:  # the database is nobody's backup
            await settle(self.region.database)
            await self.gateway.look_for_restores()
        await self.process.run_once()
        await self.gateway._refreshed[DEFAULT].start()
        await self.gateway.breakers[DEFAULT].start()
        await self.gateway._checks[DEFAULT].start()
        await self.gateway.spool.open()
        await self.gateway.drain_spool()

    @property
    def process(self) -> Any:
        return self.gateway.processes[DEFAULT]

    @property
    def region(self) -> Any:
        return self.gateway.regions.home

    @property
    def has_spooled(self) -> bool:
        """Something of it lies on its machine."""
        return any(self.gateway.settings.spool_folder.glob(f"{self.process.id.hex}-*.spool"))

    @property
    def alive(self) -> bool:
        return not self.life.dead

    @property
    def reaches_database(self) -> bool:
        return self.wire.is_open

    async def cut(self) -> None:
        """Its database is away."""
        self.cut_at.append(self.world.clock.now())
        await self.wire.close()

    async def mend(self) -> None:
        await self.wire.open()

    async def bury(self) -> None:
        """Of a dead one: nothing is left."""
        await self.wire.close()
        spool = self.gateway.spool
        spool._folder = self._folder / "grave"  # what is cancelled would save what it has
        spool._locks = Locks(spool._folder)
        await self.life.bury()
        await self.gateway.spool.close()
        for database in (self.gateway.control, self.region.database):
            if database._pool is not None:
                database._pool.terminate()
        await self.gateway.outbound.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _cut_off(self) -> None:
        """What the kernel does for one that died: nothing of it is connected any more, and its locks are free."""
        self.wire.abort()
        if self.gateway is not None:
            spool = self.gateway.spool
            locks, spool._locks = spool._locks, Locks(spool._folder)
            for whose in locks.held:
                locks.let_go(whose, over=False)

    async def _looked_up(self, host: str) -> Sequence[str]:
        return [self.address]


class World:
    """For many stories, one after the other."""

    def __init__(self, dsn: str, folder: Path, theirs: Theirs, clock: Moved, database: Database) -> None:
        self.dsn, self.folder, self.theirs, self.clock, self.database = dsn, folder, theirs, clock, database
        self.keyring = generate()
        self.settings = Settings(
            _env_file=None, database_url=SecretStr(dsn), keyring=SecretStr(self.keyring.to_json()), home=folder,
            public_url="https://hooks.example.com", outbound_allow=("127.0.0.0/8",), poll_s=0.05, calls_per_s=10_000, stale_control_s=1e9,
        )  # fmt: skip
        self.started = self.stories = 0
        self.houses: list[House | None] = [None] * SLOTS
        self.integrations: dict[Rotation, UUID] = {}

    async def begin(self, rotation: Rotation) -> None:
        """A clean table, and a process on each machine."""
        await self.database.execute(CLEAR)
        if self.stories % SWEEP_EVERY == 0:
            await self.database.execute(SWEEP)
            await Upkeep(self.database, 7).ready()  # days go by in these stories
        self.stories += 1
        self.theirs.begin(rotation, GRACE_S)
        for slot in range(SLOTS):
            await self.start(slot)
        for house in self.houses:
            assert house is not None
            await house.mend()
            await house.life.call(house.gateway.breakers[DEFAULT].run_once(), "breakers")

    async def start(self, slot: int) -> None:
        """A process on that machine, if there is none."""
        if self.houses[slot] is None:
            self.houses[slot] = await House.open(self, slot)

    async def pass_s(self, seconds: float) -> None:
        """Time goes by. Processes that reach the database have been heard of to the last; calls that were out have ended."""
        if seconds >= CALL_S:
            await self.theirs.fake.gate.open()
            await self.settled()
        self.clock.by_s += seconds
        living = [h.process.id for h in self.houses if h is not None and h.alive and h.reaches_database]
        async with self.database.transaction() as tx:
            await tx.execute(SHIFT, seconds)
            await tx.execute(BEATS, living)
            await tx.execute(TELL)

    async def settled(self) -> None:
        """Until the provider owes nobody an answer, but for those that it holds."""
        gate = self.theirs.fake.gate
        while self.theirs.busy > gate.held:  # noqa: ASYNC110 - on a result
            await asyncio.sleep(0.002)

    async def declare(self) -> None:
        """The tenant, and an integration for each rule of rotation."""
        client, port = self.theirs.fake.client, self.theirs.port
        url = f"http://localhost:{port}"
        async with self.database.transaction() as tx:
            await tenants.put(tx, "acme", region="default", home="default", labels={}, now=datetime.now(UTC))
            for rotation in ROTATIONS:
                settings = {
                    "authorize_url": f"{url}/oauth/authorize", "token_url": f"{url}/oauth/token",
                    "userinfo_url": f"{url}/api/me", "revoke_url": f"{url}/oauth/revoke", "probe_acquits": True,
                    "rotation": rotation, **({"reuse_grace_s": GRACE_S} if rotation == "grace" else {}),
                }  # fmt: skip
                wanted = Wanted(
                    name=rotation, provider="generic-oauth2", client_id=client.id, settings=settings,
                    access_profiles={"reader": PROFILE}, secrets={"client_secrets": ((client.secret or "").encode(),)},
                )  # fmt: skip
                made = await store.create(
                    tx, self.keyring, checked(wanted, all_providers(), ("default",)), datetime.now(UTC), by="file"
                )
                self.integrations[rotation] = made.id

    async def close(self) -> None:
        for house in self.houses:
            if house is not None:
                house.life.die()
                await house.bury()


async def connected(house: House, connection: UUID, integration: UUID) -> None:
    """A connection that waits for its first consent."""
    new = connections.NewConnection(
        id=connection, tenant_id="acme", integration_id=integration, external_id=None, end_user_id=None, labels={},
        accounts=(),
    )  # fmt: skip
    async with house.region.database.transaction() as tx:
        await connections.expect(tx, new)


async def consented(house: House, connection: UUID, answer: dict[str, Any]) -> bool:
    """A consent's tokens come in, in the place of those that there were, as `connect/completing.py` does it.

    False: the connection is closed, or moved on meanwhile.
    """
    region, gateway = house.region, house.gateway
    before = await grants.version(region.database, connection, "reader")
    generation, version = (1, 1) if before is None else (before[0] + 1, before[1] + 1)
    place = Place(region.name, "acme", connection, "reader", generation, version)
    sealed = await region.tokens.seal(place, answer["access_token"], answer["refresh_token"])
    new = grants.NewTokens(
        sealed=sealed, token_type="Bearer", expires_in_s=answer["expires_in"], refresh_expires_in_s=None
    )
    ledger = scopes.compared(PROFILE, SCOPES)
    async with region.database.transaction() as tx:
        state = await grants.lock(tx, connection)
        if state == "closed" or await grants.version(tx, connection, "reader") != before:
            return False

        async def save(state: State, reason: str | None) -> None:
            await grants.put(
                tx, connection, "reader", state=state, reason=reason, generation=generation, token_version=version,
                ledger=ledger, parameters={}, reach_hash=None,
            )  # fmt: skip
            await grants.put_tokens(tx, connection, "reader", "acme", generation, version, new)

        move = Move(
            connection=connection, access_profile="reader", signal="authorized", fence=NAMED_FOR_EVER,
            because=Because(cause="connect", source="consent"), say="authorized", save=save, made=(generation, version),
        )  # fmt: skip
        await transitions.apply(tx, [move], gateway.new_id, looked_back=True)
    return True


@asynccontextmanager
async def opening(dsn: str) -> AsyncIterator[World]:
    """On an empty, migrated database. Constants of the core that make real time pass are shortened for as long."""
    changed: dict[str, Any] = {"WAIT_S": WAIT_S, "POLLS_S": POLLS_S}
    before = {name: getattr(refresh, name) for name in changed}
    folder, clock, database = Path(tempfile.mkdtemp(prefix="ph-storm-")), Moved(), Database(dsn)
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(lambda: [setattr(refresh, name, value) for name, value in before.items()])
        for name, value in changed.items():
            setattr(refresh, name, value)
        await database.open()
        stack.push_async_callback(database.close)
        theirs = await stack.enter_async_context(provider(clock))
        world = World(dsn, folder, theirs, clock, database)
        stack.push_async_callback(world.close)
        await world.declare()
        yield world
