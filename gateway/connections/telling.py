"""What the stream says of connections: every change of state by its own name, with its cause, evidence and what is to be done.

    posthouse.connection.{active, suspect, suspended, reauth_required, revoked, closed}   the state it has come into
    posthouse.connection.repaired         it is active again: by a reconnect, or by a probe or refresh that succeeded
    posthouse.connection.authorized       a new consent, and the state is as it was
    posthouse.connection.scopes_changed   what it reaches has changed, whatever that did to the state

A "please reconnect" mail is silenced by `repaired`; nobody is mailed for `suspect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from gateway import ids
from gateway.connections import grants, store
from gateway.connections.history import Source
from gateway.connections.states import ACTIONS, State, fold
from gateway.connections.store import Connection
from gateway.database import Db
from gateway.stream.append import NewEvent, append

OWN_KEY_WINDOW_S = 3600  # an event of ours is its own key: remembered for as long as a batch may be sent again


@dataclass(frozen=True, slots=True, kw_only=True)
class Because:
    """Why something moved. `cause` is a stable word: `connect`, `tokens_revoked`, `refresh_refused` …"""

    cause: str
    source: Source
    evidence: UUID | None = None  # the event of the log that says so
    code: str | None = None  # the provider's own, where it is a plain word
    occurred_at: datetime | None = None  # by the provider's clock, as far as it is known


@dataclass(frozen=True, slots=True)
class Word:
    """What is to be said of one connection. `say` names an event for when its state stays, `also` one for any case."""

    because: Because
    say: str | None = None
    also: str | None = None


async def settle(
    tx: Db,
    words: Mapping[UUID, Word],
    new_id: Callable[[], UUID],
    *,
    own: Mapping[UUID, tuple[State, str | None]] | None = None,
    more: Sequence[NewEvent] = (),
    looked_back: bool = False,
    known: tuple[Sequence[Connection], Sequence[grants.Grant]] | None = None,
) -> list[Connection]:
    """Fold the grants' states into their connections' and say what changed, as the last statement of the transaction.

    `own`: the states of connections without grants. `more`: events of other things that are said in the same breath.
    `looked_back`: the follower is to look once more at what came for these connections before they were there
    (PROTOCOLS 3). `known`: these connections as they were locked and their grants in their new states, where nothing else
    of either was written; else they are read. `new_id` gives an event's id at each call. The caller holds the connections'
    locks; closed ones stay.
    """
    before, held = known or (await store.of(tx, words), await grants.of(tx, words))
    of: dict[UUID, list[grants.Grant]] = {one.id: [] for one in before}
    for grant in held:
        of[grant.connection_id].append(grant)
    moved: dict[UUID, tuple[State, str | None]] = dict(own or {})
    for one in before:
        if of[one.id] and one.state != "closed":
            folded = _folded(of[one.id])
            if folded != (one.state, one.reason):
                moved[one.id] = folded
    saved = {one.id: one for one in await store.save_all(tx, moved)}
    after = [saved.get(one.id, one) for one in before]
    events = []
    for was, now in zip(before, after, strict=True):
        word = words[now.id]
        names = [word.also, word.say if now.state == was.state else _name(was, now)]
        told = _told(was, now, word.because, of[now.id])
        events += [event(now, name, new_id(), told, signal=looked_back) for name in names if name is not None]
    if events or more:
        await append(tx, [*events, *more])
    return after


async def say(
    tx: Db,
    connection: Connection,
    name: str,
    event_id: UUID,
    because: Because,
    *,
    previous: State,
    signal: bool = False,
) -> None:
    """One event of a connection that has no grants left, or never had any."""
    told: dict[str, Any] = {
        "previous_state": previous,
        "cause": because.cause,
        "reason": connection.reason,
        "access_profiles": {},
    }
    await append(tx, [event(connection, name, event_id, told | {"evidence": _evidence(because)}, signal=signal)])


def _name(was: Connection, now: Connection) -> str:
    return "repaired" if now.state == "active" and was.state != "pending" else now.state


def _folded(held: Sequence[grants.Grant]) -> tuple[State, str | None]:
    state = fold(grant.state for grant in held)
    return state, next((grant.reason for grant in held if grant.state == state and grant.reason), None)


def _told(was: Connection, now: Connection, because: Because, held: Sequence[grants.Grant]) -> dict[str, Any]:
    return {
        "previous_state": was.state,
        "cause": because.cause,
        "reason": now.reason,
        "evidence": _evidence(because),
        "access_profiles": {grant.access_profile: told(grant) for grant in held},
    }


def _evidence(because: Because) -> dict[str, Any]:
    event = None if because.evidence is None else ids.show(ids.EVENT, because.evidence)
    return {"source": because.source, "event": event, "code": because.code, "occurred_at": because.occurred_at}


def told(grant: grants.Grant) -> dict[str, Any]:
    """What events (and the API) say of a grant: no token, no account."""
    return {
        "state": grant.state,
        "reason": grant.reason,
        "generation": grant.generation,
        "granted": list(grant.ledger.granted),
        "missing": list(grant.ledger.missing),
        "lost": list(grant.ledger.lost),
        "optional_missing": list(grant.ledger.optional_missing),
    }


def event(
    connection: Connection, name: str, event_id: UUID, more: Mapping[str, Any] | None = None, *, signal: bool = False
) -> NewEvent:
    """What the stream says of a change. Never an account: only the platform's own words for it."""
    said = {
        "connection": ids.show(ids.CONNECTION, connection.id),
        "tenant": connection.tenant_id,
        "external_id": connection.external_id,
        "end_user_id": connection.end_user_id,
        "labels": dict(connection.labels),
        "state": connection.state,
        "action": ACTIONS[connection.state],
        **(more or {}),
    }
    return NewEvent(
        id=event_id,
        key=event_id,
        window_s=OWN_KEY_WINDOW_S,
        type=f"posthouse.connection.{name}",
        time=connection.updated_at,
        integration=connection.integration_id,
        connection=connection.id,
        accounts=(),
        drop_unmatched=False,
        signal=signal,
        content_type="application/json",
        delivery=None,
        data=orjson.dumps(said, option=orjson.OPT_UTC_Z),
    )
