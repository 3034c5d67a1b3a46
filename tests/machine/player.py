"""One story, played on PostgreSQL and on the model at once: what can happen, and what must be the same afterwards.

The provider's truth is part of it: at each moment a generation is alive or dead there. Messages about that are delivered
late, twice, in any order, or replayed; questions are asked and answered with whatever happens in between; processes die
before their commit. An act that makes no sense at its moment is passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import orjson

from gateway.checking import store as checking
from gateway.checking.asking import Found
from gateway.connections import conditions, grants, transitions
from gateway.connections import store as connections
from gateway.connections.fences import NAMED_FOR_EVER
from gateway.connections.grants import NewTokens
from gateway.connections.moves import Hint, Move
from gateway.connections.scopes import compared
from gateway.connections.states import State
from gateway.connections.telling import Because
from gateway.database import Db
from gateway.follower.follower import Follower
from gateway.regions import account_hash
from gateway.stream.append import NewEvent, append
from gateway.stream.consumers import partition_of
from gateway.tokens import rotation
from gateway.tokens.rotation import EXPIRED, REFUSED, Due, Fresh
from gateway.vault.tokens import Sealed
from providers.oauth import TokenSet
from tests.machine.model import CONFIRM_S, Connection, Grant, Heard, Ledger, Model
from tests.machine.world import PROFILE, PROVIDER, REWIND, Died, Gate, Question, World

Act = tuple[str, int, int, int]
Name = tuple[UUID, str]

SAYS = ("revoked", "revoked", "revoked", "suspended", "suspended", "resumed", "resumed", "scopes_changed", "doubtful")
KNOWS = ("time", "nothing", "token", "time", "nothing", "final")
SKEWS = (0, -60, 60, 30, -30, 0)
CANARY_S = 5  # between canaries
WAITS = (1, 30, 60, 61, 90, 180, 601, 660)
AGES = (0, 0, 30, 61)
INSERT = """
WITH c AS (INSERT INTO gateway.connections (id, tenant_id, integration_id, state, created_at, updated_at)
           SELECT id, tenant, $4, state, gateway.now(), gateway.now() FROM unnest($1::uuid[], $2::text[], $3::text[]) AS i(id, tenant, state))
