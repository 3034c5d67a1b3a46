"""The work of one transaction: moves are weighed and stepped one after the other, and what they came to is written at the end.

`transitions.py` says what happens in which order, and is the only one to come here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.connections import checks, conditions, grants, history, renewals, reuse, store, telling
from gateway.connections.checks import Ask, Why
from gateway.connections.fences import weigh
from gateway.connections.grants import Grant, Standing
from gateway.connections.history import Entry, Outcome
from gateway.connections.machine import Signal, step
from gateway.connections.moves import CHECKED, Applied, Failure, Hint, Move, NewId
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
WAITED_S = 60.0  # a check that waits for its provider: when it is its turn among those


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


class Work:
    """Moves of one transaction."""

    def __init__(self, tx: Db, connections: Sequence[Connection], held: Sequence[Grant], new_id: NewId) -> None:
        self._tx, self._new_id = tx, new_id
        self.connections = {one.id: one for one in connections}
        self._held, self.saves = held, False
        self._renewed: set[UUID] = set()  # connections with new tokens
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
    async def begin(cls, tx: Db, ids: Sequence[UUID], new_id: NewId) -> Work:
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

    def hint(self, hint: Hint, heard: set[object]) -> None:
        """Ask for a check of a grant whose tokens are handed out, or that may be let go on."""
        name = (hint.connection, hint.access_profile)
        stand = self._stands.get(name)
        if stand is None or stand.state not in ("active", "suspect"):
            return
        if hint.because.evidence is not None:
            said = (hint.because.evidence, *name, "hint", stand.generation)
            if said in heard:
                return
            heard.add(said)
        self._asks.setdefault(name, Ask(
            connection_id=hint.connection, access_profile=hint.access_profile, provider=hint.provider, why=hint.why,
            signal=hint.signal, evidence=hint.because.evidence, reason=hint.because.cause,
        ))  # fmt: skip
        self._entries.append(self._line(name, stand, "hint", "asked", hint.because, stand.state))

    async def end(self, more: Sequence[NewEvent], *, looked_back: bool) -> None:
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
        touched = {id for id, profile in self._changed if profile is not None} | {id for id, _ in self._drops}
        await renewals.touch(tx, self._renewed | touched)
        own = {
            id: (one.state, one.reason)
            for (id, profile), one in self._stands.items() if profile is None and (id, None) in self._changed
        }  # fmt: skip
        await telling.settle(
            tx,
            self.words,
            self._new_id,
            own=own,
            more=[*self._events, *more],
            looked_back=looked_back,
            known=self._known(),
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
            self._renewed.add(move.connection)
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
        if outcome == "moved" or move.reuse == "provider_reported":
            await self._say_of_reuse(move, stand)
        self._word(move, moved=outcome == "moved")
        return Applied(outcome, to)

    async def _say_of_reuse(self, move: Move, stand: _Stand) -> None:
        if move.reuse is None or move.access_profile is None:
            return
        seen = await reuse.seen(self._tx, move.connection, move.access_profile, stand.token_version, move.reuse)
        if seen is not None:
            connection = self.connections[move.connection]
            self._events.append(reuse.event(connection, seen, self._new_id(), code=move.because.code))

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
