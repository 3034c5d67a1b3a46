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

from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

from gateway.connections import checks, grants, history, renewals, store, telling
from gateway.connections.grants import Grant, Standing
from gateway.connections.history import Entry, Outcome
from gateway.connections.machine import Signal
from gateway.connections.moves import Applied, Hint, Move, NewId
from gateway.connections.states import State
from gateway.connections.store import Connection
from gateway.connections.telling import Because, Word
from gateway.connections.work import Work
from gateway.database import Db
from gateway.errors import NotFound
from gateway.stream.append import NewEvent


async def apply(
    tx: Db,
    moves: Sequence[Move],
    new_id: NewId,
    *,
    hints: Sequence[Hint] = (),
    words: Mapping[UUID, Word] | None = None,
    write: Callable[[], Awaitable[None]] | None = None,
    more: Sequence[NewEvent] = (),
    looked_back: bool = False,
) -> list[Applied]:
    """What became of each move, in order; all in this transaction, of which it is the last statement.

    `words`: what is said of a connection where no move says more. `write`: puts down at once what the `save`s of many
    moves have gathered. `more`: events of other things that are said in the same breath. `looked_back`: as for `telling.settle`.    Raises: NotFound, a connection is not there.
    """
    concerned = [*(move.connection for move in moves), *(hint.connection for hint in hints), *(words or ())]
    work = await Work.begin(tx, concerned, new_id)
    work.words.update(words or {})
    said = [*(move.because.evidence for move in moves), *(hint.because.evidence for hint in hints)]
    heard: set[object] = {*await history.heard(tx, {one for one in said if one is not None}, list(work.connections))}
    applied = [await work.move(move, heard) for move in moves]
    for hint in hints:
        work.hint(hint, heard)
    if write is not None:
        work.saves = True
        await write()
    await work.end(more, looked_back=looked_back)
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
    await renewals.drop(tx, connection_id)
    was = await store.get(tx, connection_id)
    await store.close(tx, connection_id)
    await telling.say(tx, await store.get(tx, connection_id), "closed", new_id(), because, previous=was.state)


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