SELECT last_value FROM gateway.events_seq"""
ACCOUNT = "INSERT INTO gateway.connection_accounts (integration_id, account_hash, connection_id) VALUES ($1, $2, $3)"
NOBODY = UUID(int=0)
FENCES = "SELECT partition, fence FROM gateway.consumer_partitions WHERE worker IS NOT NULL"
CURSORS = "SELECT partition, cursor_seq FROM gateway.consumer_partitions ORDER BY partition"


class Differs(AssertionError):
    """What is in the database is not what ought to be."""


@dataclass
class Message:
    """What the provider says, when it has happened."""

    says: str
    knows: str
    at: float  # by the provider's clock
    accounts: tuple[UUID, ...]
    profiles: tuple[str, ...] | None
    key: UUID


@dataclass
class Logged:
    """An event that the follower reads. `connection`: one of ours, at which it looks back."""

    message: Message | None
    id: UUID
    at: float
    partitions: frozenset[int]
    connections: tuple[UUID, ...]
    signal: bool = True


@dataclass
class Worker:
    follower: Follower
    gate: Gate
    task: asyncio.Task[int] | None = None  # of a slow one
    meant: tuple[list[Heard], list[Heard]] = ([], [])
    place: int = 0


@dataclass
class Asked:
    """A question at the provider that has not been answered yet."""

    name: Name
    due: Due
    alive: bool  # the provider's answer, of the moment when it was asked
    at: float
    look: tuple[int, int, str, str | None, float]  # generation, version, state, reason, since: as they were then
    question: Question | None = None
    task: asyncio.Task[Any] | None = None
    serial: int = 0
    tries: int = 0


@dataclass
class Player:
    world: World
    model: Model = field(default_factory=Model)
    told: list[str] = field(default_factory=list)
    outbox: list[Message] = field(default_factory=list)
    delivered: set[UUID] = field(default_factory=set)
    log: list[Logged] = field(default_factory=list)
    cursors: dict[int, int] = field(default_factory=dict)  # by partition: place in `log`
    workers: dict[int, Worker] = field(default_factory=dict)
    refreshes: list[Asked] = field(default_factory=list)
    checks: list[Asked] = field(default_factory=list)
    # The provider's truth.
    killed: dict[Name, float] = field(default_factory=dict)  # when whatever it had of this name last died
    dead: set[tuple[UUID, str, int]] = field(default_factory=set)  # generations
    suspended: set[Name] = field(default_factory=set)
    forever: set[UUID] = field(default_factory=set)  # accounts whose end was said by a name that never comes back
    refusals: dict[tuple[UUID, str, int], list[float]] = field(default_factory=dict)
    start: int = 0
    seq: int = 0
    last: UUID = NOBODY
    canary_at: float = float("inf")
    steps: int = 0

    # -- the stage -------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Two connections of one account in two tenants, one that nobody has consented to, and one without grants."""
        world, new_id = self.world, self.world.new_id
        self.acme, self.solo = (  # nobody else's: the log still has what earlier stories said of theirs
            account_hash(world.keyring, world.integration.id, f"{name} {new_id()}") for name in ("acme", "solo")
        )  # fmt: skip
        self.a, self.b, self.c, self.z = (new_id() for _ in range(4))
        self.last = self.z
        ids, states = [self.a, self.b, self.c, self.z], ["pending"] * 3 + ["active"]
        self.start = self.seq = await world.database.fetchval(
            INSERT, ids, ["t1", "t2", "t3", "t1"], states, world.integration.id
        )
        await world.database.execute(ACCOUNT, world.integration.id, self.acme, self.z)
        for id, tenant in zip(ids, ("t1", "t2", "t3", "t1"), strict=True):
            self.model.connections[id] = Connection(id, tenant, set())
        bare = self.model.connections[self.z]
        bare.state, bare.accounts = "active", {self.acme}
        bare.grants[None] = Grant("active", generation=1, version=1)
        await self._consented(self.a, ("bot", "user"), whole=True, age=0, dies=False)
        await self._consented(self.b, ("bot",), whole=True, age=0, dies=False)
        await self.same()

    async def end(self) -> None:
        """Nothing of it goes on."""
        tasks = [one.task for one in (*self.workers.values(), *self.checks) if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def play(self, story: Sequence[Act]) -> None:
        """Raises: Differs."""
        for kind, x, y, z in story:
            self.model.history, self.model.events = [], []
            if await getattr(self, f"act_{kind}")(x, y, z):
                self.steps += 1
                await self.same()

    def names(self) -> list[Name]:
        return [
            (id, profile) for id, one in self.model.connections.items() for profile in one.grants if profile is not None
        ]

    def pick(self, x: int) -> Name | None:
        names = self.names()
        return names[x % len(names)] if names else None

    # -- what must be the same -------------------------------------------------------------------------------------

    async def same(self) -> None:
        """The database is as the model, and the promises hold whatever the model says."""
        seen = await self.world.look(self.last, self.seq)
        names = self.names()
        served = dict(zip(names, await self.world.served(names), strict=True)) if names else {}
        rows = {(UUID(row[0]), row[1]): row[2:] for row in seen["grants"]}
        self._promises(rows, served)
        model = self.model
        self._equal("grants", sorted(map(str, names)), sorted(map(str, rows)))
        for name in names:
            g, row = model.grant(name), rows[name]
            assert g is not None
            row[9] = None if row[9] is None else UUID(row[9])
            check = (None,) * 5 if g.check is None else g.check.shown()
            due = None if row[10] is None else round(row[10], 3)
            self._equal(
                f"{self.who(name)}", (g.state, g.reason, g.generation, g.version, g.contested, g.tokens, g.alive_at, *check),
                (*row[:6], float(row[6]), *row[7:10], due, row[11]),
            )  # fmt: skip
            self._equal(f"read of {self.who(name)}", g.served, served[name])
        states = {UUID(id): state for id, state in seen["connections"].items()}
        self._equal("connections", {id: one.state for id, one in model.connections.items()}, states)
        history = [(UUID(i), p, s, o, b, a, None if e is None else UUID(e)) for i, p, s, o, b, a, e in seen["history"]]
        self._equal("history", sorted(map(str, model.history)), sorted(map(str, history)))
        events = [
            (None if id is None else UUID(id), type.split(".")[2], before, state)
            for id, type, before, state in seen["events"]
        ]
        for id in {one[0] for one in (*model.events, *events)}:  # in order for each connection
            self._equal("events", [e for e in model.events if e[0] == id], [e for e in events if e[0] == id])
        self._equal("degraded", model.degraded, seen["degraded"])
        self.seq, self.last = seen["seq"], self.world.last_id

    def _promises(self, rows: dict[Name, list[Any]], served: dict[Name, bool]) -> None:
        for (id, profile), row in rows.items():
            state, reason, generation, contested = row[0], row[1], row[2], row[4]
            if served[id, profile] and (contested or state not in ("active", "suspect")):
                raise Differs(f"promise 4: a token of {self.who((id, profile))} leaves, which is {state}, {contested=}")
            if contested and row[7] != "contested" and state != "reauth_required":
                raise Differs(f"{self.who((id, profile))} is contested, and no check will decide it")
            one = self.model.connections[id]
            if state == "revoked" and (id, profile, generation) not in self.dead and not one.accounts & self.forever:
                raise Differs(f"promise 5: generation {generation} of {self.who((id, profile))} lives, and is revoked")
            if state == "reauth_required" and reason == REFUSED:
                at = self.refusals.get((id, profile, generation), [])
                if not at or max(at) - min(at) < CONFIRM_S:
                    raise Differs(f"promise 3: {self.who((id, profile))} was declared dead on one answer")

    def _equal(self, what: str, ought: Any, is_: Any) -> None:
        if ought != is_:
            raise Differs(f"{what}: ought to be\n  {ought}\nand is\n  {is_}")

    def who(self, name: tuple[UUID, str | None]) -> str:
        letter = {self.a: "A", self.b: "B", self.c: "C", self.z: "Z"}[name[0]]
        return letter if name[1] is None else f"{letter}.{name[1]}"

    def _told(self, what: str) -> bool:
        self.told.append(f"{self.model.now:g} s: {what}")
        return True

    async def _transaction(self, dies: bool, work: Callable[[Db], Awaitable[Any]]) -> bool:
        """Whether it committed."""
        database = self.world.database
        database.dies = dies
        try:
            async with database.transaction() as tx:
                await work(tx)
        except Died:
            return False
        return True

    def _said(self, *, looked_back: bool = False) -> None:
        """The events of this step are on the log, where the follower reads those that are marked."""
        for id, *_ in self.model.events[len(self.model.events) - self._fresh() :]:
            if id is not None and looked_back:
                self.log.append(Logged(None, self.world.new_id(), self.model.now, frozenset({partition_of(id)}), (id,)))

    def _fresh(self) -> int:
        return len(self.model.events)

    # -- what a user and a tenant do -------------------------------------------------------------------------------

    async def act_pass(self, x: int, y: int, z: int) -> bool:
        """Nothing: what a story shrinks to."""
        return False

    async def act_consent(self, x: int, y: int, z: int) -> bool:
        id = (self.a, self.a, self.b, self.c)[x % 4]
        if self.model.connections[id].state == "closed":
            return False
        profiles = (("bot", "user"), ("bot",), ("user",))[y % 3] if id == self.a else ("bot",)
        whole, age, dies = z % 5 != 4, AGES[x // 4 % 4], y // 3 % 4 == 3
        self._told(f"consent to {[self.who((id, p)) for p in profiles]}, {whole=}, tokens {age} s old, {dies=}")
        return await self._consented(id, profiles, whole=whole, age=age, dies=dies)

    async def _consented(self, id: UUID, profiles: Sequence[str], *, whole: bool, age: float, dies: bool) -> bool:
        model, world = self.model, self.world
        one, account = model.connections[id], self.solo if id == self.c else self.acme
        ledger, places = Ledger(whole, not whole, False), {}
        for profile in profiles:
            before = one.grants.get(profile)
            numbers = (1, 1) if before is None else (before.generation + 1, before.version + 1)
            places[profile] = (*numbers, world.new_id())

        async def work(tx: Db) -> None:
            await grants.lock(tx, id)
            connection = await connections.get(tx, id)
            await connections.know(tx, connection, account, [account], external_id=None, switched=False)
            moves = [self._move_consent(tx, id, p, whole, age, places[p]) for p in profiles]
            await transitions.apply(
                tx, moves, world.new_id, write=lambda: connections.mark(tx, [id]), looked_back=True
            )  # fmt: skip

        if not await self._transaction(dies, work):
            return True
        one.accounts = one.accounts | {account}
        signals = []
        for profile in profiles:
            generation, version, mark = places[profile]

            def save(g: Grant, of: tuple[int, int, UUID] = (generation, version, mark)) -> None:
                g.generation, g.version, g.mark = of
                g.alive_at, g.ledger, g.contested, g.tokens = model.now - age, ledger, False, True
                g.since = model.now

            signals.append(Heard(
                (id, profile), "authorized" if whole else "narrowed", ledger.reason, final=True, say="authorized", save=save
            ))  # fmt: skip
            if self.killed.get((id, profile), float("-inf")) > model.now - age:
                self.dead.add((id, profile, generation))  # it ended while its consent was under way
        model.apply(signals)
        self._said(looked_back=True)
        return True

    def _move_consent(
        self, tx: Db, id: UUID, profile: str, whole: bool, age: float, place: tuple[int, int, UUID]
    ) -> Move:  # fmt: skip
        generation, version, mark = place
        ledger = compared(PROFILE, ["a"] if whole else [])

        async def save(state: State, reason: str | None) -> None:
            await grants.put(
                tx, id, profile, state=state, reason=reason, generation=generation, token_version=version,
                ledger=ledger, parameters={}, reach_hash=None, marks=[mark], age_s=age,
            )  # fmt: skip
            new = NewTokens(
                sealed=Sealed(1, b"a", b"r"), token_type="Bearer", expires_in_s=None, refresh_expires_in_s=None
            )  # fmt: skip
            await grants.put_tokens(tx, id, profile, self.model.connections[id].tenant, generation, version, new)

        return Move(
            connection=id, access_profile=profile, signal="authorized" if whole else "narrowed",
            because=Because(cause="connect", source="consent"), fence=NAMED_FOR_EVER, say="authorized", save=save,
            made=(generation, version), reason=ledger.reason,
        )  # fmt: skip

    async def act_disconnect(self, x: int, y: int, z: int) -> bool:
        id = (self.b, self.c, self.a, self.z)[x % 4]
        if y % 3 or self.model.connections[id].state == "closed":
            return False
        dies = z % 4 == 3
        self._told(f"{self.who((id, None))} is disconnected, {dies=}")

        async def work(tx: Db) -> None:
            await grants.lock(tx, id)
            await grants.shred(tx, [name for name in self.names() if name[0] == id])
            await transitions.close(tx, id, self.world.new_id)

        if await self._transaction(dies, work):
            self.model.close(id)
        return True

    async def act_leave(self, x: int, y: int, z: int) -> bool:
        """The connection went to another account, which has no grant of this profile."""
        name = self.pick(x)
        if name is None or y % 3 or self.model.connections[name[0]].state == "closed":
            return False
        self._told(f"{self.who(name)} is left for another account")
        said = Because(cause="connect", source="consent")

        async def work(tx: Db) -> None:
            await grants.lock(tx, name[0])
            (held,) = [one for one in await grants.of(tx, [name[0]]) if one.access_profile == name[1]]
            await grants.leave(tx, held)
            move = Move(connection=name[0], access_profile=name[1], signal="left", because=said,
                        fence=NAMED_FOR_EVER, reason="account_switched")  # fmt: skip
            await transitions.apply(tx, [move], self.world.new_id)

        await self._transaction(False, work)
        grant = self.model.grant(name)
        assert grant is not None
        grant.tokens, grant.mark, grant.generation = False, None, grant.generation + 1
        self.dead.add((*name, grant.generation))  # nothing of the kind is there
        self.model.apply([Heard(name, "left", "account_switched", final=True)])
        return True

    async def act_wait(self, x: int, y: int, z: int) -> bool:
        await self._pass(WAITS[x % len(WAITS)])
        return self._told("…")

    async def _pass(self, seconds: float) -> None:
        self.model.now += seconds
        self.world.clock.move(seconds)
        await self.world.database.execute(
            "UPDATE gateway.clock SET shifted_by = make_interval(secs => $1)", float(self.model.now)
        )

    # -- what the provider does and says ---------------------------------------------------------------------------

    async def act_happens(self, x: int, y: int, z: int) -> bool:
        """Something happens at the provider, which will say so; often it is heard at once."""
        says, knows, model = SAYS[x % len(SAYS)], KNOWS[y % len(KNOWS)], self.model
        name = self.pick(z)
        if knows == "token":
            grant = None if name is None else model.grant(name)
            if name is None or grant is None or grant.mark is None:
                return False
            concerned, accounts, profiles = [name], (grant.mark,), None
        else:
            account = self.solo if x // 9 % 4 == 3 else self.acme
            profiles = (None, None, ("bot",), ("user",))[z % 4]
            mine = (self.c,) if account == self.solo else (self.a, self.b)
            concerned = [(id, p) for id in mine for p in ("bot", "user") if profiles is None or p in profiles]
            accounts = (account,)
        self._truth(says, knows, concerned, accounts)
        skew = SKEWS[z // 4 % len(SKEWS)]
        message = Message(says, knows, model.now + skew, accounts, profiles, self.world.new_id())
        self.outbox.append(message)
        who = [self.who(one) for one in concerned]
        self._told(f"message {len(self.outbox) - 1}: {says} {who}, knows {knows}, its clock {skew:+} s")
        if y // 6 % 3:
            await self._deliver(message, again=False)
            if y // 6 % 3 == 2:
                await self._follow(0, dies=False)
        return True

    def _truth(self, says: str, knows: str, concerned: Sequence[Name], accounts: tuple[UUID, ...]) -> None:
        for name in concerned:
            grant = self.model.grant(name)
            if says == "revoked":
                self.killed[name] = self.model.now
                if grant is not None:
                    self.dead.add((*name, grant.generation))
                if knows == "final":
                    self.forever.update(accounts)
            elif says == "suspended":
                self.suspended.add(name)
            elif says == "resumed":
                self.suspended.discard(name)

    async def act_deliver(self, x: int, y: int, z: int) -> bool:
        """A message comes: for the first time, again, or replayed under another id."""
        if not self.outbox:
            return False
        number = (len(self.outbox) - 1 - x) % len(self.outbox)
        again = y % 3 == 0
        self._told(f"message {number} is delivered{', replayed' if again else ''}")
        await self._deliver(self.outbox[number], again=again)
        if z % 2:
            await self._follow(0, dies=False)
        return True

    async def _deliver(self, message: Message, *, again: bool) -> None:
        world, id = self.world, self.world.new_id()
        key = id if again else message.key
        at = world.at(message.at).isoformat() if message.knows == "time" else None
        body = {"says": message.says, "knows": message.knows, "profiles": message.profiles, "at": at}
        event = NewEvent(
            id=id, key=key, window_s=3600, type=f"posthouse.delivery.{PROVIDER}.told", time=world.at(self.model.now),
            integration=world.integration.id, connection=None, accounts=message.accounts, drop_unmatched=False,
            signal=True, content_type="application/json", delivery=b'{"headers":{}}', data=orjson.dumps(body),
        )  # fmt: skip
        (kept,) = await append(world.database, [event])
        if kept.duplicate != (key in self.delivered):
            raise Differs(f"a delivery is a duplicate: {kept.duplicate}")
        if not kept.duplicate:
            self.delivered.add(key)
            found = self._found(message.accounts)
            of = found or (message.accounts[0],)
            self.log.append(
                Logged(message, id, self.model.now, frozenset(partition_of(one) for one in of), tuple(found))
            )

    def _found(self, accounts: Sequence[UUID]) -> list[UUID]:
        """The open connections of these accounts, or tokens."""
        return sorted(
            one.id for one in self.model.connections.values()
            if one.state not in ("pending", "closed")
            and (one.accounts | {g.mark for g in one.grants.values() if g.mark is not None}) & set(accounts)
        )  # fmt: skip

    async def act_outage(self, x: int, y: int, z: int) -> bool:
        """Six strangers of three tenants are refused within the window."""
        if y % 2:
            return False
        world = self.world
        kind: Literal["refused", "rejected"] = "rejected" if x % 5 == 4 else "refused"
        strangers = [(f"t{7 + n % 3}", world.new_id()) for n in range(6)]
        self._told(f"six strangers are {kind}")

        async def work(tx: Db) -> None:
            said = []
            for tenant, id in strangers:
                counted = await conditions.failed(tx, PROVIDER, kind, tenant, id, world.new_id())
                said += [] if counted.event is None else [counted.event]
            if said:
                await append(tx, said)

        await self._transaction(False, work)
        was = self.model.degraded
        for tenant, id in strangers:
            self.model.failed(kind, tenant, id, self.model.events)
        if self.model.degraded and not was:
            self.canary_at = self.model.now + CANARY_S
        return True

    # -- the follower ----------------------------------------------------------------------------------------------

    async def act_follow(self, x: int, y: int, z: int) -> bool:
        self._told(f"follower {x % 2} works{', and dies' if y % 4 == 3 else ''}")
        await self._follow(x % 2, dies=y % 4 == 3)
        return True

    async def _follow(self, number: int, *, dies: bool) -> None:
        worker = self._worker(number)
        if worker.task is not None:
            return
        follower = worker.follower
        await follower._lease()
        if not await self._lawful(worker):
            await follower.run_once()  # it learns that its leases were taken, if it has anything to do
            return
        events = self._due(follower)
        meant = self._mean(events, follower)
        place = len(self.log)
        self.world.database.dies = dies and bool(events)
        try:
            await follower.run_once()
        except Died:
            del self.workers[number]
            await self._pass(7)  # its leases end
            return
        self._heard(meant)
        self.cursors |= dict.fromkeys(follower._held, place)

    def _worker(self, number: int) -> Worker:
        if number not in self.workers:
            self.workers[number] = Worker(*self.world.follower(f"w{self.world.new_id().hex}"))
        return self.workers[number]

    async def _lawful(self, worker: Worker) -> bool:
        fences = {row["partition"]: row["fence"] for row in await self.world.database.fetch(FENCES)}
        return all(fences.get(p) == one.fence for p, one in worker.follower._held.items())

    def _due(self, follower: Follower) -> list[tuple[Logged, frozenset[int]]]:
        due = []
        for place, logged in enumerate(self.log):
            mine = frozenset(p for p in logged.partitions if p in follower._held and place >= self.cursors.get(p, 0))
            if mine:
                due.append((logged, mine))
        return due

    def _mean(
        self, events: Sequence[tuple[Logged, frozenset[int]]], follower: Follower
    ) -> tuple[list[Heard], list[Heard]]:
        """What they come to, for the connections that are this follower's."""
        moves: list[Heard] = []
        hints: list[Heard] = []
        for logged, mine in events:
            if logged.message is not None:
                of = [c for c in logged.connections if partition_of(c) in mine] or self._found(logged.message.accounts)
                if logged.connections and not any(partition_of(c) in mine for c in logged.connections):
                    continue
                for id in of:
                    self._aim(logged, id, moves, hints)
                continue
            (id,) = logged.connections
            names = self.model.connections[id].accounts | {
                g.mark for g in self.model.connections[id].grants.values() if g.mark is not None
            }
            for earlier in self.log[: self.log.index(logged)]:
                unmatched = earlier.message is not None and not earlier.connections
                if unmatched and earlier.at >= self.model.now - 900 and set(earlier.message.accounts) & names:  # type: ignore[union-attr]
                    self._aim(earlier, id, moves, hints)
        return moves, hints

    def _aim(self, logged: Logged, id: UUID, moves: list[Heard], hints: list[Heard]) -> None:
        message = logged.message
        assert message is not None
        for profile, grant in sorted(self.model.connections[id].grants.items(), key=lambda item: item[0] or ""):
            if profile is None:
                if message.profiles is not None or message.knows == "token":
                    continue
            elif message.profiles is not None and profile not in message.profiles:
                continue
            if message.knows == "token" and grant.mark not in message.accounts:
                continue
            knows = {"final": message.knows == "final", "at": message.at if message.knows == "time" else None}
            generation = grant.generation if message.knows == "token" else None
            if message.says in ("revoked", "suspended", "resumed"):
                moves.append(Heard(
                    (id, profile), message.says, f"said_{message.says}", generation=generation, evidence=logged.id,
                    asks=profile is not None, **knows,  # type: ignore[arg-type]
                ))  # fmt: skip
            elif profile is not None:
                changed = "scopes_changed" if message.says == "scopes_changed" else None
                hints.append(Heard((id, profile), "hint", changed, evidence=logged.id))

    def _heard(self, meant: tuple[list[Heard], list[Heard]]) -> None:
        if meant[0] or meant[1]:
            self.model.apply(meant[0], hints=meant[1])

    async def act_slow(self, x: int, y: int, z: int) -> bool:
        """A follower has read and goes to sleep, or wakes up."""
        number = x % 2
        worker = self._worker(number)
        if worker.task is not None:
            self._told(f"follower {number} wakes up")
            return await self._wakes(worker)
        await worker.follower._lease()
        if not await self._lawful(worker) or not (events := self._due(worker.follower)):
            return False
        self._told(f"follower {number} has read, and is slow")
        worker.place, worker.meant = len(self.log), self._mean(events, worker.follower)
        gate = worker.gate
        gate.entered, gate.opened = asyncio.Event(), asyncio.Event()
        worker.task = asyncio.create_task(worker.follower.run_once())
        await gate.entered.wait()
        return True

    async def _wakes(self, worker: Worker) -> bool:
        lawful = await self._lawful(worker)
        mine = set(worker.follower._held)
        cursors = {row["partition"]: row["cursor_seq"] for row in await self.world.database.fetch(CURSORS)}
        task, worker.task, gate = worker.task, None, worker.gate
        assert task is not None
        assert gate.opened is not None
        opened, gate.entered, gate.opened = gate.opened, None, None
        opened.set()
        await task
        if lawful:
            self._heard(worker.meant)
            self.cursors |= dict.fromkeys(mine, worker.place)
        else:
            after = {row["partition"]: row["cursor_seq"] for row in await self.world.database.fetch(CURSORS)}
            self._equal("cursors that a slow follower holds no more", cursors, after)
        return True

    async def act_rewind(self, x: int, y: int, z: int) -> bool:
        """An operator puts the follower back to where the story began."""
        if y % 3:
            return False
        self._told("the follower is put back to the beginning")
        await self.world.database.execute(REWIND, self.start)
        self.cursors = {}
        return True

    # -- refreshes -------------------------------------------------------------------------------------------------

    def _alive(self, name: Name) -> bool:
        grant = self.model.grant(name)
        assert grant is not None
        return (*name, grant.generation) not in self.dead and name not in self.suspended

    async def _asked(self, name: Name) -> Asked | None:
        stored = await grants.stored(self.world.database, *name)
        g = self.model.grant(name)
        if stored is None or g is None:
            return None
        due = Due(self.world.region, self.world.integration, stored)
        look = (g.generation, g.version, g.state, g.reason, g.since)
        return Asked(name, due, self._alive(name), self.model.now, look)

    async def act_refresh(self, x: int, y: int, z: int) -> bool:
        """A refresh goes out. Its answer comes at once, or whenever the story says."""
        name = self.pick(x)
        grant = None if name is None else self.model.grant(name)
        if name is None or grant is None or grant.state not in ("active", "suspect") or grant.contested:
            return False
        check = grant.check
        waits = (
            check is not None and check.why in ("refused", "rejected") and (check.waits or check.due > self.model.now)
        )
        asked = None if waits else await self._asked(name)
        if asked is None or not grant.tokens:
            return False
        self._told(f"{self.who(name)} is refreshed …")
        self.refreshes.append(asked)
        return await self.act_refreshed(0, y, z) if y // 6 % 2 else True

    async def act_refreshed(self, x: int, y: int, z: int) -> bool:
        """… and the answer comes: the truth, no answer, or an outage's `invalid_grant`."""
        if not self.refreshes:
            return False
        asked = self.refreshes.pop(-1 - x % len(self.refreshes))
        lies, dies, lost = y % 6 in (1, 2), z % 6 == 5, z % 6 == 4
        alive = asked.alive and not lies
        self._told(
            f"… {self.who(asked.name)}: {'new tokens' if alive else 'refused'}, {lies=}, scopes {lost=}, {dies=}"
        )
        if alive:
            await self._kept(asked, whole=not lost, dies=dies)
        else:
            await self._refused(asked, dies=dies)
        return True

    async def _kept(self, asked: Asked, *, whole: bool, dies: bool = False) -> str:
        """What `rotation.keep` does, on both sides; the outcome."""
        mark, (generation, version, *_), model = self.world.new_id(), asked.look, self.model
        tokens = TokenSet(access_token="a", refresh_token="r", scopes=frozenset(["a"] if whole else []))
        fresh = Fresh(tokens, "r", self.world.clock.monotonic(), model.now - asked.at)
        self.world.database.dies = dies
        try:
            known = rotation.Known(marks=(mark,), fingerprint=None, source="refresh", holder=mark)
            written = await rotation.keep(asked.due, fresh, 0.0, self.world.new_id, known, fence=None)
        except Died:
            return "died"
        looked = asked.due.stored.grant.ledger
        before = Ledger("a" in looked.granted, "a" in looked.missing, "a" in looked.lost)
        ledger = before.after(whole)

        def save(g: Grant) -> None:
            g.version, g.mark, g.ledger, g.tokens = version + 1, mark, ledger, True
            g.alive_at = max(g.alive_at, asked.at)

        heard = Heard(
            asked.name, "refreshed" if ledger.reason is None else "scopes_lost", ledger.reason, generation=generation,
            version=version, save=save, also="scopes_changed" if (before.granted, before.lost) != (ledger.granted, ledger.lost) else None,
        )  # fmt: skip
        (outcome,) = model.apply([heard])
        self._equal("a new token set was written", outcome in ("moved", "stays"), written)
        return "refreshed" if written else "overtaken"

    async def _refused(self, asked: Asked, *, dies: bool = False) -> str:
        """What a refusal does, as `Endings.refused` says it: evidence at first, and proof much later."""
        generation, version, state, reason, since = asked.look
        self.refusals.setdefault((*asked.name, generation), []).append(self.model.now)
        again = state == "suspect" and reason == REFUSED and asked.at - since >= CONFIRM_S
        self.world.database.dies = dies
        try:
            verdict: rotation.Verdict = "again" if again else "first"
            await rotation.refused(asked.due, "refused", "invalid_grant", self.world.new_id, verdict=verdict)
        except Died:
            return "died"
        was = self.model.degraded
        (outcome,) = self.model.apply([Heard(
            asked.name, "refused" if again else "doubted", REFUSED, generation=generation, version=version,
            failure="refused", again=True,
        )])  # fmt: skip
        if self.model.degraded and not was:
            self.canary_at = self.model.now + CANARY_S
        return "overtaken" if outcome in ("stale", "absent") else "refused"

    async def act_ran_out(self, x: int, y: int, z: int) -> bool:
        """It has expired, and nothing can refresh it; somebody else may have moved since that was seen."""
        if y % 3:
            return False
        if not self.refreshes:
            return False
        asked = self.refreshes.pop()
        self._told(f"{self.who(asked.name)} has run out")
        await rotation.run_out(asked.due, self.world.new_id)
        generation, version, *_ = asked.look
        self.model.apply([Heard(asked.name, "ran_out", EXPIRED, generation=generation, version=version)])
        return True

    async def act_report(self, x: int, y: int, z: int) -> bool:
        """Platform code says that a token was refused."""
        name = self.pick(x)
        if name is None or self.model.connections[name[0]].state == "closed":
            return False
        self._told(f"a report: {self.who(name)} is rejected")
        hint = Hint(
            connection=name[0], access_profile=name[1], provider=PROVIDER, why="rejected",
            because=Because(cause="token_rejected", source="report"),
        )  # fmt: skip

        async def work(tx: Db) -> None:
            await transitions.apply(tx, [], self.world.new_id, hints=[hint])

        await self._transaction(False, work)
        self.model.apply([], hints=[Heard(name, "hint", None, failure="rejected")])
        return True

    # -- checks ----------------------------------------------------------------------------------------------------

    async def act_check(self, x: int, y: int, z: int) -> bool:
        """A check is claimed and asks. Its answer comes at once, or whenever the story says."""
        due = [n for n in self.names() if (g := self.model.grant(n)) and g.check and self._claimable(n)]
        if not due:
            return False
        name = due[x % len(due)]
        self.world.entered.clear()
        task = asyncio.create_task(self.world.checker.run(*name))
        return await self._begun(name, task, y, z, at_once=bool(y // 6 % 2))

    def _claimable(self, name: Name) -> bool:
        grant = self.model.grant(name)
        check = None if grant is None else grant.check
        return check is not None and not check.waits and check.due <= self.model.now and check.lease <= self.model.now

    async def _begun(self, name: Name, task: asyncio.Task[Any], y: int, z: int, *, at_once: bool) -> bool:
        grant = self.model.grant(name)
        assert grant is not None
        assert grant.check is not None
        entered = asyncio.create_task(self.world.entered.wait())
        await asyncio.wait({task, entered}, return_when=asyncio.FIRST_COMPLETED)
        entered.cancel()
        grant.check.lease = self.model.now + 60
        grant.serials += 1
        grant.check.serial = grant.serials
        grant.check.tries += 1
        self._told(f"a check of {self.who(name)} ({grant.check.why}, {grant.check.signal}) asks …")
        if grant.state not in ("active", "suspect", "suspended"):
            grant.check = None
            self._equal("nothing is asked", "overtaken", await task)
            return True
        asked = await self._asked(name)
        assert asked is not None
        asked.task, asked.question, asked.serial, asked.tries = (
            task,
            self.world.asked,
            grant.check.serial,
            grant.check.tries,
        )
        if asked.question is None or asked.question.check.why != grant.check.why:
            raise Differs(f"the check asks about {asked.question}, and should about {grant.check}")
        self.checks.append(asked)
        return await self.act_checked(0, y, z) if at_once else True

    async def act_canary(self, x: int, y: int, z: int) -> bool:
        """One of those that wait asks whether the provider is well again."""
        model = self.model
        if not model.degraded or self.canary_at > model.now:
            return False
        claimed = await checking.canaries(self.world.database)
        waiting = {
            n: g.check.due for n in self.names()
            if (g := model.grant(n)) and g.check and g.check.waits and g.check.lease <= model.now
            and (g.check.tries == 0 or g.check.due <= model.now)
        }  # fmt: skip
        self._equal("a canary is sent", bool(waiting), bool(claimed))
        if not claimed:
            return self._told("no canary waits")
        self.canary_at = model.now + CANARY_S
        (check,) = claimed
        self._equal("its turn", min(waiting.values()), waiting.get(check.name))
        self.world.entered.clear()
        return await self._begun(
            check.name, asyncio.create_task(self.world.checker._run(check)), y, z, at_once=True
        )  # fmt: skip

    async def act_checked(self, x: int, y: int, z: int) -> bool:
        """… and the answer comes: of the moment when it was asked, or none."""
        if not self.checks:
            return False
        asked = self.checks.pop(-1 - x % len(self.checks))
        assert asked.question is not None
        assert asked.task is not None
        why, signal = asked.question.check.why, asked.question.check.signal
        kind = "undecided" if y % 6 == 5 else "alive" if asked.alive else "dead"
        by_refresh, whole, dies = z % 3 == 1, z % 5 != 4, z % 7 == 6
        self._told(f"… {self.who(asked.name)}: {kind}, {by_refresh=}, scopes {whole=}, {dies=}")
        found: list[Found] = []

        async def answer(due: Due) -> Found:
            found.append(await self._found_out(asked, kind, why, signal, by_refresh, whole))
            self.world.database.dies = dies and found[0].answer in ("alive", "refreshed", "dead")
            return found[0]

        asked.question.answered.set_result(answer)
        try:
            await asked.task
        except Died:
            return True
        self.world.database.dies = False
        self._decide(asked, found[0], why, signal)
        return True

    async def _found_out(
        self, asked: Asked, kind: str, why: str, signal: str | None, by_refresh: bool, whole: bool
    ) -> Found:  # fmt: skip
        if kind == "undecided":
            return Found(answer="undecided")
        if why == "contested":
            if kind == "alive" and by_refresh and signal != "resumed":
                return Found(answer=await self._kept(asked, whole=True))  # type: ignore[arg-type]
            return Found(answer="alive" if kind == "alive" else "dead")
        if kind == "dead":
            return Found(answer=await self._refused(asked))  # type: ignore[arg-type]
        if why == "refused" or (by_refresh and signal is None):
            return Found(answer=await self._kept(asked, whole=whole))  # type: ignore[arg-type]
        scopes = frozenset(["a"] if whole else []) if signal == "scopes_changed" else None
        return Found(answer="alive", scopes=scopes)

    def _decide(self, asked: Asked, found: Found, why: str, signal: str | None) -> None:
        """What the checker makes of it, said once more."""
        model, grant = self.model, self.model.grant(asked.name)
        assert grant is not None
        check = grant.check
        mine = check is not None and check.serial == asked.serial
        generation, version, *_ = asked.look
        overtaken = mine and (generation, version) != (grant.generation, grant.version) and found.answer != "refreshed"

        def later(pause: float) -> None:
            if mine:
                assert check is not None
                check.lease, check.due = float("-inf"), model.now + pause

        if found.answer == "undecided":
            later(min(2.0 * 2 ** (asked.tries - 1), 30.0 if why == "contested" else 120.0))
        elif found.answer == "overtaken":
            later(1.0)
        elif found.answer in ("alive", "refreshed"):
            if mine and overtaken:
                later(1.0)
            elif mine:
                grant.alive_at = max(grant.alive_at, asked.at)
                model.apply(self._acquits(asked, found, signal))
            model.found_alive(renewed=found.answer == "refreshed")
        elif why == "contested" and model.degraded:
            later(30.0)
        elif why == "contested":
            if mine and overtaken:
                later(1.0)
            elif mine:
                assert check is not None
                true = "suspended" if signal == "resumed" else signal
                assert true is not None
                if signal == "resumed" and not grant.contested:
                    grant.check = None
                    return
                reason = grant.reason if signal == "resumed" else f"said_{true}"
                model.apply([Heard(
                    asked.name, true, reason, generation=generation, version=version,
                    evidence=check.evidence, confirms=True,
                )])  # fmt: skip
        else:  # a canary that stays dead is asked seldomer each time
            assert asked.question is not None
            later(CONFIRM_S * (2 ** min(asked.tries - 1, 3) if asked.question.check.waits else 1))

    def _acquits(self, asked: Asked, found: Found, signal: str | None) -> list[Heard]:
        grant = self.model.grant(asked.name)
        assert grant is not None
        generation, version, *_ = asked.look
        knows: dict[str, Any] = {"generation": generation}
        if found.answer == "alive":
            knows["version"] = version
        moves = []
        evidence = grant.check.evidence if grant.check is not None and grant.check.why == "contested" else None
        looked = asked.due.stored.grant.ledger
        before = Ledger("a" in looked.granted, "a" in looked.missing, "a" in looked.lost)
        if found.scopes is not None and (ledger := before.after("a" in found.scopes)) != before:

            def save(g: Grant) -> None:
                g.ledger = ledger

            moves.append(Heard(
                asked.name, "acquitted" if ledger.reason is None else "scopes_lost", ledger.reason, generation=generation,
                version=version, save=save, also="scopes_changed",
            ))  # fmt: skip
        if signal == "resumed":
            moves.append(Heard(asked.name, "resumed", None, evidence=evidence, confirms=True, **knows))
        else:
            moves.append(Heard(asked.name, "acquitted", None, evidence=evidence, **knows))
        return moves
