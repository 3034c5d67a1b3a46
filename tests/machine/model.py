"""What the machine and its store ought to do, written down a second time and kept in memory.

Stories (`stories.py`) are played on this and on PostgreSQL, and compared after every step. Only `machine.TABLE` and `fold` are
shared with the product, which `test_table.py` holds to their promises; fences, guard, checks, history and events are said
here in other words. Times are seconds of the story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from gateway.connections.machine import TABLE
from gateway.connections.states import fold

MARGIN_S = 60
CONFIRM_S = 600.0
GRAVER = ("hint", "rejected", "refused", "contested")

Name = tuple[UUID, str | None]


@dataclass
class Check:
    """A check that is asked for. `serial` moves on whenever what was asked before answers nothing any more."""

    why: str
    signal: str | None
    evidence: UUID | None
    due: float
    waits: bool = False
    lease: float = float("-inf")
    serial: int = 0
    tries: int = 0

    def shown(self) -> tuple[Any, ...]:
        return self.why, self.signal, self.evidence, round(self.due, 3), self.waits


@dataclass(frozen=True)
class Ledger:
    """Of the one scope that is required."""

    granted: bool = True
    missing: bool = False
    lost: bool = False

    @property
    def reason(self) -> str | None:
        return "scopes_lost" if self.lost else "scopes_missing" if self.missing else None

    def after(self, whole: bool) -> Ledger:
        had = self.granted or self.lost
        return Ledger(whole, not whole and not had, not whole and had)


@dataclass
class Grant:
    state: str = "pending"
    reason: str | None = None
    since: float = 0
    generation: int = 0
    version: int = 0
    alive_at: float = 0
    contested: bool = False
    tokens: bool = False
    mark: UUID | None = None
    ledger: Ledger = Ledger()
    check: Check | None = None
    serials: int = 0  # of its checks, over all of them

    @property
    def served(self) -> bool:
        return self.state in ("active", "suspect") and not self.contested and self.tokens


@dataclass
class Connection:
    id: UUID
    tenant: str
    accounts: set[UUID]  # deliveries of these find it
    state: str = "pending"
    grants: dict[str | None, Grant] = field(default_factory=dict)


@dataclass
class Heard:
    """A signal about one grant, with what it knows."""

    name: Name
    signal: str
    reason: str | None
    generation: int | None = None
    version: int | None = None
    final: bool = False
    at: float | None = None
    evidence: UUID | None = None
    asks: bool = True  # a check can decide it
    failure: str | None = None
    again: bool = False
    confirms: bool = False
    say: str | None = None
    also: str | None = None
    save: Callable[[Grant], None] | None = None


@dataclass
class Model:
    connections: dict[UUID, Connection] = field(default_factory=dict)
    now: float = 0
    heard: set[tuple[Any, ...]] = field(default_factory=set)
    history: list[tuple[Any, ...]] = field(default_factory=list)  # of the last step
    events: list[tuple[Any, ...]] = field(default_factory=list)  # likewise
    degraded: bool = False
    passed: int = 0
    tripped_by: str = ""
    failures: list[tuple[float, str, UUID, str]] = field(default_factory=list)
    pairs: set[tuple[str, str]] = field(default_factory=set)

    def grant(self, name: Name) -> Grant | None:
        return self.connections[name[0]].grants.get(name[1])

    # -- one transaction -------------------------------------------------------------------------------------------

    def apply(self, signals: Sequence[Heard], *, words: Iterable[UUID] = (), hints: Sequence[Heard] = ()) -> list[str]:
        """What becomes of them, in order; then what is said of each connection."""
        before = {id: one.state for id, one in self.connections.items()}
        said: dict[UUID, list[str | None]] = {id: [None, None] for id in words}
        extra: list[tuple[Any, ...]] = []
        known = set(self.heard)
        asked: dict[Name, Check] = {}
        outcomes = [self._one(signal, known, asked, said, extra) for signal in signals]
        for hint in hints:
            grant = self.grant(hint.name)
            if grant is None or grant.state not in ("active", "suspect") or self._key(hint) in self.heard:
                continue
            if hint.name not in asked:
                asked[hint.name] = Check(hint.failure or "hint", None, hint.evidence, self.now)
                asked[hint.name].signal = hint.reason
            self._note(hint, grant, "asked", grant.state)
        for name, check in asked.items():
            grant = self.grant(name)
            assert grant is not None
            self._put(grant, check)
        for id, (say, also) in said.items():
            self._settle(id, before[id], say, also)
        self.events += extra
        return outcomes

    def _one(
        self, heard: Heard, known: set[tuple[Any, ...]], asked: dict[Name, Check],
        said: dict[UUID, list[str | None]], extra: list[tuple[Any, ...]],
    ) -> str:  # fmt: skip
        key = self._key(heard)
        if heard.evidence is not None and not heard.confirms:
            if key in known:
                return "already"
            known.add(key)
        connection = self.connections[heard.name[0]]
        grant = connection.grants.get(heard.name[1])
        if grant is None:
            if heard.save is None:
                return "absent"
            grant = connection.grants[heard.name[1]] = Grant()
        weight = self._weight(heard, grant)
        if weight == "stale":
            return self._note(heard, grant, "stale", grant.state)
        to = TABLE[grant.state][heard.signal]  # type: ignore[index]
        self.pairs.add((grant.state, heard.signal))
        if to is None:
            return self._note(heard, grant, "illegal", grant.state)
        if weight == "contested" and to != grant.state and heard.name[1] is not None and heard.asks:
            grant.contested = grant.contested or heard.signal in ("revoked", "suspended")
            if grant.state in ("active", "suspect", "suspended"):
                before = asked.get(heard.name)
                if before is None or before.signal != "revoked":
                    asked[heard.name] = Check("contested", heard.signal, heard.evidence, self.now)
            return self._note(heard, grant, "contested", grant.state)
        if heard.failure is not None and self.failed(heard.failure, connection.tenant, connection.id, extra):
            asked[heard.name] = Check(heard.failure, None, heard.evidence, self.now + 60, waits=True)
            said.setdefault(connection.id, [None, None])
            return self._note(heard, grant, "guarded", grant.state)
        return self._step(heard, grant, to, asked, said)

    def _step(
        self, heard: Heard, grant: Grant, to: str, asked: dict[Name, Check], said: dict[UUID, list[str | None]]
    ) -> str:
        before, reason = grant.state, grant.reason
        outcome = "stays" if to == before else "moved"
        if outcome == "stays" and heard.signal == "acquitted" and grant.contested:
            outcome = "refuted"
        tells = (heard.signal, to) in (
            ("authorized", "active"), ("narrowed", "reauth_required"), ("refreshed", "active"),
            ("scopes_lost", "reauth_required"), ("doubted", "suspect"), ("left", "reauth_required"),
        )  # fmt: skip
        if to != before or tells:
            reason = heard.reason
        if (to, reason) != (before, grant.reason):
            grant.since = self.now
        grant.state, grant.reason = to, reason
        if heard.save is not None:
            heard.save(grant)
        self._decided(heard, grant, before, asked)
        if to == "revoked":
            grant.tokens = False
        if outcome == "moved" or heard.signal != "refreshed":
            self._note(heard, grant, outcome, before)
        word = said.setdefault(heard.name[0], [None, None])
        word[0], word[1] = heard.say or word[0], heard.also or word[1]
        return outcome

    def _decided(self, heard: Heard, grant: Grant, before: str, asked: dict[Name, Check]) -> None:
        """Whatever is decided is in doubt no more; what is doubted is asked about later."""
        anew = heard.signal in ("authorized", "narrowed", "left", "closed", "acquitted") or heard.confirms
        if heard.signal == "doubted":
            if heard.again and grant.state == "suspect":
                why = "rejected" if heard.failure == "rejected" else "refused"
                asked[heard.name] = Check(why, None, heard.evidence, self.now + CONFIRM_S)
            return
        if anew or grant.state in ("revoked", "closed"):
            grant.contested = False
        elif grant.contested and grant.state != "reauth_required":
            if heard.signal == "refreshed" and before == "reauth_required":
                asked[heard.name] = Check("contested", "revoked", heard.evidence, self.now)
            return
        elif (
            heard.signal not in ("refreshed", "scopes_lost", "refused", "ran_out") and grant.state != "reauth_required"
        ):
            return
        grant.check = None
        asked.pop(heard.name, None)

    def _put(self, grant: Grant, new: Check) -> None:
        """The graver question stays. Two of a verified message: the question is asked anew, about the louder one."""
        old = grant.check
        if old is not None:
            graver = GRAVER.index(new.why) - GRAVER.index(old.why)
            other = new.evidence is not None and new.evidence != old.evidence
            sooner = (
                new.why == "contested" or (new.waits and not old.waits)
                or (not old.waits and (new.due < old.due or other))
            )  # fmt: skip
            if graver < 0 or (graver == 0 and not sooner):
                return
            if new.why == old.why == "contested" and old.signal == "revoked" != new.signal:
                new = replace(new, signal=old.signal, evidence=old.evidence)
        grant.serials += 1
        new.serial = grant.serials
        grant.check = new

    def _weight(self, heard: Heard, grant: Grant) -> str:
        known = False
        for said, is_ in ((heard.generation, grant.generation), (heard.version, grant.version)):
            if said is not None:
                known = True
                if said != is_:
                    return "stale"
        if known or heard.final:
            return "proof"
        if heard.at is None:
            return "contested"
        since = heard.at - grant.alive_at
        return "stale" if since < -MARGIN_S else "proof" if since > MARGIN_S else "contested"

    def _settle(self, id: UUID, before: str, say: str | None, also: str | None) -> None:
        one = self.connections[id]
        if None in one.grants:
            one.state = one.grants[None].state
        elif one.grants and one.state != "closed":
            one.state = fold(grant.state for grant in one.grants.values())  # type: ignore[misc]
        moved = one.state != before
        repaired = one.state == "active" and before != "pending"
        name = ("repaired" if repaired else one.state) if moved else say
        self.events += [(id, word, before, one.state) for word in (also, name) if word is not None]

    def close(self, id: UUID) -> None:
        """The tenant removed it."""
        one = self.connections[id]
        if one.state == "closed":
            return
        before, one.state, one.accounts = one.state, "closed", set()
        noted = False
        for profile, grant in one.grants.items():
            was, grant.state, grant.reason = grant.state, "closed", None
            self.pairs.add((was, "closed"))
            grant.contested, grant.check, grant.tokens = False, None, False
            if was != "closed":
                noted = True
                self.history.append((id, profile, "closed", "moved", was, "closed", None))
        if not noted:
            self.history.append((id, None, "closed", "moved", before, "closed", None))
        self.events.append((id, "closed", before, "closed"))

    # -- the guard -------------------------------------------------------------------------------------------------

    def failed(self, kind: str, tenant: str, connection: UUID, extra: list[tuple[Any, ...]]) -> bool:
        """An answer that would end a grant: does it go onto the provider's condition?"""
        if self.degraded:
            self.passed = 0
            return True
        self.failures.append((self.now, kind, connection, tenant))
        recent = [(one, of) for at, its, one, of in self.failures if its == kind and at > self.now - 600]
        long_ago = {one for at, its, one, _ in self.failures if its == kind and at <= self.now - 600}
        usual = len(long_ago) / (7 * 24 * 6 - 1)
        if len({one for one, _ in recent}) <= max(5, 5 * usual) or len({of for _, of in recent}) < 3:
            return False
        self.degraded, self.passed, self.tripped_by = True, 0, kind
        extra.append((None, "degraded", None, None))
        return True

    def found_alive(self, *, renewed: bool) -> None:
        """A check passed: the third in a row makes the provider well, or any where nothing waits for that."""
        if not self.degraded or (self.tripped_by == "refused" and not renewed):
            return
        waits = any(
            g.check is not None and g.check.waits for one in self.connections.values() for g in one.grants.values()
        )
        self.passed += 1
        if self.passed < 3 and waits:
            return
        self.degraded, self.passed = False, 0
        self.events.append((None, "recovered", None, None))
        waited = [
            (one, grant.check) for one in self.connections.values() for grant in one.grants.values()
            if grant.check is not None and grant.check.waits
        ]  # fmt: skip
        spread = min(max(len(waited) / 250, 10), 200)
        for one, check in waited:
            check.waits = False
            check.due = self.now + one.id.bytes[14] / 256 * spread

    def _key(self, heard: Heard) -> tuple[Any, ...]:
        """A signal is heard once for each generation."""
        grant = self.grant(heard.name)
        return heard.evidence, *heard.name, heard.signal, 0 if grant is None else grant.generation

    def _note(self, heard: Heard, grant: Grant, outcome: str, before: str) -> str:
        if heard.evidence is not None:
            self.heard.add(self._key(heard))
        self.history.append((*heard.name, heard.signal, outcome, before, grant.state, heard.evidence))
        return outcome
