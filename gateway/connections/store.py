"""Connections in their region: SQL beside the function that runs it; the caller owns the transaction.

`register` and `close` append their event as the last statement, so the state and the word of it commit together.
Accounts are kept as keyed hashes only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from gateway import ids
from gateway.connections import grants
from gateway.connections.states import State, fold
from gateway.database import Db
from gateway.endpoints import store as endpoints
from gateway.errors import Conflict, NotFound
from gateway.stream.append import NewEvent, append

Revocation = Literal["pending", "done", "not_needed", "given_up"]

OWN_KEY_WINDOW_S = 3600  # an event of ours is its own key: remembered for as long as a batch may be sent again

COLUMNS = """id, tenant_id, integration_id, external_id, end_user_id, labels, state, reason, subject_hash, created_at, updated_at,
             (SELECT count(*) FROM gateway.connection_accounts a WHERE a.connection_id = c.id) AS accounts,
             CASE WHEN state = 'closed' AND EXISTS (SELECT FROM gateway.closing_tasks k WHERE k.connection_id = c.id)
                  THEN 'pending' ELSE revocation END AS revocation"""


@dataclass(frozen=True, slots=True)
class Connection:
    """One account of one tenant at one integration."""

    id: UUID
    tenant_id: str
    integration_id: UUID
    external_id: str | None
    end_user_id: str | None
    labels: Mapping[str, str]
    state: State
    reason: str | None  # why it is in that state, where a word says more than the state: scopes_missing …
    subject_hash: UUID | None  # the account itself; None where the platform registered it
    created_at: datetime
    updated_at: datetime
    accounts: int  # how many; which ones is kept as hashes
    revocation: Revocation | None  # of its tokens at the provider, when it has ended; None: there were none


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConnection:
    """A connection that is about to be registered."""

    id: UUID
    tenant_id: str
    integration_id: UUID
    external_id: str | None
    end_user_id: str | None
    labels: Mapping[str, str]
    accounts: Sequence[UUID]  # account hashes


HINT = """INSERT INTO control.account_regions (integration_id, account_hash, region)
          SELECT $1, h, $3 FROM unnest($2::uuid[]) AS h ON CONFLICT DO NOTHING"""


async def hint(control: Db, integration_id: UUID, accounts: Sequence[UUID], region: str) -> None:
    """Say in control, before the region says so itself, where deliveries of these accounts go."""
    if accounts:
        await control.execute(HINT, integration_id, sorted(set(accounts)), region)


# Insert or nothing: the same id comes again when a call with an Idempotency-Key is tried again.
REGISTER = """
INSERT INTO gateway.connections (id, tenant_id, integration_id, external_id, end_user_id, labels, state, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 'active', gateway.now(), gateway.now()) ON CONFLICT DO NOTHING RETURNING id"""
ACCOUNTS = """INSERT INTO gateway.connection_accounts (integration_id, account_hash, connection_id)
              SELECT $1, h, $3 FROM unnest($2::uuid[]) AS h"""
ADD_ACCOUNTS = ACCOUNTS + " ON CONFLICT DO NOTHING"
TWIN = """SELECT id FROM gateway.connections
           WHERE tenant_id = $1 AND integration_id = $2 AND external_id = $3 AND state <> 'closed'"""


async def register(tx: Db, new: NewConnection, event_id: UUID) -> Connection:
    """Make a connection, active at once, and say so on the stream.    Raises: Conflict, its external id is taken."""
    made = await tx.fetchval(
        REGISTER, new.id, new.tenant_id, new.integration_id, new.external_id, new.end_user_id, json.dumps(dict(new.labels))
    )  # fmt: skip
    if made is None:
        return await _there_already(tx, new)
    await tx.execute(ACCOUNTS, new.integration_id, sorted(set(new.accounts)), new.id)
    connection = await get(tx, new.id)
    await append(tx, [_event(connection, "active", event_id)])
    return connection


async def _there_already(tx: Db, new: NewConnection) -> Connection:
    found = await find(tx, new.id)
    if found is not None:
        return found  # a lost attempt of the same call made it, and said so on the stream
    twin = await tx.fetchval(TWIN, new.tenant_id, new.integration_id, new.external_id)
    more: dict[str, Any] = {} if twin is None else {"connection": ids.show(ids.CONNECTION, twin)}
    raise Conflict("An open connection of this tenant and integration has that external_id.", **more)


# Its external id comes with its completion: until then it must not stand in the way of another try.
EXPECT = """
INSERT INTO gateway.connections (id, tenant_id, integration_id, end_user_id, labels, state, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, 'pending', gateway.now(), gateway.now()) ON CONFLICT DO NOTHING"""


async def expect(tx: Db, new: NewConnection) -> None:
    """Make a connection that waits for its completion: no delivery is its own yet. Again: nothing new."""
    await tx.execute(EXPECT, new.id, new.tenant_id, new.integration_id, new.end_user_id, json.dumps(dict(new.labels)))


async def twin(db: Db, new: NewConnection) -> UUID | None:
    """The open connection that has this external id already."""
    found: UUID | None = await db.fetchval(TWIN, new.tenant_id, new.integration_id, new.external_id)
    return found


KNOW = """UPDATE gateway.connections SET subject_hash = $2, external_id = coalesce(external_id, $3), updated_at = gateway.now()
           WHERE id = $1"""
OTHERS = "DELETE FROM gateway.connection_accounts WHERE connection_id = $1 AND account_hash <> ALL ($2::uuid[])"


async def know(
    tx: Db,
    connection: Connection,
    subject_hash: UUID | None,
    accounts: Sequence[UUID],
    *,
    external_id: str | None,
    switched: bool,
) -> None:
    """Whose account it is, as the provider says. `switched`: another one than before, whose names are forgotten."""
    await tx.execute(KNOW, connection.id, subject_hash, external_id)
    if switched:
        await tx.execute(OTHERS, connection.id, list(accounts))
    await tx.execute(ADD_ACCOUNTS, connection.integration_id, sorted(set(accounts)), connection.id)


ACCOUNTS_OF = "SELECT account_hash FROM gateway.connection_accounts WHERE connection_id = $1"


async def accounts_of(db: Db, connection_id: UUID) -> set[UUID]:
    """The hashes of its accounts."""
    return {row["account_hash"] for row in await db.fetch(ACCOUNTS_OF, connection_id)}


GET = f"SELECT {COLUMNS} FROM gateway.connections c WHERE id = $1"  # noqa: S608 - a constant of this file


async def find(db: Db, connection_id: UUID) -> Connection | None:
    """The connection of that id, closed ones included."""
    row = await db.fetchrow(GET, connection_id)
    return None if row is None else _connection(row)


async def get(db: Db, connection_id: UUID) -> Connection:
    """Raises: NotFound."""
    found = await find(db, connection_id)
    if found is None:
        raise NotFound()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which connections; None: whatever it is."""

    tenant_id: str | None = None
    integration_id: UUID | None = None
    state: str | None = None
    external_id: str | None = None
    end_user_id: str | None = None


