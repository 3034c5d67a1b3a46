"""Idempotency-Key: the same POST sent twice does its work once, for 24 hours.

The first request leaves a row and a lock that ends by itself; its answer is stored sealed, since it may show a key or
a secret. The same request later gets that answer again; while the first still runs, 409; another request under the
same key, 422. Requests that failed are not remembered: nothing was done, and trying again is the point.

A process can die between doing the work and storing the answer. Then the lock runs out, the next request does the
work again, and *makes the same thing again*: ids of what a call makes are derived from the row (`Ticket.new_id`), so
the stores see that it is there already. No transaction over two databases is needed for that.

Times are the control database's, never a process's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import structlog

from gateway.database import Database, Db
from gateway.errors import IdempotencyInFlight, IdempotencyMismatch
from gateway.ids import uuid7
from gateway.vault import direct
from gateway.vault.direct import Direct
from gateway.vault.keyring import Aad, Keyring, SealBroken

log = structlog.get_logger(__name__)

KEPT_S = 24 * 3600
LOCKED_S = 60  # longer than any handler may take
RETRY_AFTER_S = 1

# Each request removes some of those that have ended, and adds one at most: so the table stays small by itself.
BEGIN = """
WITH swept AS (
  DELETE FROM control.idempotency_keys WHERE (caller, key_hash) IN (
    SELECT caller, key_hash FROM control.idempotency_keys
     WHERE expires_at <= clock_timestamp() AND (caller, key_hash) <> ($1, $2)
     ORDER BY expires_at LIMIT 20 FOR UPDATE SKIP LOCKED))
INSERT INTO control.idempotency_keys AS k (caller, key_hash, request_hash, locked_until, expires_at)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4), clock_timestamp() + make_interval(secs => $5))
ON CONFLICT (caller, key_hash) DO UPDATE
   SET locked_until = excluded.locked_until,
       request_hash = excluded.request_hash,
       expires_at = CASE WHEN k.expires_at <= clock_timestamp() THEN excluded.expires_at ELSE k.expires_at END,
       status = NULL, sealed_answer = NULL
 WHERE k.expires_at <= clock_timestamp()
    OR k.status IS NULL AND k.locked_until <= clock_timestamp() AND k.request_hash = excluded.request_hash
RETURNING locked_until, expires_at"""
FOUND = (
    """SELECT request_hash, status, sealed_answer FROM control.idempotency_keys WHERE caller = $1 AND key_hash = $2"""
)
FINISH = """UPDATE control.idempotency_keys SET status = $4, sealed_answer = $5
             WHERE caller = $1 AND key_hash = $2 AND locked_until = $3"""
RELEASE = """UPDATE control.idempotency_keys SET locked_until = '-infinity'
              WHERE caller = $1 AND key_hash = $2 AND locked_until = $3 AND status IS NULL"""


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer as it was given."""

    status: int
    body: bytes


@dataclass(slots=True)
class Ticket:
    """The right to do the work of one key now, or the answer to an earlier request."""

    keyring: Keyring = field(repr=False)
    caller: UUID
    key_hash: bytes
    locked_until: datetime | None = None  # ours to finish; also the fence: whoever took over has another one
    begun_at: datetime | None = None
    answer: Stored | None = field(default=None, repr=False)
    _made: int = 0

    def new_id(self) -> UUID:
        """The next id of what this call makes: the same ones in the same order at every attempt."""
        assert self.begun_at is not None
        self._made += 1
        chance = self.keyring.mac("idempotency.id", self.caller.bytes + self.key_hash + self._made.to_bytes(4, "big"))
        return uuid7(self.begun_at, lambda length: chance[:length])

    @property
    def aad(self) -> Aad:
        return answer_aad(self.caller, self.key_hash)


def answer_aad(caller: UUID, key_hash: bytes) -> Aad:
    """What a stored answer is bound to."""
    return Aad(place="control", owner=caller, purpose="idempotent_answer", row=key_hash.hex())


