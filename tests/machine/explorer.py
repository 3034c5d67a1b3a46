"""Every order in which three workers can step on one grant of two generations: a search of all that can be reached.

No database and no chance: `machine.TABLE` and `fences.weigh` are the product's, the phases of the workers (read, decide, write)
are written down small, and the provider may answer as it likes as long as it is honest of what is dead for good: refusals may
be an outage's. What the promises forbid is looked for in every state. `python -m tests.machine.explorer` prints their number.

    follower    reads an event with what it knows of the grant, commits it; another may take over, and it may be read again
    checker     claims, asks (the provider answers of that moment), decides
    refresher   looks, asks (which spends the token set), writes; or a consent comes, and is completed later
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from gateway.connections.fences import Fence, weigh
from gateway.connections.machine import Signal, step
from gateway.connections.states import ISSUED, State

TICK_S, MARGIN_S = 100, 60  # a tick is longer than the margin, and long enough for a second answer to count
START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = (
    ("token", 0),
    ("nothing", 0),
    ("time", -1),
    ("time", 1),
)  # what a message knows, and by how much its clock is off

Mutation = Literal[
    "generation",
    "token_version",
    "time",
    "margin",
    "unknown",
    "contested",
    "check_fence",
    "hold",
    "heard_once",
    "second",
]
MUTATIONS: tuple[Mutation, ...] = (
    "generation", "token_version", "time", "margin", "unknown", "contested", "check_fence", "hold", "heard_once", "second",
)  # fmt: skip


class Message(NamedTuple):
    """Generations up to `of` died at `at`, which `knows` says or not; `skew`: half a tick by which its clock is off."""

    of: int
    knows: str
    at: int
    skew: int
    heard: int = 0


class Reading(NamedTuple):
    message: int
    generation: int | None  # by the token that it names
    lease: int


class Question(NamedTuple):
    """A check or a refresh under way. `alive` None: not asked yet."""

    serial: int
    generation: int
    version: int
    why: str
    again: bool = False
    alive: bool | None = None
    at: int = 0
    doubt: int = 0  # how many contested signals had been heard when it was asked


class World(NamedTuple):
    now: int = 0
    dead: int = 0  # generations up to this one are dead at the provider
    state: State = "active"
    generation: int = 1
    version: int = 1
    alive_at: int = 0
    since: int = 0
    contested: bool = False
    check: tuple[str, int] | None = None  # why, and its fence
    serial: int = 0
    doubt: int = 0
    told_dead: bool = False  # a message that is true of the current generation has been committed
    refused: tuple[int, ...] = ()  # when answers called the current generation dead
    messages: tuple[Message, ...] = ()
    lease: int = 0
    follower: Reading | None = None
    checker: Question | None = None
    refresher: Question | None = None
    consent: int | None = None  # when one was given that is not completed yet
    bad: str = ""


@dataclass
class Explorer:
    """All that can be reached, with one fence taken out or none."""

    without: Mutation | None = None
    # How far it goes: ticks, messages and their kinds, token sets by refreshes, checks.
    ticks: int = 1
    messages: int = 1
    kinds: tuple[tuple[str, int], ...] = KINDS
    versions: int = 3
    checks: int = 3

    def explore(self, most: int = 2_000_000) -> tuple[int, World | None]:
        """How many states there are, and the first that breaks a promise."""
        first = World()
        seen, queue = {first}, deque([first])
        while queue and len(seen) < most:
            world = queue.popleft()
            for after in self.steps(world):
                if after in seen:
                    continue
                seen.add(after)
                if after.bad or (after := self.judged(after)).bad:
                    return len(seen), after
                queue.append(after)
        return len(seen), None

    def judged(self, w: World) -> World:
        """The promises, of this state."""
        served = w.state in ISSUED and (not w.contested or self.without == "contested")
        if w.told_dead and served:
            return w._replace(bad="promise 4: a token leaves after its end was committed")
        if w.contested and served:
            return w._replace(bad="promise 4: a token leaves while a check decides")
        if w.state == "revoked" and w.generation > w.dead:
            return w._replace(bad="promise 5: what ended another generation revoked this one")
        if w.contested and w.check is None and w.state != "reauth_required":
            return w._replace(bad="contested, and nobody will ask")
        return w

    def steps(self, w: World) -> Iterator[World]:
        yield from self._provider(w)
        yield from self._follower(w)
        yield from self._checker(w)
        yield from self._refresher(w)
        yield from self._completer(w)

    def _provider(self, w: World) -> Iterator[World]:
        if w.now < self.ticks:
            yield w._replace(now=w.now + 1)
        latest = w.generation + (w.consent is not None)
        if w.dead < latest and len(w.messages) < self.messages:
            for knows, skew in self.kinds:
                yield w._replace(dead=latest, messages=(*w.messages, Message(latest, knows, w.now, skew)))

    def _follower(self, w: World) -> Iterator[World]:
        if w.follower is None:
            for place, one in enumerate(w.messages):
                if one.heard < 2:  # read anew after it was heard: a replay of the log, a second follower
                    if one.knows == "token" and one.of != w.generation:
                        continue  # it names a token that is not here (any more)
                    yield w._replace(follower=Reading(place, one.of if one.knows == "token" else None, w.lease))
            return
        reading = w.follower
        if w.lease == 0:
            yield w._replace(lease=1)  # another has its partitions from here on
        idle = w._replace(follower=None)
        if reading.lease != w.lease:
            if self.without == "hold":
                yield idle._replace(bad="a follower committed what is another's by now")
            yield idle
            return
        message = w.messages[reading.message]
        if message.heard and self.without != "heard_once":
            yield idle
            return
        told = (
            *w.messages[: reading.message],
            message._replace(heard=message.heard + 1),
            *w.messages[reading.message + 1 :],
        )
        at = START + timedelta(seconds=message.at * TICK_S + message.skew * TICK_S // 2)
        fence = Fence(generation=reading.generation, at=at if message.knows == "time" else None, margin_s=MARGIN_S)
        after = self.hear(idle._replace(messages=told), "revoked", fence, (message.of, None))
        if message.heard:
            after = after._replace(bad="a delivery was heard twice")
        if message.of >= w.generation:
            after = after._replace(told_dead=True)
        yield after

    def _checker(self, w: World) -> Iterator[World]:
        q = w.checker
        if q is None:
            if w.check is not None and w.serial < self.checks:
                why, serial = w.check[0], w.serial + 1
                again = why == "refused" and self._much_later(w)
                if w.state not in ISSUED:
                    yield w._replace(check=None, contested=False)
                elif why == "contested" or again:
                    claimed = Question(serial, w.generation, w.version, why, again)
                    yield w._replace(check=(why, serial), serial=serial, checker=claimed)
            return
        if q.alive is None:
            for alive in (True, False):
                if alive <= (q.generation > w.dead) and (alive or q.why == "refused" or q.generation <= w.dead):
                    yield w._replace(checker=q._replace(alive=alive, at=w.now, doubt=w.doubt))
            return
        idle = w._replace(checker=None)
        if q.why == "refused" and not q.alive:
            yield self.refuse(idle, q)
            return
        holds = w.check is not None and w.check[1] == q.serial
        if not holds and self.without != "check_fence":
            yield idle
            return
        if (q.generation, q.version) != (w.generation, w.version) and self.without not in (
            "generation",
            "token_version",
        ):
            yield idle  # and it is asked again
            return
        fence = Fence(generation=q.generation, token_version=q.version)
        if not q.alive:
            yield self.hear(idle._replace(check=None), "revoked", fence, (q.generation, q.version), confirms=True)
            return
        after = self.hear(idle, "acquitted", fence, (q.generation, q.version))
        if after.check is None and w.contested and q.doubt != w.doubt:
            after = after._replace(bad="promise 4: an answer let go what was said after the question")
        yield after._replace(alive_at=max(w.alive_at, q.at)) if after.generation == q.generation else after

    def _refresher(self, w: World) -> Iterator[World]:
        q = w.refresher
        if q is None:
            if w.state in ISSUED and not w.contested and w.version < self.versions:
                again = self._much_later(w)
                if w.check is None or again:
                    yield w._replace(refresher=Question(0, w.generation, w.version, "refresh", again))
            return
        if q.alive is None:
            yield w._replace(refresher=q._replace(alive=False, at=w.now))  # dead, or an outage says so
            if q.generation > w.dead:
                yield w._replace(refresher=q._replace(alive=True, at=w.now))
            return
        idle = w._replace(refresher=None)
        yield idle  # the answer is lost, or the process dies before its commit
        if not q.alive:
            yield self.refuse(idle, q)
            return
        fence = Fence(generation=q.generation, token_version=q.version)
        after = self.hear(idle, "refreshed", fence, (q.generation, q.version))
        if after.state in ("active", "suspended") and after is not idle and self.weight(w, fence) == "proof":
            after = after._replace(version=q.version + 1, alive_at=max(w.alive_at, q.at))
        yield after

    def _much_later(self, w: World) -> bool:
        return w.state == "suspect" and (w.since < w.now or self.without == "second")

    def _completer(self, w: World) -> Iterator[World]:
        if w.consent is None:
            if w.generation < 2:
                yield w._replace(consent=w.now)
            return
        yield w._replace(
            consent=None, generation=w.generation + 1, version=w.version + 1, alive_at=w.consent, state="active",
            since=w.now, contested=False, check=None, refused=(), told_dead=False,
        )  # fmt: skip

    def refuse(self, w: World, q: Question) -> World:
        """A terminal answer: evidence at first, and much later proof."""
        fence = Fence(generation=q.generation, token_version=q.version)
        if q.generation == w.generation:
            w = w._replace(refused=(*w.refused, q.at)[-2:])
        after = self.hear(w, "refused" if q.again else "doubted", fence, (q.generation, q.version))
        if after.state == "reauth_required" != w.state and (len(w.refused) < 2 or w.refused[0] == w.refused[-1]):
            return after._replace(bad="promise 3: declared dead on one answer")
        return after

    def weight(self, w: World, fence: Fence) -> str:
        """The product's, but for what is taken out."""
        generation, version = fence.generation, fence.token_version
        if self.without == "generation" and generation is not None:
            generation = w.generation
        if self.without == "token_version" and version is not None:
            version = w.version
        final = (self.without == "time" and fence.at is not None) or (
            self.without == "unknown" and fence == Fence(margin_s=MARGIN_S)
        )
        margin = 0 if self.without == "margin" else fence.margin_s
        lax = Fence(generation=generation, token_version=version, final=final, at=fence.at, margin_s=margin)
        alive_at = START + timedelta(seconds=w.alive_at * TICK_S)
        return weigh(lax, generation=w.generation, token_version=w.version, alive_at=alive_at)

    def hear(
        self, w: World, signal: Signal, fence: Fence, about: tuple[int, int | None], *, confirms: bool = False
    ) -> World:
        """`transitions.apply`, of one signal. `about`: the generation and token set that it is truly about."""
        weight = self.weight(w, fence)
        stepped = step(w.state, signal)
        if weight == "stale" or stepped.outcome == "illegal":
            return w
        if weight == "contested" and stepped.outcome == "moved":
            if w.state == "reauth_required":
                return w._replace(contested=True, doubt=w.doubt + 1)
            serial = w.serial + 1
            return w._replace(contested=True, check=("contested", serial), serial=serial, doubt=w.doubt + 1)
        since = w.now if stepped.to != w.state else w.since
        after = self._decided(w._replace(state=stepped.to, since=since), w.state, signal, confirms)
        if (about[0] < w.generation or about[1] not in (None, w.version)) and (after != w or signal == "refreshed"):
            return after._replace(bad="promise 5: something about another generation or token set took effect")
        return after

    def _decided(self, after: World, before: State, signal: Signal, confirms: bool) -> World:
        if signal == "doubted":
            asks = after.state == "suspect" and after.check is None
            return after._replace(check=("refused", after.serial + 1), serial=after.serial + 1) if asks else after
        if signal == "acquitted" or confirms or after.state in ("revoked", "closed"):
            return after._replace(check=None, contested=False)
        if after.state == "reauth_required" or not after.contested:
            return after._replace(check=None)
        if signal == "refreshed" and before == "reauth_required":  # it was under way all the time
            return after._replace(check=("contested", after.serial + 1), serial=after.serial + 1)
        return after


# Every kind of message by itself; and two that know nothing, one after the question about the other.
SPANS: tuple[dict[str, Any], ...] = ({}, {"messages": 2, "kinds": KINDS[1:2], "versions": 2, "checks": 4})


def explored(without: Mutation | None) -> tuple[int, World | None]:
    """All spans: how many states, and the first that breaks a promise."""
    number = 0
    for span in SPANS:
        states, broken = Explorer(without, **span).explore()
        number += states
        if broken is not None:
            return number, broken
    return number, None


def main() -> None:
    for left_out in (None, *MUTATIONS):
        began = time.monotonic()
        number, broken = explored(left_out)
        said = broken.bad if broken else "every promise holds"
        print(
            f"without {left_out or 'nothing'}: {number} states, {said} ({time.monotonic() - began:.1f} s)", flush=True
        )


if __name__ == "__main__":
    main()
