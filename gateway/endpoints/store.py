"""Hook endpoints in their region: SQL beside the function that runs it; the caller owns the transaction.

An endpoint's secrets are sealed under the region's keyring, bound to the endpoint, newest first. One without secrets
of its own trusts the integration's. `confirming` (a handshake is awaited) ends by itself: past `confirm_until`, by
the region's clock, such an endpoint counts as retired.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from gateway.clock import Clock
from gateway.database import Db
from gateway.errors import Conflict, NotFound
from gateway.vault.keyring import Aad, Keyring

if TYPE_CHECKING:
    from gateway.regions import Region

State = Literal["confirming", "live", "retired"]
MOST_SECRETS = 5  # a rotation needs two
TTL_S = 1.0  # of the hot path's memory
MOST_REMEMBERED = 4096
LIMIT_S = 0.6  # then the database is away: with the deadline of the commit behind it, the provider is told within 2 s

# `state` as it counts now: whoever reads never has to think of confirm_until.
COLUMNS = """id, integration_id, connection_id, confirm_until, sealed_secrets, created_at, updated_at,
             CASE WHEN state = 'confirming' AND confirm_until <= gateway.now() THEN 'retired' ELSE state END AS state"""


@dataclass(frozen=True, slots=True)
class HookEndpoint:
    """An endpoint with its secrets opened. Its repr shows none."""

    id: UUID
    integration_id: UUID
    connection_id: UUID | None
    state: State
    confirm_until: datetime | None
    secrets: tuple[bytes, ...] = field(repr=False)  # newest first; empty: the integration's hold here
    created_at: datetime
    updated_at: datetime


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

    def opened(self, row: Any) -> HookEndpoint:
        """The endpoint in `row`.    Raises: SealBroken."""
        bound = aad(self.region, row["id"])
        return HookEndpoint(
            id=row["id"],
            integration_id=row["integration_id"],
            connection_id=row["connection_id"],
            state=row["state"],
            confirm_until=row["confirm_until"],
            secrets=tuple(self.keyring.open(bytes(sealed), bound) for sealed in row["sealed_secrets"]),
            created_at=row["created_at"],
            updated_at=row["updated_at"],
        )


# Insert or nothing: the same id comes again when a call with an Idempotency-Key is tried again.
CREATE = f"""
INSERT INTO gateway.hook_endpoints (id, integration_id, connection_id, state, confirm_until, sealed_secrets, created_at, updated_at)
VALUES ($1, $2, $3, $4, CASE WHEN $4 = 'confirming' THEN gateway.now() + make_interval(secs => $5) END, $6, gateway.now(), gateway.now())
ON CONFLICT (id) DO NOTHING RETURNING {COLUMNS}"""  # noqa: S608 - a constant of this file


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
    """Make an endpoint, or return the one of this id that a lost attempt made."""
    sealed = [vault.seal(endpoint_id, secret) for secret in secrets]
    row = await tx.fetchrow(CREATE, endpoint_id, integration_id, connection_id, state, float(confirm_ttl_s), sealed)
    return vault.opened(row) if row is not None else await get(tx, vault, endpoint_id)


GET = f"SELECT {COLUMNS} FROM gateway.hook_endpoints WHERE id = $1"  # noqa: S608 - a constant of this file


async def find(db: Db, vault: Vault, endpoint_id: UUID) -> HookEndpoint | None:
    """The endpoint of that id, retired ones included."""
    row = await db.fetchrow(GET, endpoint_id)
    return None if row is None else vault.opened(row)


async def get(db: Db, vault: Vault, endpoint_id: UUID) -> HookEndpoint:
    """Raises: NotFound."""
    found = await find(db, vault, endpoint_id)
    if found is None:
        raise NotFound()
    return found


PAGE = f"""SELECT {COLUMNS} FROM gateway.hook_endpoints
            WHERE ($1::uuid IS NULL OR id > $1) AND ($3::uuid IS NULL OR integration_id = $3)
              AND ($4::uuid IS NULL OR connection_id = $4)
            ORDER BY id LIMIT $2"""  # noqa: S608 - a constant of this file


async def page(
    db: Db, vault: Vault, *, after: UUID | None, limit: int, integration_id: UUID | None, connection_id: UUID | None
) -> list[HookEndpoint]:
    """Endpoints in the order of their ids, behind `after`."""
    return [vault.opened(row) for row in await db.fetch(PAGE, after, limit, integration_id, connection_id)]


SET_STATE = f"""
UPDATE gateway.hook_endpoints SET state = $2, confirm_until = NULL, updated_at = gateway.now()
 WHERE id = $1 AND (state = 'live' OR state = $2 OR state = 'confirming' AND confirm_until > gateway.now())
