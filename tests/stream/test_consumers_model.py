"""Consumers against a model: whatever workers, clocks, kills and resets do, a partition is in one pair of hands.

Hypothesis plays the workers. Each keeps what it was last given, and dead ones speak up again with what they held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from gateway.database import Database
from gateway.errors import StaleFence
from gateway.stream import consumers
from gateway.stream.consumers import PARTITIONS, Commit, Leased
from gateway.stream.cursor import Cursor
from gateway.stream.read import latest
from tests import postgres
from tests.stream.making import event, keep, shift

TTL_S = 100
WORKERS = st.sampled_from(["ann", "bob", "cyd", "dan", "eve"])
WHICH = st.integers(0, 9)
PARTS: dict[str, Callable[[Iterable[int]], list[int]]] = {
    "all": lambda held: list(held),
    "every other": lambda held: list(held)[::2],
    "the later half": lambda held: list(held)[sum(1 for _ in held) // 2 :],
    "one": lambda held: list(held)[:1],
    "none": lambda held: [],
}  # of what a worker holds
SOME = st.sampled_from(list(PARTS))
ROWS = """SELECT partition, fence, worker, cursor_seq, lease_until > gateway.now() AS live
            FROM gateway.consumer_partitions WHERE consumer = $1 ORDER BY partition"""


@dataclass
class Partition:
    """What the model knows of one."""

    fence: int = 0
    holder: str | None = None  # who was given it last and has not given it back
    until: int = 0  # of the model's clock
    cursor: int = 0


@dataclass
class World:
    """One example: a consumer of its own in the test's database."""

    runner: asyncio.Runner
    database: Database
    name: str
    now: int = 0
    parts: dict[int, Partition] = field(default_factory=lambda: {p: Partition() for p in range(PARTITIONS)})
    hands: dict[str, dict[int, Leased]] = field(default_factory=dict)
    ghosts: list[tuple[str, dict[int, Leased]]] = field(default_factory=list)
    wanting: dict[str, int] = field(default_factory=dict)  # worker: until when it counts

    def live(self, partition: int) -> bool:
        part = self.parts[partition]
        return part.holder is not None and part.until > self.now


