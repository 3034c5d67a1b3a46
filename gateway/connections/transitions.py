"""The one way in which a grant changes its state: lock, fence, step, save, write the history, say it on the stream.

    lock     every connection concerned, in the order of their ids (then conditions' row, then the log: no other order)
    heard?   a signal that came from an event of the log is heard once for a grant and its generation, however often that
             event is read: a consent that was under way when it came is told of it, too (PROTOCOLS 3)
    fence    is it about the grant as it is now? stale: recorded, and that is all
    guard    would it end a grant on a provider's word of failure, while everybody's fail? onto the provider's condition
    step     the machine's table
    save     the state, and whatever else the caller has to write with it (a new token set …)
    history  one row a signal, those that changed nothing among them
    settle   the grants' states folded into their connections', events appended: the transaction's last statement

The caller owns the transaction. Nothing here waits for a provider.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.connections import checks, conditions, grants, history, store, telling
from gateway.connections.checks import Ask, Why
from gateway.connections.conditions import ErrorClass
from gateway.connections.fences import Fence, weigh
from gateway.connections.grants import Grant, Standing
from gateway.connections.history import Entry, Outcome
from gateway.connections.machine import Signal, step
from gateway.connections.states import State
from gateway.connections.store import Connection
from gateway.connections.telling import Because, Word
from gateway.database import Db
from gateway.errors import NotFound
from gateway.stream.append import NewEvent

# With these the grant is another one than before: whatever was in doubt was about the old one.
ANEW: frozenset[Signal] = frozenset({"authorized", "narrowed", "left", "closed"})
# These say anew why the grant is in its state where they leave it in this one; elsewhere the reason that it had stays.
TELLING: Mapping[Signal, State] = {
    "authorized": "active", "narrowed": "reauth_required", "refreshed": "active", "scopes_lost": "reauth_required",
    "doubted": "suspect", "left": "reauth_required",
}  # fmt: skip
CHECKED: frozenset[State] = frozenset({"active", "suspect", "suspended"})  # in others a check could tell nothing
CONFIRM_AFTER_S = 600.0  # a terminal answer during an outage is not proof: a second one, this much later, is
WAITED_S = 60.0

NewId = Callable[[], UUID]
Save = Callable[[State, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A provider's answer that would end a grant: counted by the guard before it moves anything."""

    provider: str  # whose condition counts
    error_class: ErrorClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One signal about one grant."""

    connection: UUID
    access_profile: str | None  # None: the connection itself, which has no grants
    signal: Signal
    because: Because
    fence: Fence
    reason: str | None = None  # of the state that it comes into
    provider: str = ""  # whose condition counts for a check of it; "": nothing can check it
    failure: Failure | None = None
    again_in_s: float | None = None  # with `doubted`: when a check is to look again
    say: str | None = None  # names the event for when the connection's state stays
    also: str | None = None  # names one that is said in any case
    # Writes the grant with the state that was decided, where more than the state changes. Called under the lock, unless
    # the signal is stale or illegal.
    save: Save | None = field(default=None, repr=False)
    confirms: bool = False  # a check found a contested signal true: it was heard before, and counts now
    made: tuple[int, int] | None = None  # the generation and token version that `save` writes


@dataclass(frozen=True, slots=True)
class Hint:
    """Weak evidence about a grant: a check is asked for, and nothing else is said."""

    connection: UUID
    access_profile: str
    because: Because
    provider: str
    why: Why = "hint"
    signal: Signal | None = None  # `scopes_changed`: new tokens are to be had, even where the old ones work


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a move. `already`: this very signal was heard before; `absent`: there is no such grant (any more)."""

    outcome: Outcome | Literal["already", "absent"]
    state: State | None = None


@dataclass(slots=True)
class _Stand:
    """How a grant (or a connection without any) stands while moves are applied."""

    state: State
    reason: str | None
    generation: int
    token_version: int
    alive_at: datetime
    came_at: datetime | None  # of one that was never proven alive here: `fences.weigh`
    contested: bool


