"""Open refreshes: lease and intent of each, one row a grant. SQL beside the function that runs it.

A lease is judged by the database's clock, and belongs to a fence: whoever's fence is no longer the row's has lost it, however
long its own clock says that it has it. What the row says of a dead holder, `intent.py` reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.connections.grants import Name
from gateway.database import Db
from gateway.processes import SILENT_S

LEASE_S = (
    16  # a call's deadline, what comes before it, and a margin; shorter than a reader waits: he outlives a dead winner
)
CHANNEL = "posthouse_refreshes"  # the payload is the connection

Phase = Literal["claimed", "sent", "lost", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """A refresh that is open, as it was when somebody looked. Seconds by the region's clock."""

    generation: int
    token_version: int
    phase: Phase
    holder: UUID
    fence: int
    lease_left_s: float
    holder_silent_s: float | None  # since it was last heard of; None: it is not known (any more)
    unanswered_s: float | None  # since an answer went missing; None: none has
    spender_silent_s: float | None  # of whose it was: it may be in that one's spool
    again_in_s: float  # below 0: nothing stands against it
    tries: int
    last_error: str | None

    @property
    def seen(self) -> tuple[int, int]:
        """The token set that it spends."""
        return self.generation, self.token_version

    @property
    def is_under_way(self) -> bool:
        return self.phase in ("claimed", "sent") and self.lease_left_s > 0

    @property
    def holder_lives(self) -> bool:
        return self.holder_silent_s is not None and self.holder_silent_s < SILENT_S


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim that was given to us."""

    name: Name
    seen: tuple[int, int]
    fence: int
    is_again: bool  # an answer to an earlier call about this very token set went missing
    at: datetime  # by the region's clock


LOOK = """
SELECT r.generation, r.token_version, r.phase, r.holder, r.fence, r.tries, r.last_error,
       extract(epoch FROM r.lease_until - clock.now)::float8 AS lease_left_s,
       extract(epoch FROM clock.now - h.seen_at)::float8 AS holder_silent_s,
       extract(epoch FROM clock.now - r.unanswered_since)::float8 AS unanswered_s,
       extract(epoch FROM clock.now - s.seen_at)::float8 AS spender_silent_s,
       CASE WHEN r.again_at = '-infinity' THEN -1 ELSE extract(epoch FROM r.again_at - clock.now)::float8 END AS again_in_s
  FROM gateway.refreshes r CROSS JOIN (SELECT gateway.now() AS now) AS clock
  LEFT JOIN gateway.processes h ON h.id = r.holder LEFT JOIN gateway.processes s ON s.id = r.spender
 WHERE r.connection_id = $1 AND r.access_profile = $2"""


async def look(db: Db, name: Name) -> Open | None:
    """The open refresh of a grant."""
    row = await db.fetchrow(LOOK, *name)
    return None if row is None else Open(**dict(row))


# In the place of what was seen there, and of nothing else: of two that saw the same, one gets it. About another token set it
# begins anew; about the same one, what went missing stays on record.
CLAIM = """
INSERT INTO gateway.refreshes AS r (connection_id, access_profile, generation, token_version, phase, holder, fence, lease_until)
VALUES ($1, $2, $3, $4, 'claimed', $5, nextval('gateway.fences'), gateway.now() + make_interval(secs => $6))
    ON CONFLICT (connection_id, access_profile) DO UPDATE
   SET (generation, token_version, phase, holder, fence, lease_until, unanswered_since, spender, tries, again_at, waited)
     = (SELECT excluded.generation, excluded.token_version, 'claimed', excluded.holder, excluded.fence, excluded.lease_until,
               CASE WHEN same THEN CASE WHEN r.phase = 'sent' THEN coalesce(r.unanswered_since, r.lease_until - make_interval(secs => $6)) ELSE r.unanswered_since END END,
               CASE WHEN same THEN CASE WHEN r.phase = 'sent' THEN r.holder ELSE r.spender END END,
               CASE WHEN same THEN r.tries ELSE 0 END, CASE WHEN same THEN r.again_at ELSE '-infinity' END, false
          FROM (SELECT (r.generation, r.token_version) = (excluded.generation, excluded.token_version) AS same) AS s)
 WHERE r.fence = $7