def request_hash(keyring: Keyring, method: str, path: str, query: bytes, body: bytes) -> bytes:
    """What makes a request the same one. Keyed: a body may hold a secret that could be guessed."""
    parts = (method.encode(), path.encode(), query, body)
    return keyring.mac("idempotency.request", b"".join(len(part).to_bytes(8, "big") + part for part in parts))


async def begin(db: Db, keyring: Keyring, caller: UUID, key: str, request: bytes) -> Ticket:
    """The lock, or the stored answer.    Raises: IdempotencyInFlight, IdempotencyMismatch."""
    ticket = Ticket(keyring, caller, keyring.mac("idempotency.key", caller.bytes + key.encode()))
    for _ in range(2):  # a second time only where the row was swept between the two statements
        row = await db.fetchrow(BEGIN, caller, ticket.key_hash, request, float(LOCKED_S), float(KEPT_S))
        if row is not None:
            ticket.locked_until = row["locked_until"]
            ticket.begun_at = row["expires_at"] - timedelta(seconds=KEPT_S)
            return ticket
        found = await db.fetchrow(FOUND, caller, ticket.key_hash)
        if found is not None:
            ticket.answer = _answer(ticket, found, request)
            return ticket
    raise IdempotencyInFlight(retry_after_s=RETRY_AFTER_S)


async def finish(db: Database, ticket: Ticket, status: int, body: bytes) -> None:
    """Remember the answer. A failure to do so is not the caller's: a retry makes the same thing again."""
    sealed = ticket.keyring.seal(orjson.dumps({"status": status, "body": body.decode()}), ticket.aad)
    try:
        await db.execute(FINISH, ticket.caller, ticket.key_hash, ticket.locked_until, status, sealed)
    except Exception as error:
        log.warning("idempotency.not_stored", error=error)


async def release(db: Database, ticket: Ticket) -> None:
    """Let the next attempt run at once: this one failed."""
    try:
        await db.execute(RELEASE, ticket.caller, ticket.key_hash, ticket.locked_until)
    except Exception as error:
        log.warning("idempotency.not_released", error=error)  # the lock runs out by itself


def _answer(ticket: Ticket, found: Any, request: bytes) -> Stored:
    if bytes(found["request_hash"]) != request:
        raise IdempotencyMismatch("Use a new Idempotency-Key for a new request.")
    if found["status"] is None:
        raise IdempotencyInFlight("Try again when it has ended.", retry_after_s=RETRY_AFTER_S)
    try:
        kept = orjson.loads(ticket.keyring.open(bytes(found["sealed_answer"]), ticket.aad))
    except SealBroken:  # sealed under a key that is gone: it cannot be shown again, and must not be done again
        raise IdempotencyMismatch("The answer to this request can no longer be read.") from None
    return Stored(int(kept["status"]), kept["body"].encode())


SEALED = Direct(
    name="stored answers (kept for a day)",
    line="control",
    key=("caller", "key_hash"),
    start=(UUID(int=0), b""),
    under=f"""SELECT count(*) FROM control.idempotency_keys
               WHERE substring(sealed_answer {direct.PREFIX}) = $1 AND expires_at > clock_timestamp()""",  # noqa: S608 - constants
    read=f"""SELECT caller, key_hash, ARRAY[sealed_answer] AS sealed FROM control.idempotency_keys
              WHERE (caller, key_hash) > ($3, $4) AND substring(sealed_answer {direct.PREFIX}) <> $1
                AND expires_at > clock_timestamp() ORDER BY caller, key_hash LIMIT $2""",  # noqa: S608 - the same
    write="""UPDATE control.idempotency_keys SET sealed_answer = ($1::bytea[])[1]
              WHERE caller = $3 AND key_hash = $4 AND sealed_answer = ($2::bytea[])[1]""",
    aad=lambda _, row: answer_aad(row["caller"], bytes(row["key_hash"])),
)