async def apply(
    tx: Db,
    moves: Sequence[Move],
    new_id: NewId,
    *,
    hints: Sequence[Hint] = (),
    words: Mapping[UUID, Word] | None = None,
    write: Callable[[], Awaitable[None]] | None = None,
    looked_back: bool = False,
) -> list[Applied]:
    """What became of each move, in order; all in this transaction, of which it is the last statement.

    `words`: what is said of a connection where no move says more. `write`: puts down at once what the `save`s of many
    moves have gathered. `looked_back`: as for `telling.settle`.    Raises: NotFound, a connection is not there.
    """
    concerned = [*(move.connection for move in moves), *(hint.connection for hint in hints), *(words or ())]
    work = await _Work.begin(tx, concerned, new_id)
    work.words.update(words or {})
    said = [*(move.because.evidence for move in moves), *(hint.because.evidence for hint in hints)]
    heard: set[object] = {*await history.heard(tx, {one for one in said if one is not None}, list(work.connections))}
    applied = [await work.move(move, heard) for move in moves]
    for hint in hints:
        work.hint(hint, heard)
    if write is not None:
        work.saves = True
        await write()
    await work.end(looked_back=looked_back)
    return applied


async def register(tx: Db, new: store.NewConnection, new_id: NewId) -> Connection:
    """Make a connection without grants, active at once, and say so.    Raises: Conflict, its external id is taken."""
    if await store.insert(tx, new):
        because = Because(cause="registered", source="operator")
        made = await store.get(tx, new.id)
        await history.add(
            tx, [_entry(new_id(), new.id, None, "authorized", "moved", because, None, "pending", "active")]
        )
        await telling.say(tx, made, "active", new_id(), because, previous="pending", signal=True)
    return await store.get(tx, new.id)


async def close(tx: Db, connection_id: UUID, new_id: NewId) -> None:
    """End a connection and its grants. Again: nothing new. The caller has seen to its tokens.    Raises: NotFound."""
    state = await grants.lock(tx, connection_id)
    if state is None:
        raise NotFound()
    if state == "closed":
        return
    because = Because(cause="closed", source="operator")
    held = await grants.of(tx, [connection_id])
    await grants.stand(tx, {(connection_id, one.access_profile): Standing("closed", None, False) for one in held})
    await checks.drop(tx, [(connection_id, one.access_profile) for one in held])
    await history.add(
        tx,
        [
            _entry(new_id(), connection_id, one.access_profile, "closed", "moved", because, one, one.state, "closed")
            for one in held if one.state != "closed"
        ] or [_entry(new_id(), connection_id, None, "closed", "moved", because, None, state, "closed")],
    )  # fmt: skip
    was = await store.get(tx, connection_id)
    await store.close(tx, connection_id)
    await telling.say(tx, await store.get(tx, connection_id), "closed", new_id(), because, previous=was.state)


