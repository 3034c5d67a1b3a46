"""Hook endpoints in their region: SQL beside the function that runs it; the caller owns the transaction.

An endpoint's secrets are sealed under the region's keyring, bound to the endpoint, newest first. One without secrets
of its own trusts the integration's. `confirming` (a handshake is awaited) ends by itself: past `confirm_until`, by
the region's clock, such an endpoint counts as retired.

Whoever manages endpoints sees a `Description` and opens nothing, so that one whose secret does not open (a key that
is gone, a row put back by hand) can be looked at, mended and removed. Its deliveries get a 503 meanwhile.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from gateway.database import Db
from gateway.errors import Conflict, NotFound
from gateway.vault import direct
from gateway.vault.cipher import SealBroken
from gateway.vault.direct import Direct
from gateway.vault.keyring import Aad, Keyring

State = Literal["confirming", "live", "retired"]
MOST_SECRETS = 5  # a rotation needs two

# `state` as it counts now: whoever reads never has to think of confirm_until.
COLUMNS = """id, integration_id, connection_id, confirm_until, created_at, updated_at,
             cardinality(sealed_secrets) AS secret_count,
             CASE WHEN state = 'confirming' AND confirm_until <= gateway.now() THEN 'retired' ELSE state END AS state"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An endpoint as people see it: of its secrets only how many there are."""

    id: UUID
    integration_id: UUID
    connection_id: UUID | None
    state: State
    confirm_until: datetime | None
    secret_count: int  # 0: the integration's hold here
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEndpoint(Description):
    """An endpoint with all of its secrets opened. Its repr shows none."""

    secrets: tuple[bytes, ...] = field(repr=False)  # newest first


def aad(region: str, endpoint_id: UUID) -> Aad:
    """What an endpoint's secrets are bound to."""
    return Aad(place=region, owner=endpoint_id, purpose="endpoint_secret")


@dataclass(frozen=True, slots=True)
class Vault:
    """How secrets of one region's endpoints are sealed."""

    region: str
    keyring: Keyring = field(repr=False)

    def seal(self, endpoint_id: UUID, secret: bytes) -> bytes:
        return self.keyring.seal(secret, aad(self.region, endpoint_id))

    def open(self, endpoint_id: UUID, sealed: bytes) -> bytes:
        """Raises: SealBroken."""
        return self.keyring.open(bytes(sealed), aad(self.region, endpoint_id))

    def opened(self, row: Any) -> HookEndpoint:
        """The endpoint in `row`: with each of its secrets, or not at all.    Raises: SealBroken."""
        fields = dict(row)
        sealed = fields.pop("sealed_secrets")
        return HookEndpoint(**fields, secrets=tuple(self.open(row["id"], one) for one in sealed))


# Insert or nothing: the same id comes again when a call with an Idempotency-Key is tried again.
CREATE = f"""
INSERT INTO gateway.hook_endpoints (id, integration_id, connection_id, state, confirm_until, sealed_secrets, created_at, updated_at)
VALUES ($1, $2, $3, $4, CASE WHEN $4 = 'confirming' THEN gateway.now() + make_interval(secs => $5) END, $6, gateway.now(), gateway.now())
ON CONFLICT (id) DO NOTHING RETURNING {COLUMNS}, sealed_secrets"""  # noqa: S608 - a constant of this file


async def create(
    tx: Db,
    vault: Vault,
    endpoint_id: UUID,
    *,
    integration_id: UUID,
    connection_id: UUID | None,
    state: State,
    confirm_ttl_s: float,
    secrets: Sequence[bytes],
) -> HookEndpoint:
    """Make an endpoint, or return the one of this id that a lost attempt made.    Raises: Conflict, that one is broken."""
    sealed = [vault.seal(endpoint_id, secret) for secret in secrets]
    row = await tx.fetchrow(CREATE, endpoint_id, integration_id, connection_id, state, float(confirm_ttl_s), sealed)
    try:
        return vault.opened(row or await tx.fetchrow(OPENABLE, endpoint_id))
    except SealBroken:
        raise Conflict(
            "The endpoint was made before and its secret does not open: remove it and make another."
        ) from None


GET = f"SELECT {COLUMNS} FROM gateway.hook_endpoints WHERE id = $1"  # noqa: S608 - a constant of this file
OPENABLE = f"SELECT {COLUMNS}, sealed_secrets FROM gateway.hook_endpoints WHERE id = $1"  # noqa: S608 - the same


async def find(db: Db, endpoint_id: UUID) -> Description | None:
    """The endpoint of that id, retired ones included."""
    row = await db.fetchrow(GET, endpoint_id)
    return None if row is None else Description(**row)


async def get(db: Db, endpoint_id: UUID) -> Description:
    """Raises: NotFound."""
    found = await find(db, endpoint_id)
    if found is None:
        raise NotFound()
    return found


PAGE = f"""SELECT {COLUMNS} FROM gateway.hook_endpoints
            WHERE ($1::uuid IS NULL OR id > $1) AND ($3::uuid IS NULL OR integration_id = $3)
              AND ($4::uuid IS NULL OR connection_id = $4)
            ORDER BY id LIMIT $2"""  # noqa: S608 - a constant of this file


async def page(
    db: Db, *, after: UUID | None, limit: int, integration_id: UUID | None, connection_id: UUID | None
) -> list[Description]:
    """Endpoints in the order of their ids, behind `after`."""
    return [Description(**row) for row in await db.fetch(PAGE, after, limit, integration_id, connection_id)]


