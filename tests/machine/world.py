"""The real side of a story: one connection to PostgreSQL, a clock that stands still, a provider that is told what to say.

`One` is a Database whose statements all go through one connection, and whose next commit can be made to fail: a process that
dies there. Everything else is the product's: follower, meaning, checker, transitions, stores.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import orjson

from gateway.catalog import Catalog, Integration
from gateway.checking.asking import Asking, Found
from gateway.checking.checker import Checker
from gateway.checking.store import Check
from gateway.database import SERVER_SETTINGS, Database, Db
from gateway.follower.follower import NAME, Follower
from gateway.follower.meaning import Meaning, Meant
from gateway.follower.store import Marked
from gateway.integrations.profiles import AccessProfile
from gateway.regions import Region
from gateway.stream import consumers
from gateway.tokens.check import Read, check
from gateway.tokens.rotation import Due
from gateway.vault.keyring import Keyring, generate
from gateway.vault.tokens import Place, Sealed
from providers.contract import Trust
from providers.registry import all_providers
from providers.signals import Said, Signal
from tests.clock import FakeClock

PROVIDER = "toy"
ACTOR = UUID(int=1)
PROFILE = AccessProfile(required=("a",))
FREEZE = """CREATE OR REPLACE FUNCTION gateway.now() RETURNS timestamptz LANGUAGE sql STABLE AS
            $$ SELECT timestamptz '{}' + shifted_by FROM gateway.clock $$"""
KEYS = """INSERT INTO gateway.data_keys (tenant_id, version, wrapped, wrapped_under, created_at)
          SELECT t, 1, '', 1, gateway.now() FROM unnest($1::text[]) AS t ON CONFLICT DO NOTHING"""
CLEAR = """
DELETE FROM gateway.connections; DELETE FROM gateway.provider_failures; DELETE FROM gateway.provider_conditions;
DELETE FROM gateway.set_aside; UPDATE gateway.clock SET shifted_by = '0';
UPDATE gateway.consumer_partitions SET cursor_seq = (SELECT last_value FROM gateway.events_seq), worker = NULL,
       lease_until = '-infinity';
DELETE FROM gateway.consumer_workers"""
SWEEP = "TRUNCATE gateway.events, gateway.dedupe, gateway.audit, gateway.history"
REWIND = "UPDATE gateway.consumer_partitions SET cursor_seq = $1, fence = nextval('gateway.fences'), worker = NULL, lease_until = '-infinity'"
# Everything that a step may have changed, in one answer.
LOOK = """
SELECT coalesce((SELECT json_agg(json_build_array(g.connection_id, g.access_profile, g.state, g.reason, g.generation, g.token_version,
                        g.contested, t.connection_id IS NOT NULL, extract(epoch FROM g.alive_at - $3), k.why, k.signal, k.evidence,
                        extract(epoch FROM k.due_at - $3), k.waits))
           FROM gateway.grants g LEFT JOIN gateway.tokens t USING (connection_id, access_profile)
           LEFT JOIN gateway.grant_checks k USING (connection_id, access_profile)), '[]') AS grants,
       coalesce((SELECT json_object_agg(id, state) FROM gateway.connections), '{}') AS connections,
       coalesce((SELECT json_agg(json_build_array(connection_id, access_profile, signal, outcome, state_before, state_after, evidence)
                                 ORDER BY id) FROM gateway.history WHERE id > $1), '[]') AS history,
       coalesce((SELECT json_agg(json_build_array(connections[1], type, convert_from(data, 'UTF8')::json->>'previous_state',
                                                  convert_from(data, 'UTF8')::json->>'state') ORDER BY seq)
           FROM gateway.events WHERE seq > $2 AND delivery IS NULL), '[]') AS events,
       (SELECT last_value FROM gateway.events_seq) AS seq,
       EXISTS (SELECT FROM gateway.provider_conditions WHERE degraded_since IS NOT NULL) AS degraded"""


class Died(BaseException):
    """A process ended before its commit."""


class One(Database):
    """One connection, one statement at a time."""

    def __init__(self, connection: Any) -> None:
        super().__init__("")
        self.connection, self.dies = connection, False
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def acquire(self, limit_s: float | None = None) -> AsyncIterator[Db]:
        async with self._turn:
            yield cast(Db, self.connection)

    @asynccontextmanager
    async def transaction(self, isolation: str = "read_committed") -> AsyncIterator[Db]:
        async with self.acquire() as connection, self.connection.transaction(isolation=isolation):
            yield connection
            if self.dies:
                self.dies = False
                raise Died


class Vault:
    """Seals nothing: what is sealed is no part of these stories."""

    async def seal(self, place: Place, access: str, refresh: str | None) -> Sealed:
        return Sealed(1, access.encode(), None if refresh is None else refresh.encode())


@dataclass
class House:
    """A region, as far as the machine sees it."""

    database: One
    name: str = "default"
    tokens: Vault = field(default_factory=Vault)

    @property
    def following(self) -> One:
        return self.database


class Known:
    """A catalog of one integration."""

    def __init__(self, integration: Integration) -> None:
        self.integration = integration

    def integration_by_id(self, id: UUID) -> Integration | None:
        return self.integration if id == self.integration.id else None


def interpret(said: Said) -> Sequence[Signal]:
    """The message says it all."""
    told = json.loads(said.data)
    at = None if told["at"] is None else datetime.fromisoformat(told["at"])
    profiles = None if told["profiles"] is None else tuple(told["profiles"])
    return [
        Signal(says=told["says"], reason=f"said_{told['says']}", profiles=profiles, knows=told["knows"], at=at)
    ]  # fmt: skip


class Gate(Meaning):
    """Meaning that can be made to wait between the read and the transaction: a slow follower."""

    entered: asyncio.Event | None = None
    opened: asyncio.Event | None = None

    async def of(self, db: Db, events: Sequence[tuple[Marked, frozenset[UUID]]]) -> list[Meant]:
        meant = await super().of(db, events)
        if self.entered is not None and self.opened is not None:
            self.entered.set()
            await self.opened.wait()
        return meant


@dataclass
class Question:
    """A check that is asking: the story gives its answer."""

    check: Check
    due: Due
    answered: asyncio.Future[Any]


class Answers:
    """In the place of `Asking`: the provider's answer is the story's to give."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ask(self, check: Check, due: Due) -> Found:
        question = Question(check, due, asyncio.get_running_loop().create_future())
        self._world.asked = question
        self._world.entered.set()
        answer = await question.answered
        return cast(Found, await answer(due))