class _Work:
    """Moves of one transaction."""

    def __init__(self, tx: Db, connections: Sequence[Connection], held: Sequence[Grant], new_id: NewId) -> None:
        self._tx, self._new_id = tx, new_id
        self.connections = {one.id: one for one in connections}
        self._held, self.saves = held, False
        self._stands: dict[tuple[UUID, str | None], _Stand] = {
            (g.connection_id, g.access_profile): _Stand(
                g.state,
                g.reason,
                g.generation,
                g.token_version,
                g.alive_at,
                g.granted_at if g.alive_at == grants.NEVER else None,
                g.contested,
            )
            for g in held
        }
        bare = set(self.connections) - {g.connection_id for g in held}
        for id in bare:
            one = self.connections[id]
            self._stands[id, None] = _Stand(one.state, one.reason, 1, 1, one.created_at, None, False)
        self._entries: list[Entry] = []
        self._changed: set[tuple[UUID, str | None]] = set()
        self._asks: dict[tuple[UUID, str], Ask] = {}
        self._drops: set[tuple[UUID, str]] = set()
        self._shreds: set[tuple[UUID, str]] = set()
        self.words: dict[UUID, Word] = {}
        self._events: list[NewEvent] = []

    @classmethod
    async def begin(cls, tx: Db, ids: Sequence[UUID], new_id: NewId) -> _Work:
        """Raises: NotFound."""
        wanted = sorted(set(ids))
        connections = await store.lock_all(tx, wanted)
        if len(connections) != len(wanted):
            raise NotFound("There is no such connection.")
        return cls(tx, connections, await grants.of(tx, wanted), new_id)

    async def move(self, move: Move, heard: set[object]) -> Applied:
        """One signal, as far as the history; `end` writes what it came to."""
        stand = self._stand(move)
        if stand is None:
            return Applied("absent")
        said = (move.because.evidence, move.connection, move.access_profile, move.signal, stand.generation)
        if move.because.evidence is not None and not move.confirms:
            if said in heard:
                return Applied("already")
            heard.add(said)
        weight = weigh(
            move.fence, generation=stand.generation, token_version=stand.token_version, alive_at=stand.alive_at,
            came_at=stand.came_at,
        )  # fmt: skip
        if weight == "stale":
            return self._noted(move, stand, "stale")
        stepped = step(stand.state, move.signal)
        if stepped.outcome == "illegal":
            return self._noted(move, stand, "illegal")
        if weight == "contested" and stepped.outcome == "moved" and move.access_profile is not None and move.provider:
            return self._contest(move, stand)
        if move.failure is not None and await self._guarded(move, move.failure):
            return self._noted(move, stand, "guarded")
        return await self._stepped(move, stand, stepped.to)

    def hint(self, hint: Hint, heard: Collection[object]) -> None:
        """Ask for a check of a grant whose tokens are handed out, or that may be let go on."""
        name = (hint.connection, hint.access_profile)
        stand = self._stands.get(name)
        if stand is None or stand.state not in ("active", "suspect"):
            return
        if (hint.because.evidence, *name, "hint", stand.generation) in heard:
            return
        self._asks.setdefault(name, Ask(
            connection_id=hint.connection, access_profile=hint.access_profile, provider=hint.provider, why=hint.why,
            signal=hint.signal, evidence=hint.because.evidence, reason=hint.because.cause,
        ))  # fmt: skip
        self._entries.append(self._line(name, stand, "hint", "asked", hint.because, stand.state))

    async def end(self, *, looked_back: bool) -> None:
        """Save, and say it: the last statements of the transaction."""
        tx = self._tx
        await grants.stand(tx, {
            (id, profile): Standing(one.state, one.reason, one.contested)
            for (id, profile), one in self._stands.items() if (id, profile) in self._changed and profile is not None
        })  # fmt: skip
        await grants.shred(tx, self._shreds)
        await checks.drop(tx, list(self._drops))
        await checks.ask(tx, list(self._asks.values()))
        await history.add(tx, self._entries)
        own = {
            id: (one.state, one.reason)
            for (id, profile), one in self._stands.items() if profile is None and (id, None) in self._changed
        }  # fmt: skip
        await telling.settle(
            tx, self.words, self._new_id, own=own, more=self._events, looked_back=looked_back, known=self._known()
        )

    def _known(self) -> tuple[list[Connection], list[Grant]] | None:
        """The connections that something is said of, and their grants, where nothing but states has changed."""
        if self.saves:
            return None
        held = [self._now(grant) for grant in self._held if grant.connection_id in self.words]
        return [one for one in self.connections.values() if one.id in self.words], held

    def _now(self, grant: Grant) -> Grant:
        name = (grant.connection_id, grant.access_profile)
        if name not in self._changed:
            return grant
        now = self._stands[name]
        return replace(grant, state=now.state, reason=now.reason, contested=now.contested)

    def _stand(self, move: Move) -> _Stand | None:
        """How its grant stands; one that a consent is about to make is `pending`."""
        name = (move.connection, move.access_profile)
        if name not in self._stands and move.save is not None and move.signal in ("authorized", "narrowed"):
            created_at = self.connections[move.connection].created_at
            self._stands[name] = _Stand("pending", None, 0, 0, created_at, None, False)
        return self._stands.get(name)

    async def _guarded(self, move: Move, failure: Failure) -> bool:
        """Does it go onto the provider's condition instead? The grant is checked again once that is well."""
        tenant = self.connections[move.connection].tenant_id
        counted = await conditions.failed(
            self._tx, failure.provider, failure.error_class, tenant, move.connection, self._new_id()
        )
        if counted.event is not None:
            self._events.append(counted.event)
        if counted.guarded and move.access_profile is not None:
            why: Why = "refused" if failure.error_class == "refused" else "rejected"
            self._ask(move, why, WAITED_S, waits=True)
            self.words.setdefault(move.connection, Word(move.because))
        return counted.guarded

    def _contest(self, move: Move, stand: _Stand) -> Applied:
        """No token leaves from this commit on, where the signal says that none should; a check decides."""
        if move.signal in ("revoked", "suspended"):
            stand.contested = True
            self._changed.add((move.connection, move.access_profile))
        if stand.state in CHECKED:  # else nothing could tell, and a consent is due anyway
            self._ask(move, "contested", 0.0)
        return self._noted(move, stand, "contested")

    async def _stepped(self, move: Move, stand: _Stand, to: State) -> Applied:
        name, before = (move.connection, move.access_profile), stand.state
        anew = to != before or TELLING.get(move.signal) == to
        reason = move.reason if anew else stand.reason
        if (to, reason) != (before, stand.reason):
            self._changed.add(name)
        if move.save is not None:
            self.saves = True
            await move.save(to, reason)
            stand.generation, stand.token_version = move.made or (stand.generation, stand.token_version)
        refuted = stand.contested and _acquits(move)
        self._settle_doubt(move, stand, to)
        outcome: Outcome = "stays" if to == before else "moved"
        if refuted and outcome == "stays":
            outcome = "refuted"
        line = self._line(name, stand, move.signal, outcome, move.because, to)
        if outcome == "moved" or move.signal != "refreshed":  # a rotation is no news: Renewal keeps a record of them
            self._entries.append(line)
        stand.state, stand.reason = to, reason
        if to == "revoked" and move.access_profile is not None:
            self._shreds.add((move.connection, move.access_profile))
        self._word(move, moved=outcome == "moved")
        return Applied(outcome, to)

    def _word(self, move: Move, *, moved: bool) -> None:
        """The last that moved a grant is told as the cause; names of events add up."""
        word = self.words.get(move.connection)
        because = move.because if word is None or moved else word.because
        say, also = (None, None) if word is None else (word.say, word.also)
        self.words[move.connection] = Word(because, move.say or say, move.also or also)

    def _settle_doubt(self, move: Move, stand: _Stand, to: State) -> None:
        """What is decided with it, and what is to be looked at again."""
        if move.access_profile is None:
            return
        name = (move.connection, move.access_profile)
        if move.signal == "doubted":
            if move.again_in_s is not None and to == "suspect":
                self._ask(move, "rejected" if move.failure and move.failure.error_class == "rejected" else "refused",
                          move.again_in_s)  # fmt: skip
        elif move.signal in ANEW or _acquits(move) or move.confirms or to in ("revoked", "closed"):
            self._undoubt(name)
            if stand.contested:
                stand.contested = False
                self._changed.add(name)
        elif to == "reauth_required":
            self._undoubt(name)  # nothing can tell, and a consent is due; what is contested stays so, for the next:
        elif move.signal == "refreshed" and stand.contested and stand.state == "reauth_required":
            # It was under way all the time: is it of what was said to be over?
            self._ask(replace(move, signal="revoked", reason="revoked"), "contested", 0.0)
        elif move.signal in ("refreshed", "scopes_lost", "refused", "ran_out") and not stand.contested:
            self._undoubt(name)

    def _undoubt(self, name: tuple[UUID, str]) -> None:
        self._drops.add(name)
        self._asks.pop(name, None)

    def _ask(self, move: Move, why: Why, due_in_s: float, *, waits: bool = False) -> None:
        assert move.access_profile is not None
        name = (move.connection, move.access_profile)
        contested, before = why == "contested", self._asks.get(name)
        if before is not None and before.why == "contested" and (not contested or before.signal == "revoked"):
            return  # that is the graver question
        self._asks[name] = Ask(
            connection_id=move.connection, access_profile=move.access_profile, provider=move.provider, why=why,
            signal=move.signal if contested else None, reason=move.reason or move.because.cause,
            evidence=move.because.evidence, occurred_at=move.because.occurred_at, due_in_s=due_in_s, waits=waits,
        )  # fmt: skip

    def _noted(self, move: Move, stand: _Stand, outcome: Outcome) -> Applied:
        name = (move.connection, move.access_profile)
        self._entries.append(self._line(name, stand, move.signal, outcome, move.because, stand.state))
        return Applied(outcome, stand.state)

    def _line(
        self, name: tuple[UUID, str | None], stand: _Stand, signal: Signal | Literal["hint"], outcome: Outcome,
        because: Because, to: State,
    ) -> Entry:  # fmt: skip
        return Entry(
            id=self._new_id(), connection_id=name[0], access_profile=name[1], signal=signal, outcome=outcome,
            cause=because.cause, source=because.source, evidence=because.evidence, code=because.code,
            occurred_at=because.occurred_at, generation=stand.generation or None,
            token_version=stand.token_version or None, state_before=stand.state, state_after=to,
        )  # fmt: skip


def _acquits(move: Move) -> bool:
    """A probe's word; an operator's (who lets go what a restore has set aside) proves nothing of what is in doubt."""
    return move.signal == "acquitted" and move.because.source != "operator"


def _entry(
    id: UUID, connection: UUID, profile: str | None, signal: Signal, outcome: Outcome, because: Because,
    grant: Grant | None, before: State, after: State,
) -> Entry:  # fmt: skip
    return Entry(
        id=id, connection_id=connection, access_profile=profile, signal=signal, outcome=outcome, cause=because.cause,
        source=because.source, evidence=because.evidence, code=because.code, occurred_at=because.occurred_at,
        generation=grant.generation if grant else None, token_version=grant.token_version if grant else None,
        state_before=before, state_after=after,
    )  # fmt: skip