PAGE = f"""SELECT {COLUMNS} FROM gateway.connections c
            WHERE ($1::uuid IS NULL OR id > $1) AND ($3::text IS NULL OR tenant_id = $3)
              AND ($4::uuid IS NULL OR integration_id = $4) AND ($5::text IS NULL OR state = $5)
              AND ($6::text IS NULL OR external_id = $6) AND ($7::text IS NULL OR end_user_id = $7)
            ORDER BY id LIMIT $2"""  # noqa: S608 - a constant of this file


async def page(db: Db, wanted: Filter, *, after: UUID | None, limit: int) -> list[Connection]:
    """Connections in the order of their ids, behind `after`."""
    rows = await db.fetch(
        PAGE, after, limit, wanted.tenant_id, wanted.integration_id, wanted.state, wanted.external_id, wanted.end_user_id
    )  # fmt: skip
    return [_connection(row) for row in rows]


CLOSE = "UPDATE gateway.connections SET state = 'closed', reason = NULL, updated_at = gateway.now() WHERE id = $1"
FORGET = "DELETE FROM gateway.connection_accounts WHERE connection_id = $1"


async def close(tx: Db, connection_id: UUID, event_id: UUID) -> None:
    """End a connection: its accounts are forgotten, its endpoints retired, its events stay. Again: nothing new.

    Raises: NotFound.
    """
    state = await grants.lock(tx, connection_id)
    if state is None:
        raise NotFound()
    if state == "closed":
        return
    await tx.execute(CLOSE, connection_id)
    await tx.execute(FORGET, connection_id)
    await endpoints.retire_of(tx, connection_id)
    await append(tx, [_event(await get(tx, connection_id), "closed", event_id)])