class World:
    """A database for many stories, one after the other."""

    def __init__(self, connection: Any, base: datetime) -> None:
        self.base, self.keyring = base, KEYRING
        self.database = One(connection)
        self.region = cast(Region, House(self.database))
        provider = all_providers()["standard-webhooks"]
        self.integration = Integration(
            id=UUID(int=2), name="toy", region="default", client_id=None, settings={}, unattributed="keep",
            provider=replace(provider, facts=replace(provider.facts, name=PROVIDER, one_service=True), interpret=interpret),
            trust=Trust(secrets=(), endpoint=False), access_profiles={"bot": PROFILE, "user": PROFILE},
        )  # fmt: skip
        self.catalog = cast(Catalog, Known(self.integration))
        self._ids = self._nth = 0
        self.clock = FakeClock(base)
        self.asked: Question | None = None
        self.entered = asyncio.Event()
        self.checker = self._checker()

    @classmethod
    async def open(cls, dsn: str) -> World:
        """On an empty, migrated database, whose clock stops."""
        connection = await asyncpg.connect(dsn, server_settings=SERVER_SETTINGS, statement_cache_size=500)
        base = (datetime.now(UTC) + timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
        await connection.execute(FREEZE.format(base.isoformat()))
        world = cls(connection, base)
        await connection.execute("SELECT nextval('gateway.events_seq')")  # from here on its last value was used
        await connection.execute(KEYS, [f"t{n}" for n in range(1, 10)])
        await consumers.lease(world.database, NAME, "nobody", 1.0)
        return world

    async def close(self) -> None:
        await self.database.connection.close()

    async def clear(self, *, sweep: bool) -> None:
        """For the next story."""
        await self.database.execute(CLEAR)
        if sweep:
            await self.database.execute(SWEEP)
        self.clock, self._nth = FakeClock(self.base), 0
        self.checker = self._checker()
        self.database.dies = False

    def _checker(self) -> Checker:
        return Checker(self.region, self.catalog, cast(Asking, Answers(self)), self.clock, self.new_id)

    def follower(self, worker: str) -> tuple[Follower, Gate]:
        meaning = Gate(self.catalog, self.keyring)
        return Follower(self.region, meaning, self.clock, worker, self.new_id, lambda: None), meaning

    def new_id(self) -> UUID:
        """Ids in the order in which they are made; their tails, which choose partitions, are the same in every story."""
        self._ids, self._nth = self._ids + 1, self._nth + 1
        return UUID(int=(self._ids << 64) + (7 << 40) + self._nth * 259)

    @property
    def last_id(self) -> UUID:
        """The latest that was made."""
        return UUID(int=(self._ids << 64) + (1 << 63))

    def at(self, seconds: float) -> datetime:
        return self.base + timedelta(seconds=seconds)

    async def look(self, last: UUID, seq: int) -> dict[str, Any]:
        row = await self.database.fetchrow(LOOK, last, seq, self.base)
        assert row is not None
        return {name: orjson.loads(of) if isinstance(of, str) else of for name, of in dict(row).items()}

    async def served(self, names: Sequence[tuple[UUID, str]]) -> list[bool]:
        """Which of these grants a read that is sent now gets a token of."""
        found = await check(self.database.connection, [Read(id, profile, 0, ACTOR) for id, profile in names])
        return [bool(one) and one[0].served for one in found]


KEYRING: Keyring = generate()
