"""Connections in their region: SQL beside the function that runs it; the caller owns the transaction.

`register` and `close` append their event as the last statement, so the state and the word of it commit together.
Accounts are kept as keyed hashes only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from gateway import ids
from gateway.connections import grants
from gateway.connections.states import State, fold
from gateway.database import Db
from gateway.endpoints import store as endpoints
from gateway.errors import Conflict, NotFound
from gateway.stream.append import NewEvent, append

OWN_KEY_WINDOW_S = 3600  # an event of ours is its own key: remembered for as long as a batch may be sent again

COLUMNS = """id, tenant_id, integration_id, external_id, end_user_id, labels, state, reason, subject_hash, created_at, updated_at,
             (SELECT count(*) FROM gateway.connection_accounts a WHERE a.connection_id = c.id) AS accounts"""


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


LOCK = "SELECT state FROM gateway.connections WHERE id = $1 FOR UPDATE"
CLOSE = "UPDATE gateway.connections SET state = 'closed', updated_at = gateway.now() WHERE id = $1"
FORGET = "DELETE FROM gateway.connection_accounts WHERE connection_id = $1"


async def close(tx: Db, connection_id: UUID, event_id: UUID) -> None:
    """End a connection: its accounts are forgotten, its endpoints retired, its events stay. Again: nothing new.

    Raises: NotFound.
    """
    state = await tx.fetchval(LOCK, connection_id)
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

    `cause`: a stable word for what moved it (`connect`, `refresh_refused` …). `say`: the event's name where something
    is to be said even though the state stays (`scopes_changed`); unset: the new state's name, if it is new.
    The caller holds the connection's lock.
    """
    before = await get(tx, connection_id)
    held = await grants.of(tx, [connection_id])
    state = fold(grant.state for grant in held) if held and before.state != "closed" else before.state
    reason = next((grant.reason for grant in held if grant.state == state and grant.reason), None)
    await tx.execute(FOLDED, connection_id, state, reason)
    after = await get(tx, connection_id)
    name = say if say is not None else (after.state if after.state != before.state else None)
    if name is not None:
        more = {
            "previous_state": before.state,
            "cause": cause,
            "reason": after.reason,
            "access_profiles": {grant.access_profile: told(grant) for grant in held},
        }
        await append(tx, [_event(after, name, event_id, more)])
    return after


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