RETURNING {COLUMNS}"""  # noqa: S608 - a constant of this file


async def set_state(tx: Db, vault: Vault, endpoint_id: UUID, state: Literal["live", "retired"]) -> HookEndpoint:
    """Make an endpoint live, or retire it for good.    Raises: NotFound; Conflict, it is retired already."""
    row = await tx.fetchrow(SET_STATE, endpoint_id, state)
    if row is not None:
        return vault.opened(row)
    found = await get(tx, vault, endpoint_id)
    if state == "retired":
        return found  # a confirmation that ran out is retired already
    raise Conflict("A retired endpoint does not come back: make a new one.")


SET_SECRETS = f"""UPDATE gateway.hook_endpoints SET sealed_secrets = $2, updated_at = gateway.now()
                   WHERE id = $1 RETURNING {COLUMNS}"""  # noqa: S608 - a constant of this file
LOCK = "SELECT sealed_secrets FROM gateway.hook_endpoints WHERE id = $1 FOR UPDATE"


async def add_secret(tx: Db, vault: Vault, endpoint_id: UUID, secret: bytes) -> HookEndpoint:
    """Put `secret` in front; the older ones still verify. The same one again is a no-op.

    Raises: NotFound; Conflict, there are too many.
    """
    await tx.fetchrow(LOCK, endpoint_id)
    found = await get(tx, vault, endpoint_id)
    if found.secrets and found.secrets[0] == secret:
        return found
    if len(found.secrets) >= MOST_SECRETS:
        raise Conflict(f"An endpoint holds {MOST_SECRETS} secrets at most: drop the old ones first.")
    row = await tx.fetchrow(SET_SECRETS, endpoint_id, [vault.seal(endpoint_id, s) for s in (secret, *found.secrets)])
    return vault.opened(row)


async def keep_secrets(tx: Db, vault: Vault, endpoint_id: UUID, keep: int) -> HookEndpoint:
    """Forget all but the newest `keep` (1 or more).    Raises: NotFound."""
    locked = await tx.fetchrow(LOCK, endpoint_id)
    if locked is None:
        raise NotFound()
    row = await tx.fetchrow(SET_SECRETS, endpoint_id, list(locked["sealed_secrets"])[:keep])
    return vault.opened(row)


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


class EndpointCache:
    """What the hot path remembers of endpoints: an LRU for a second at most.

    A rotated secret or a retired endpoint counts at once for people's purposes, and a busy endpoint costs one query a
    second instead of thousands. "There is no such endpoint" is never remembered (it may be made the next moment, and
    its provider call back inside the very call that makes it), nor is one that waits for its handshake. Concurrent
    misses of one id share a query.
    """

    def __init__(self, clock: Clock, ttl_s: float = TTL_S, most: int = MOST_REMEMBERED) -> None:
        self._clock, self._ttl_s, self._most = clock, ttl_s, most
        self._known: OrderedDict[tuple[str, UUID], tuple[float, HookEndpoint]] = OrderedDict()
        self._asking: dict[tuple[str, UUID], asyncio.Task[HookEndpoint | None]] = {}

    async def get(self, region: Region, endpoint_id: UUID) -> HookEndpoint | None:
        """The endpoint, at most a second old, or None.    Raises: Unavailable."""
        name = (region.name, endpoint_id)
        known = self._known.get(name)
        if known is not None and self._clock.monotonic() - known[0] < self._ttl_s:
            self._known.move_to_end(name)
            return known[1]
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.create_task(self._ask(region, name))
            asking.add_done_callback(lambda task: self._answered(name, task))
        return await asyncio.shield(asking)  # one who gives up must not take the others' answer away

    def forget(self, region: str, endpoint_id: UUID) -> None:
        """This process changed the endpoint: the next delivery reads it anew."""
        self._known.pop((region, endpoint_id), None)
        self._asking.pop((region, endpoint_id), None)

    async def _ask(self, region: Region, name: tuple[str, UUID]) -> HookEndpoint | None:
        asked_at = self._clock.monotonic()  # before the query: what it says may be that old
        async with region.database.acquire(LIMIT_S) as db:
            found = await find(db, Vault(region.name, region.keyring), name[1])
        if self._asking.get(name) is not asyncio.current_task():
            return found  # changed meanwhile by this process
        if found is None or found.state == "confirming":
            self._known.pop(name, None)
        else:
            self._known[name] = (asked_at, found)
            self._known.move_to_end(name)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return found

    def _answered(self, name: tuple[str, UUID], task: asyncio.Task[HookEndpoint | None]) -> None:
        if self._asking.get(name) is task:
            del self._asking[name]
        if not task.cancelled():
            task.exception()  # seen: whoever waited got it