class Consumers(RuleBasedStateMachine):
    """The rules; `worlds` gives each example its own."""

    worlds: Iterator[World]

    @initialize()
    def begin(self) -> None:
        self.world = next(self.worlds)
        self.run(keep(self.world.database, *(event() for _ in range(5))))
        self.lease("ann", "none", all_asked=False)

    def run(self, work: Any) -> Any:
        return self.world.runner.run(work)

    @rule(worker=WORKERS, some=SOME, all_asked=st.booleans())
    def lease(self, worker: str, some: str, all_asked: bool) -> None:
        """A worker comes round, and gives back what it was asked for, or whatever it likes."""
        world = self.world
        mine = world.hands.get(worker, {})
        if mine:
            world.ghosts.append((worker, mine))  # a commit of what it held so far may still be on its way
        release = {p for p, one in mine.items() if one.release} if all_asked else set(PARTS[some](mine))
        held = self.run(consumers.lease(world.database, world.name, worker, TTL_S, sorted(release)))
        world.wanting = {w: until for w, until in world.wanting.items() if until > world.now}
        world.wanting[worker] = world.now + TTL_S
        got = {one.partition: one for one in held}
        for p, part in world.parts.items():
            renewed = world.live(p) and part.holder == worker and p not in release
            if p in got and renewed:
                assert got[p].fence == part.fence
            elif p in got:
                assert not world.live(p) or (part.holder == worker and p in release)
                assert got[p].fence > part.fence
            else:
                assert not renewed, "what is held and not released is renewed"
                if part.holder == worker and p in release:
                    part.holder = None
                continue
            assert got[p].cursor.seq == part.cursor
            world.parts[p] = replace(part, fence=got[p].fence, holder=worker, until=world.now + TTL_S)
        counted = {*world.wanting, *(str(part.holder) for p, part in world.parts.items() if world.live(p))}
        staying = sum(not one.release for one in held)
        assert staying <= -(-PARTITIONS // len(counted))
        world.hands[worker] = got

    @rule(some=SOME, back=st.integers(0, 3), which=WHICH)
    def commit(self, some: str, back: int, which: int) -> None:
        """A worker commits what it believes to hold."""
        hands = [held for held in self.world.hands.values() if held]
        if hands:
            self.speak(hands[which % len(hands)], some, back)

    @rule(some=SOME, back=st.integers(0, 3), which=WHICH)
    def haunt(self, some: str, back: int, which: int) -> None:
        """One that was dead, or an older thought of a living one, commits."""
        if self.world.ghosts:
            self.speak(self.world.ghosts[-1 - which % len(self.world.ghosts)][1], some, back)

    def speak(self, held: dict[int, Leased], some: str, back: int) -> None:
        world = self.world
        end: Cursor = self.run(self.end())
        cursor = Cursor(end.epoch, max(end.seq - back, 0))
        done = [Commit(p, held[p].fence, cursor) for p in PARTS[some](held)]
        valid = [c for c in done if world.parts[c.partition].holder and world.parts[c.partition].fence == c.fence]
        stale = sorted(c.partition for c in done if c not in valid)
        try:
            self.run(consumers.commit(world.database, world.name, done))
            assert not stale
        except StaleFence as refused:
            assert refused.extra == {"partitions": stale}  # noqa: PT017 it may also be right not to raise
        for one in valid:
            part = world.parts[one.partition]
            part.cursor = max(part.cursor, cursor.seq)

    async def end(self) -> Cursor:
        async with self.world.database.acquire() as db:
            return await latest(db)

    @rule(seconds=st.sampled_from([20, 60, 120]))
    def time_passes(self, seconds: int) -> None:
        """Leases end by the database's clock."""

        async def move() -> None:
            async with self.world.database.acquire() as db:
                await shift(db, timedelta(seconds=seconds))

        self.run(move())
        self.world.now += seconds

    @rule(worker=WORKERS)
    def dies(self, worker: str) -> None:
        """Killed: it forgets, but something of it may still be on its way."""
        if held := self.world.hands.pop(worker, {}):
            self.world.ghosts.append((worker, held))

    @rule(worker=WORKERS)
    def leaves(self, worker: str) -> None:
        """An orderly end."""
        world = self.world
        self.run(consumers.leave(world.database, world.name, worker))
        world.wanting.pop(worker, None)
        for part in world.parts.values():
            if part.holder == worker:
                part.holder = None
        self.dies(worker)

    @rule()
    def news(self) -> None:
        self.run(keep(self.world.database, event(), event()))

    @rule(to=st.sampled_from(["earliest", "latest"]))
    def reset(self, to: str) -> None:
        """The only way back."""
        world = self.world
        cursor = self.run(consumers.reset(world.database, world.name, to))
        for p, one in self.rows().items():
            assert one["fence"] > world.parts[p].fence
            world.parts[p] = Partition(one["fence"], None, 0, cursor.seq)

    def rows(self) -> dict[int, Any]:
        return {row["partition"]: row for row in self.run(self.world.database.fetch(ROWS, self.world.name))}

    @invariant()
    def one_pair_of_hands(self) -> None:
        """The database agrees with the model, and at most one worker's word is good for a partition."""
        if not hasattr(self, "world"):
            return
        world = self.world
        good: dict[int, set[str]] = {}
        for worker, held in [*world.hands.items(), *world.ghosts]:
            for p, one in held.items():
                if world.parts[p].holder and one.fence == world.parts[p].fence:
                    good.setdefault(p, set()).add(worker)
        for p, row in self.rows().items():
            part = world.parts[p]
            assert (row["fence"], row["worker"], row["cursor_seq"]) == (part.fence, part.holder, part.cursor)
            assert row["live"] == world.live(p)
            assert good.get(p, set()) <= {part.holder}

    def teardown(self) -> None:
        """Whatever happened: the living soon share everything evenly."""
        if not hasattr(self, "world"):
            return
        self.time_passes(120)
        for _ in range(4):
            for worker in ("ann", "bob", "cyd"):
                self.lease(worker, "none", all_asked=True)
        sizes = sorted(len(self.world.hands[worker]) for worker in ("ann", "bob", "cyd"))
        assert sizes == [21, 21, 22]


def play(template: postgres.Template, examples: int, steps: int) -> None:
    """Run the machine on a database of its own."""
    with asyncio.Runner() as runner:
        dsn = runner.run(template.clone())
        database = Database(dsn, size=2)
        runner.run(database.open())

        def worlds() -> Iterator[World]:
            number = 0
            while True:
                number += 1
                yield World(runner, database, f"c{number}")

        machine = type("Played", (Consumers,), {"worlds": worlds()})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples, stateful_step_count=steps, deadline=None,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )  # fmt: skip
        finally:
            runner.run(database.close())
            runner.run(template.drop(dsn))


def test_a_partition_is_in_one_pair_of_hands(template: postgres.Template) -> None:
    """Leases, commits, kills, resets, clocks in any order."""
    play(template, examples=12, steps=30)


@pytest.mark.long
def test_a_partition_is_in_one_pair_of_hands_at_length(template: postgres.Template) -> None:
    """The same, longer."""
    play(template, examples=300, steps=50)