SET_STATE = f"""
UPDATE gateway.hook_endpoints SET state = $2, confirm_until = NULL, updated_at = gateway.now()
 WHERE id = $1 AND (state = 'live' OR state = $2 OR state = 'confirming' AND confirm_until > gateway.now())
RETURNING {COLUMNS}"""  # noqa: S608 - a constant of this file


async def set_state(tx: Db, endpoint_id: UUID, state: Literal["live", "retired"]) -> Description:
    """Make an endpoint live, or retire it for good.    Raises: NotFound; Conflict, it is retired already."""
    row = await tx.fetchrow(SET_STATE, endpoint_id, state)
    if row is not None:
        return Description(**row)
    found = await get(tx, endpoint_id)
    if state == "retired":
        return found  # a confirmation that ran out is retired already
    raise Conflict("A retired endpoint does not come back: make a new one.")


SET_SECRETS = f"""UPDATE gateway.hook_endpoints SET sealed_secrets = $2, updated_at = gateway.now()
                   WHERE id = $1 RETURNING {COLUMNS}"""  # noqa: S608 - a constant of this file
LOCK = "SELECT sealed_secrets FROM gateway.hook_endpoints WHERE id = $1 FOR UPDATE"


async def add_secret(tx: Db, vault: Vault, endpoint_id: UUID, secret: bytes) -> Description:
    """Put `secret` in front; the older ones stay as they are and still verify. The same one again is a no-op.

    Raises: NotFound; Conflict, there are too many.
    """
    locked = await tx.fetchrow(LOCK, endpoint_id)
    if locked is None:
        raise NotFound()
    sealed = list(locked["sealed_secrets"])
    if sealed and _is(vault, endpoint_id, sealed[0], secret):
        return await get(tx, endpoint_id)
    if len(sealed) >= MOST_SECRETS:
        raise Conflict(f"An endpoint holds {MOST_SECRETS} secrets at most: drop the old ones first.")
    return await _set_secrets(tx, endpoint_id, [vault.seal(endpoint_id, secret), *sealed])


async def _set_secrets(tx: Db, endpoint_id: UUID, sealed: Sequence[bytes]) -> Description:
    row = await tx.fetchrow(SET_SECRETS, endpoint_id, sealed)
    assert row is not None, "the row is locked"
    return Description(**row)


def _is(vault: Vault, endpoint_id: UUID, sealed: bytes, secret: bytes) -> bool:
    try:
        return hmac.compare_digest(vault.open(endpoint_id, sealed), secret)
    except SealBroken:
        return False  # whatever it was: a new one in front and the old ones dropped is how it is mended


async def keep_secrets(tx: Db, endpoint_id: UUID, keep: int) -> Description:
    """Forget all but the newest `keep` (1 or more).    Raises: NotFound."""
    locked = await tx.fetchrow(LOCK, endpoint_id)
    if locked is None:
        raise NotFound()
    return await _set_secrets(tx, endpoint_id, list(locked["sealed_secrets"])[:keep])


DELETE = "DELETE FROM gateway.hook_endpoints WHERE id = $1 RETURNING id"


async def delete(tx: Db, endpoint_id: UUID) -> None:
    """Raises: NotFound."""
    if await tx.fetchval(DELETE, endpoint_id) is None:
        raise NotFound()


RETIRE_OF = """UPDATE gateway.hook_endpoints SET state = 'retired', confirm_until = NULL, updated_at = gateway.now()
                WHERE connection_id = $1 AND state <> 'retired'"""


async def retire_of(tx: Db, connection_id: UUID) -> None:
    """Retire every endpoint of a connection: it ends."""
    await tx.execute(RETIRE_OF, connection_id)


RETIRE_ALL = """UPDATE gateway.hook_endpoints
                   SET state = 'retired', confirm_until = NULL, sealed_secrets = '{}', updated_at = gateway.now()
                 WHERE integration_id = ANY ($1::uuid[]) AND (state <> 'retired' OR sealed_secrets <> '{}')"""


async def retire_all(tx: Db, integrations: Sequence[UUID]) -> None:
    """Retire every endpoint of integrations that are removed, and forget their secrets.

    Committed here before control commits the removal, as no transaction spans both: a crash in between leaves an
    integration whose endpoints answer 404, and removing it again goes on from there.
    """
    await tx.execute(RETIRE_ALL, list(integrations))


_SOME = "EXISTS (SELECT FROM unnest(sealed_secrets) AS s WHERE substring(s {0}) {1} $1)"
SEALED = Direct(
    name="hook endpoints",
    line="region",
    key=("id",),
    start=(UUID(int=0),),
    under=f"SELECT count(*) FROM gateway.hook_endpoints WHERE {_SOME.format(direct.PREFIX, '=')}",  # noqa: S608 - constants
    read=f"""SELECT id, sealed_secrets AS sealed FROM gateway.hook_endpoints
              WHERE id > $3 AND {_SOME.format(direct.PREFIX, "<>")} ORDER BY id LIMIT $2""",  # noqa: S608 - the same
    write="UPDATE gateway.hook_endpoints SET sealed_secrets = $1 WHERE id = $3 AND sealed_secrets = $2",
    aad=lambda region, row: aad(region, row["id"]),
)
