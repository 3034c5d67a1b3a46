"""Connections in their region: SQL beside the function that runs it; the caller owns the transaction.

What they say on the stream is `telling.py`'s, what moves them `transitions.py`'s. Accounts are kept as keyed hashes only.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from gateway import ids
from gateway.connections.states import State
from gateway.database import Db
from gateway.endpoints import store as endpoints
from gateway.errors import Conflict, NotFound

Revocation = Literal["pending", "done", "not_needed", "given_up"]

COLUMNS = """id, tenant_id, integration_id, external_id, end_user_id, labels, state, reason, subject_hash, created_at, updated_at,
             (SELECT count(*) FROM gateway.connection_accounts a WHERE a.connection_id = c.id AND NOT a.mark) AS accounts,
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


async def insert(tx: Db, new: NewConnection) -> bool:
    """Make a connection, active at once; False: it was there already, from a lost attempt of the same call.

    Raises: Conflict, its external id is taken.
    """
    made = await tx.fetchval(
        REGISTER, new.id, new.tenant_id, new.integration_id, new.external_id, new.end_user_id, json.dumps(dict(new.labels))
    )  # fmt: skip
    if made is None:
        await _refuse_twin(tx, new)
        return False
    await tx.execute(ACCOUNTS, new.integration_id, sorted(set(new.accounts)), new.id)
    return True


async def _refuse_twin(tx: Db, new: NewConnection) -> None:
    if await find(tx, new.id) is not None:
        return
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
UNMARK = """DELETE FROM gateway.connection_accounts a WHERE connection_id = ANY ($1::uuid[]) AND mark AND NOT EXISTS (
              SELECT FROM gateway.grants g WHERE g.connection_id = a.connection_id AND a.account_hash = ANY (g.marks))"""
MARK = """INSERT INTO gateway.connection_accounts (integration_id, account_hash, connection_id, mark)
          SELECT DISTINCT c.integration_id, m, c.id, true
            FROM gateway.grants g JOIN gateway.connections c ON c.id = g.connection_id CROSS JOIN unnest(g.marks) AS m
           WHERE c.id = ANY ($1::uuid[]) ON CONFLICT DO NOTHING"""


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


async def mark(tx: Db, connections: Collection[UUID]) -> None:
    """Let deliveries that name a token of these connections find them by it, and by no token of before."""
    if connections:
        await tx.execute(UNMARK, list(connections))
        await tx.execute(MARK, list(connections))


ACCOUNTS_OF = "SELECT account_hash FROM gateway.connection_accounts WHERE connection_id = $1 AND NOT mark"


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


async def close(tx: Db, connection_id: UUID) -> None:
    """Its accounts are forgotten, its endpoints retired, its events stay."""
    await tx.execute(CLOSE, connection_id)
    await tx.execute(FORGET, connection_id)
    await endpoints.retire_of(tx, connection_id)


OF = f"SELECT {COLUMNS} FROM gateway.connections c WHERE id = ANY ($1::uuid[]) ORDER BY id"  # noqa: S608 - a constant
LOCK_ALL = f"{OF} FOR UPDATE"
SAVE_ALL = f"""UPDATE gateway.connections c SET state = n.to_state, reason = n.to_reason, updated_at = gateway.now()
                 FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n(named, to_state, to_reason) WHERE c.id = n.named
               RETURNING {COLUMNS}"""  # noqa: S608 - likewise


async def lock_all(tx: Db, connections: Collection[UUID]) -> list[Connection]:
    """Let no other writer at these connections and their grants; they, as they are now. `accounts` may be of a moment before."""
    return [_connection(row) for row in await tx.fetch(LOCK_ALL, list(connections))]


async def of(db: Db, connections: Collection[UUID]) -> list[Connection]:
    """Those of these connections that there are, by id."""
    return [_connection(row) for row in await db.fetch(OF, list(connections))]


async def save_all(tx: Db, states: Mapping[UUID, tuple[State, str | None]]) -> list[Connection]:
    """Put connections into the states that their grants fold to; they, as they are then."""
    if not states:
        return []
    columns = [state for state, _ in states.values()], [reason for _, reason in states.values()]
    return [_connection(row) for row in await tx.fetch(SAVE_ALL, list(states), *columns)]


HAVING = """SELECT connection_id FROM gateway.connection_accounts
             WHERE connection_id = ANY ($1::uuid[]) AND account_hash = ANY ($2::uuid[])"""
KNOWN_BY = """SELECT a.connection_id FROM gateway.connection_accounts a JOIN gateway.connections c ON c.id = a.connection_id
               WHERE a.integration_id = $1 AND a.account_hash = ANY ($2::uuid[]) AND c.state NOT IN ('pending', 'closed')"""


async def having(db: Db, connections: Collection[UUID], accounts: Collection[UUID]) -> set[UUID]:
    """Those of these connections that have one of these accounts."""
    return {row["connection_id"] for row in await db.fetch(HAVING, list(connections), list(accounts))}


async def known_by(db: Db, integration_id: UUID, accounts: Collection[UUID]) -> set[UUID]:
    """The open connections of an integration that have one of these accounts."""
    return {row["connection_id"] for row in await db.fetch(KNOWN_BY, integration_id, list(accounts))}


def _connection(row: Any) -> Connection:
    return Connection(**{**dict(row), "labels": orjson.loads(row["labels"])})
