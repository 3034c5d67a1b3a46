"""One story: a connection's token is read, renewed, checked and taken away, while processes die, databases go and answers are lost.

What happens when is drawn; nothing waits for it to be over. In the end everything is mended, time goes by, and it is judged by
what the provider knows: who spent which refresh token when, and whether its answer had come.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from gateway.connections import grants, transitions
from gateway.connections.fences import Fence
from gateway.connections.moves import Move
from gateway.connections.telling import Because
from gateway.ending import closing
from gateway.errors import Problem
from gateway.regions import DEFAULT
from gateway.tokens.check import Read
from gateway.tokens.intent import LOST_PAUSE_S
from gateway.vault.tokens import Place
from tests.storm.theirs import TROUBLES, Spend
from tests.storm.town import EXPIRE, GRACE_S, Rotation
from tests.storm.world import ROTATIONS, WAIT_S, House, World, connected, consented

ACTOR = UUID(int=1)
SPOOL_S = 900.0
SLACK_S = 5.0  # a reader's checks and a busy machine, beside its patience
PATIENCE_S = 30.0  # with anything at all
MOMENTS = 110  # of a refresh, about
PASSES = (0.5, 3.0, 9.0, 17.0, 36.0, 61.0, 301.0, 601.0, 931.0)
# How often each act comes.
WEIGHTS = {
    "read": 10, "renew": 3, "check": 3, "expire": 5, "trouble": 4, "open": 2, "turn": 6, "pass": 4, "kill": 1, "doom": 3,
    "start": 3, "cut": 1, "mend": 2, "lose": 1, "reconnect": 1, "disconnect": 0.2, "revoke": 0.4, "withdraw": 0.3,
}  # fmt: skip
REACHING = frozenset({"reconnect", "disconnect", "revoke"})
ROW = "SELECT state, reason, generation, token_version FROM gateway.grants WHERE connection_id = $1"
TOKENS = "SELECT * FROM gateway.tokens WHERE connection_id = $1"
MOMENT = timedelta(seconds=1)
FINAL = frozenset({"reauth_required", "connection_revoked", "connection_closed"})
OPEN = """SELECT (SELECT count(*) FROM gateway.refreshes WHERE connection_id = $1)
               + (SELECT count(*) FROM gateway.grant_checks WHERE connection_id = $1)"""


class Wrong(AssertionError):
    """What must not be, was."""


@dataclass
class Player:
    """One story on a world."""

    world: World
    chance: random.Random
    told: list[str] = field(default_factory=list)
    tasks: list[tuple[House, asyncio.Task[Any]]] = field(default_factory=list, repr=False)
    counts: Counter[str] = field(default_factory=Counter)
    granted: dict[str, int] = field(default_factory=dict)  # at the provider: of which generation of ours
    fallen: list[House] = field(default_factory=list, repr=False)
    revoked: set[int] = field(default_factory=set)  # generations, by the provider's word
    is_over: bool = False  # disconnected
    longest_s: float = 0.0

    async def play(self) -> None:
        """Raises: Wrong."""
        world, chance = self.world, self.chance
        self.rotation: Rotation = chance.choice(ROTATIONS)
        await world.begin(self.rotation)
        self._say(f"a provider of rotation {self.rotation}")
        house = self._house()
        self.id = house.gateway.new_id()
        await connected(house, self.id, world.integrations[self.rotation])
        await self._consent(house)
        await self._act_expire()
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        for kind in chance.choices(kinds, weights, k=chance.randint(8, 28)):
            if kind not in REACHING or self._reaching():
                await getattr(self, f"_act_{kind}")()
            for _ in range(chance.choice((0, 0, 1, 3, 10, 40))):
                await asyncio.sleep(0)
        await self._mend()
        await self._judge()

    async def end(self) -> None:
        """Nothing of it goes on; processes that live are there for the next story."""
        world = self.world
        await world.theirs.fake.gate.open()
        for slot, house in enumerate(world.houses):
            if house is not None and (not house.alive or house.life.dies_in is not None or self._left(house)):
                house.life.die()
                self.fallen.append(house)
                world.houses[slot] = None
        for house in self.fallen:
            await house.bury()
        await world.theirs.fake.gate.open()

    # -- what happens ----------------------------------------------------------------------------------------------

    async def _act_read(self) -> None:
        for _ in range(self.chance.choice((1, 1, 2, 5))):
            house = self._house()
            self._begin(house, self._reads(house), "a read")

    async def _act_renew(self) -> None:
        house, seen = self._house(), await self._seen()
        if seen is not None:
            self._begin(house, house.gateway.refresher.renew(house.region, (self.id, "reader"), seen), "a renewal")

    async def _act_check(self) -> None:
        house = self._house()
        self._begin(house, house.gateway.checkers[DEFAULT].run_once(), "checks")

    async def _act_expire(self) -> None:
        self._say("its access token expires")
        await self.world.database.execute(EXPIRE, [self.id])

    async def _act_trouble(self) -> None:
        trouble = self.chance.choice(TROUBLES)
        if trouble == "invalid_grant" and (self.world.theirs.lied or self.chance.random() < 0.7):
            return
        self._say(f"the next call meets {trouble}")
        self.world.theirs.troubles.append(trouble)

    async def _act_open(self) -> None:
        self._say("the provider goes on with what it holds")
        await self.world.theirs.fake.gate.open()

    async def _act_turn(self) -> None:
        """A few thousandths of a second, in which answers come."""
        await asyncio.sleep(self.chance.choice((0.001, 0.003, 0.01, 0.03)))

    async def _act_pass(self) -> None:
        seconds = self.chance.choice(PASSES)
        self._say(f"{seconds:g} s go by")
        await self.world.pass_s(seconds)

    async def _act_kill(self) -> None:
        house = self._house()
        if self._alive() > 1:
            self._say(f"{house.life.name} is killed")
            house.life.die()

    async def _act_doom(self) -> None:
        house = self._house()
        if self._alive() > 1:
            moments = self.chance.randint(1, MOMENTS)
            self._say(f"{house.life.name} will die at the moment {moments} of a refresh")
            house.life.dies_in = moments

    async def _act_start(self) -> None:
        for slot, house in enumerate(self.world.houses):
            if house is not None and not house.alive:
                self._say(f"{house.life.name} is dead: another one starts there")
                await self._follow(slot, house)

    async def _act_cut(self) -> None:
        house = self._house()
        self._say(f"{house.life.name} loses its database")
        await house.cut()

    async def _act_mend(self) -> None:
        for house in self._living():
            if not house.reaches_database:
                self._say(f"{house.life.name} has its database back")
                await house.mend()

    async def _act_lose(self) -> None:
        house = self._house()
        loss = self.chance.choice(("request", "half of the request", "answer", "last word"))
        self._say(f"of a statement of {house.life.name} the {loss} is lost")
        house.cut_at.append(self.world.clock.now())
        house.wire.lose(loss)

    async def _act_reconnect(self) -> None:
        if not self.is_over:
            await self._consent(self.chance.choice(self._reaching()))

    async def _act_disconnect(self) -> None:
        house = self.chance.choice(self._reaching())
        self._say("it is disconnected")
        self.is_over = True
        await self._whole(house, closing.end(house.region, house.gateway.catalog, self.id, house.gateway.new_id))

    async def _act_revoke(self) -> None:
        """The provider says that it is over, and so it is."""
        house, generation = self.chance.choice(self._reaching()), max(self.granted.values())
        self._say(f"generation {generation} is revoked, and we are told")
        self.revoked.add(generation)
        await self._act_withdraw()
        because = Because(cause="uninstalled", source="delivery")
        move = Move(
            connection=self.id, access_profile="reader", signal="revoked", because=because, reason="uninstalled",
            fence=Fence(generation=generation),
        )  # fmt: skip

        async def moved() -> None:
            async with house.region.database.transaction() as tx:
                await transitions.apply(tx, [move], house.gateway.new_id)

        await self._whole(house, moved())

    async def _act_withdraw(self) -> None:
        """Its user ends it there, and nobody tells us."""
        grant = [id for id, of in self.granted.items() if of == max(self.granted.values())][-1]
        self._say("its user withdraws it at the provider")
        await self.world.theirs.fake.revoke(grant, tell=False)

    # -- how it is done --------------------------------------------------------------------------------------------

    def _left(self, house: House) -> list[asyncio.Task[Any]]:
        """What it has not ended."""
        return [task for of, task in self.tasks if of is house and not task.done()]

    def _say(self, what: str) -> None:
        self.told.append(what)

    def _living(self) -> list[House]:
        return [house for house in self.world.houses if house is not None and house.alive]

    def _alive(self) -> int:
        return sum(house.life.dies_in is None for house in self._living())

    def _reaching(self) -> list[House]:
        """Those that have their database, and will not die of a refresh."""
        return [h for h in self._living() if h.reaches_database and h.life.dies_in is None and not h.wire.losing]

    def _house(self) -> House:
        """One that lives."""
        return self.chance.choice(self._living())

    def _begin(self, house: House, work: Any, what: str) -> None:
        self._say(f"{what} by {house.life.name}")
        self.tasks.append((house, house.life.call(work, what)))

    async def _whole(self, house: House, work: Any) -> Any:
        """Something that is no refresh, to its end."""
        return await asyncio.wait_for(house.life.call(work, "whole"), PATIENCE_S)

    async def _follow(self, slot: int, dead: House) -> None:
        self.fallen.append(dead)
        self.world.houses[slot] = None
        spooled = dead.has_spooled
        await self.world.start(slot)
        if spooled:
            self.counts["came back with a spool"] += 1
            dead.came_back_at = self.world.clock.now()

    async def _consent(self, house: House) -> None:
        answer, seen = self.world.theirs.consent(), await self._seen()
        self.granted[answer["grant_id"]] = (
            1 if seen is None else seen[0] + 1
        )  # a reader may have its token before we know
        if await self._whole(house, consented(house, self.id, answer)):
            self._say("its user consents")
        else:
            del self.granted[answer["grant_id"]]

    async def _seen(self) -> tuple[int, int] | None:
        return await grants.version(self.world.database, self.id, "reader")

    async def _reads(self, house: House) -> str:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            token = await house.gateway.tokens.read(Read(self.id, "reader", 60, ACTOR))
        except Problem as problem:
            outcome = problem.code
        else:
            outcome = "served"
            known = self.world.theirs.fake.sandbox.tokens.get(token.access_token)
            if known is None or known.grant.id not in self.granted:
                raise Wrong("a token was handed out that is nobody's")
        took_s = loop.time() - began
        self.longest_s = max(self.longest_s, took_s)
        self.counts[outcome] += 1
        if took_s > WAIT_S + SLACK_S:
            raise Wrong(f"a reader waited for {took_s:.1f} s ({outcome})")
        return outcome

    # -- how it ends -----------------------------------------------------------------------------------------------

    async def _mend(self) -> None:
        """Everything is well again, and time goes by until nothing is open any more."""
        world = self.world
        self._say("everything is mended")
        world.theirs.troubles.clear()
        for house in self._living():
            house.life.dies_in = None
            house.wire.forget()
            await house.mend()
        await self._act_start()
        for seconds in (0.0, *PASSES, *PASSES, *PASSES):
            await world.theirs.fake.gate.open()
            await self._end_of_all()
            for house in self._living():
                await self._whole(house, house.gateway.drain_spool())
                await self._whole(house, house.gateway.checkers[DEFAULT].run_once())
            await world.database.execute(EXPIRE, [self.id])
            house = self._house()
            outcome = await self._whole(house, self._reads(house))
            still_open = await world.database.fetchval(OPEN, self.id)
            self._say(f"{house.life.name} says {outcome}; {still_open} open")
            if outcome in FINAL or (outcome == "served" and not still_open):
                return
            await world.pass_s(seconds)
        raise Wrong(f"it does not come to an end: {outcome}, {still_open} open")

    async def _end_of_all(self) -> None:
        """Until living processes have ended what they had begun."""
        left = [task for house in self._living() for task in self._left(house)]
        if left:
            _, left_over = await asyncio.wait(left, timeout=PATIENCE_S)
            if left_over:
                raise Wrong(f"{[task.get_name() for task in left_over]} hang")
        for house, task in self.tasks:
            if house.alive and task.done() and not task.cancelled() and task.exception() is not None:
                error = task.exception()
                if not isinstance(error, Problem):
                    raise error  # type: ignore[misc]

    async def _judge(self) -> None:
        """Raises: Wrong."""
        await self._doubles()
        row = await self.world.database.fetchrow(ROW, self.id)
        assert row is not None
        state, reason = row["state"], row["reason"]
        self.counts[f"ends {state}" + (f", {reason}" if reason else "")] += 1
        tokens = await self.world.database.fetchrow(TOKENS, self.id)
        if state == "active":
            await self._newest(tokens, row["generation"])
        elif state == "reauth_required":
            self._lost(reason, row["generation"])
        elif state != ("closed" if self.is_over else "revoked" if row["generation"] in self.revoked else ""):
            raise Wrong(f"it ends {state}, and nobody has said so")
        elif tokens is not None:
            raise Wrong(f"it is {state}, and its tokens are still there")

    async def _doubles(self) -> None:
        """No refresh token is spent twice while its first answer was good, had come, and could still be written."""
        first: dict[str, Spend] = {}
        for spend in sorted(self.world.theirs.spends, key=lambda one: one.at):
            before = first.setdefault(spend.token, spend) if spend.good else first.get(spend.token)
            if before is None or before is spend or not spend.acted:
                continue
            apart_s = (spend.at - before.at).total_seconds()
            if self.rotation == "none" or (self.rotation == "grace" and apart_s < GRACE_S):
                continue
            self.counts["spent again"] += 1
            if before.answered and not self._could_not_write(before, spend):
                raise Wrong(f"spent twice, {apart_s:.0f} s apart: {before} and {spend}")
            least_s = SPOOL_S if before.answered else LOST_PAUSE_S
            if apart_s < least_s - 1:
                raise Wrong(f"spent again after {apart_s:.0f} s: {before} and {spend}")

    def _could_not_write(self, before: Spend, after: Spend) -> bool:
        """Was whoever had the answer dead by then, or without its database? Not, if it came back with it in its spool."""
        houses = [h for h in (*self.fallen, *self.world.houses) if h is not None and h.address == before.address]
        house = next(h for h in reversed(houses) if h.born_at <= before.came_at)
        if house.came_back_at is not None and house.came_back_at < after.at:
            return False
        return house.life.dead or any(before.at - MOMENT <= at <= after.at for at in house.cut_at)

    async def _newest(self, tokens: Any, generation: int) -> None:
        """What is stored is what the provider gave last."""
        house, row = self._living()[0], await self.world.database.fetchrow(ROW, self.id)
        assert row is not None
        place = Place(house.region.name, "acme", self.id, "reader", generation, row["token_version"])
        stored = await self._whole(house, house.region.tokens.open(
            place, "refresh_token", tokens["data_key_version"], tokens["sealed_refresh"], tokens["kv_path"]
        ))  # fmt: skip
        known = self.world.theirs.fake.sandbox.tokens[stored]
        grant = known.grant
        if self.granted.get(grant.id) != generation:
            raise Wrong("the token set is of another consent")
        if grant.cause is not None:
            raise Wrong(f"it is active, and over at the provider: {grant.cause}")
        if self.rotation == "strict" and stored != self.world.theirs.newest(grant.id):
            raise Wrong("it is not the newest")
        if self.rotation != "none" and known.used_at is not None:
            raise Wrong("it was spent")

    def _lost(self, reason: str | None, generation: int) -> None:
        """A loss is `answer_lost` at a provider that forgives none; or its user's doing, or the provider lied."""
        ends = {self.world.theirs.grant(id).cause for id, of in self.granted.items() if of == generation}
        if "revoked_by_user" in ends or self.world.theirs.lied:
            return
        if reason != "answer_lost":
            raise Wrong(f"it is lost: {reason}")
        if ends != {"refresh_token_reused"}:
            raise Wrong(f"it is given up, and was not over: {ends}")
        self.counts["lost"] += 1