RETURNING fence, unanswered_since IS NOT NULL AS is_again, gateway.now() AS at"""


async def claim(db: Db, name: Name, seen: tuple[int, int], holder: UUID, was: Open | None) -> Lease | None:
    """The lease, if the grant's row is still as it `was` seen; None: somebody else was quicker."""
    row = await db.fetchrow(CLAIM, *name, *seen, holder, LEASE_S, -1 if was is None else was.fence)
    return None if row is None else Lease(name, seen, row["fence"], row["is_again"], row["at"])


SENT = """UPDATE gateway.refreshes SET phase = 'sent'
           WHERE connection_id = $1 AND access_profile = $2 AND fence = $3 AND lease_until > gateway.now() RETURNING true"""


async def sent(db: Db, lease: Lease) -> bool:
    """Write down that a byte may leave from now on; False: the lease is lost, and nothing may."""
    return bool(await db.fetchval(SENT, *lease.name, lease.fence))


FAILED = """UPDATE gateway.refreshes
               SET phase = $4, lease_until = gateway.now(), tries = tries + 1, last_error = $5,
                   again_at = gateway.now() + make_interval(secs => $6),
                   unanswered_since = CASE WHEN $4 = 'lost' THEN coalesce(unanswered_since, gateway.now() - make_interval(secs => $7)) ELSE unanswered_since END,
                   spender = CASE WHEN $4 = 'lost' THEN holder ELSE spender END
             WHERE connection_id = $1 AND access_profile = $2 AND fence = $3 RETURNING waited"""


async def failed(
    tx: Db, lease: Lease, phase: Literal["lost", "failed"], error: str, again_in_s: float, asked_s: float = 0.0
) -> None:
    """It ended without tokens. `asked_s`: since it was sent.  Others are told."""
    if await tx.fetchval(FAILED, *lease.name, lease.fence, phase, error, again_in_s, asked_s):
        await _tell(tx, lease.name)


# Whoever writes a token set ends whatever is open about its predecessor: a holder that has not sent yet finds its row gone, and
# does not. One that has is waited for: what it brings is the newer one. What is open about a later token set is left alone by
# whoever is late: without that intent the next one would send the later refresh token a second time.
END = """DELETE FROM gateway.refreshes WHERE connection_id = $1 AND access_profile = $2
            AND (fence = $3 OR (generation, token_version) < ($4, $5) OR (generation, token_version) = ($4, $5) AND phase <> 'sent')
         RETURNING waited, fence, unanswered_since"""
OTHER = """SELECT true FROM gateway.refreshes
            WHERE connection_id = $1 AND access_profile = $2 AND (generation, token_version) = ($3, $4)"""


class NotNow(Exception):
    """Another holder's call about this very token set is out: what it brings is newer, and whether it comes is not known yet."""


async def ended(tx: Db, name: Name, seen: tuple[int, int], fence: int | None) -> bool:
    """Nothing is open any more about the token set that was `seen`, in this transaction. Others are told.

    `fence`: of our own lease; True: nobody else has had one since, nor is an older answer missing.    Raises: NotNow."""
    row = await tx.fetchrow(END, *name, -1 if fence is None else fence, *seen)
    if row is None:
        if await tx.fetchval(OTHER, *name, *seen):
            raise NotNow
        return False
    if row["waited"]:
        await _tell(tx, name)
    return bool(row["fence"] == fence and row["unanswered_since"] is None)


RELEASE = """DELETE FROM gateway.refreshes WHERE connection_id = $1 AND access_profile = $2 AND fence = $3
                AND unanswered_since IS NULL RETURNING waited"""
# … with an answer missing it is as before the claim.
GIVE_BACK = """UPDATE gateway.refreshes SET phase = 'lost', lease_until = gateway.now()
                WHERE connection_id = $1 AND access_profile = $2 AND fence = $3 RETURNING waited"""


async def released(db: Db, lease: Lease) -> None:
    """Nothing was sent under this lease. Others are told."""
    sql = GIVE_BACK if lease.is_again else RELEASE
    if await db.fetchval(sql, *lease.name, lease.fence):
        await _tell(db, lease.name)


WAIT = "UPDATE gateway.refreshes SET waited = true WHERE connection_id = $1 AND access_profile = $2 AND fence = $3"


async def wait(db: Db, name: Name, fence: int) -> None:
    """Have the holder tell us of the end."""
    await db.execute(WAIT, *name, fence)


async def _tell(db: Db, name: Name) -> None:
    await db.execute("SELECT pg_notify($1, $2)", CHANNEL, name[0].hex)