FOLDED = """UPDATE gateway.connections SET state = $2, reason = $3, updated_at = gateway.now()
             WHERE id = $1 AND state <> 'closed' AND (state, reason) IS DISTINCT FROM ($2, $3)"""


async def settle(tx: Db, connection_id: UUID, event_id: UUID, *, cause: str, say: str | None = None) -> Connection:
    """Fold the grants' states into the connection's and say what changed, as the last statement of the transaction.

    `cause`: a stable word for what moved it (`connect`, `refresh_refused` …). A new state is said by its own name;
    `say` names an event beside it, for what is to be said even though the state stays (`scopes_changed`).
    The caller holds the connection's lock.
    """
    before = await get(tx, connection_id)
    held = await grants.of(tx, [connection_id])
    state = fold(grant.state for grant in held) if held and before.state != "closed" else before.state
    reason = next((grant.reason for grant in held if grant.state == state and grant.reason), None)
    await tx.execute(FOLDED, connection_id, state, reason)
    after = await get(tx, connection_id)
    names = [name for name in (say, after.state if after.state != before.state else None) if name is not None]
    if names:
        said = _more(before, after, cause, held)
        event_ids = [event_id, *(ids.uuid7(after.updated_at) for _ in names[1:])]
        await append(tx, [_event(after, name, of, said) for name, of in zip(names, event_ids, strict=True)])
    return after


OF = f"SELECT {COLUMNS} FROM gateway.connections c WHERE id = ANY ($1::uuid[]) ORDER BY id"  # noqa: S608 - a constant
LOCK_ALL = "SELECT id FROM gateway.connections WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE"
FOLDED_ALL = """UPDATE gateway.connections c SET state = n.state, reason = n.reason, updated_at = gateway.now()
                  FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n(id, state, reason) WHERE c.id = n.id"""


async def lock_all(tx: Db, connections: Collection[UUID]) -> None:
    """Let no other writer at these connections and their grants."""
    await tx.fetch(LOCK_ALL, list(connections))


async def settle_all(
    tx: Db, connections: Collection[UUID], new_id: Callable[[], UUID], *, cause: str, say: str | None = None
) -> list[Connection]:
    """`settle` for many at once: their states folded, what changed said in one append, the transaction's last statement.

    `new_id` gives an event's id at each call. The caller holds the connections' locks. Closed ones stay as they are.
    """
    before = [_connection(row) for row in await tx.fetch(OF, list(connections))]
    of: dict[UUID, list[grants.Grant]] = {one.id: [] for one in before}
    for grant in await grants.of(tx, list(of)):
        of[grant.connection_id].append(grant)
    moved: dict[UUID, tuple[State, str | None]] = {}
    for one in before:
        if of[one.id] and one.state != "closed":
            state = fold(grant.state for grant in of[one.id])
            reason = next((grant.reason for grant in of[one.id] if grant.state == state and grant.reason), None)
            if (state, reason) != (one.state, one.reason):
                moved[one.id] = (state, reason)
    if moved:
        states, reasons = [state for state, _ in moved.values()], [reason for _, reason in moved.values()]
        await tx.execute(FOLDED_ALL, list(moved), states, reasons)
    after = [_connection(row) for row in await tx.fetch(OF, list(connections))]
    events = []
    for was, now in zip(before, after, strict=True):
        name = say if say is not None else (now.state if now.state != was.state else None)
        if name is not None:
            events.append(_event(now, name, new_id(), _more(was, now, cause, of[now.id])))
    if events:
        await append(tx, events)
    return after


def _more(was: Connection, now: Connection, cause: str, held: Sequence[grants.Grant]) -> dict[str, Any]:
    return {
        "previous_state": was.state,
        "cause": cause,
        "reason": now.reason,
        "access_profiles": {grant.access_profile: told(grant) for grant in held},
    }


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


def _event(connection: Connection, name: str, event_id: UUID, more: Mapping[str, Any] | None = None) -> NewEvent:
    """What the stream says of a change. Never an account: only the platform's own words for it."""
    said = {
        "connection": ids.show(ids.CONNECTION, connection.id),
        "tenant": connection.tenant_id,
        "external_id": connection.external_id,
        "end_user_id": connection.end_user_id,
        "labels": dict(connection.labels),
        "state": connection.state,
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
        signal=False,
        content_type="application/json",
        delivery=None,
        data=orjson.dumps(said),
    )


def _connection(row: Any) -> Connection:
    return Connection(**{**dict(row), "labels": json.loads(row["labels"])})
