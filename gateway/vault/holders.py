"""Which processes serve, and what their keyrings hold. SQL beside the function that runs it.

A rotation asks: nothing may be sealed under a new version before every process can open it, and no version may be
retired while one may still seal under it. Seen by the control database's clock; a process that ends takes its row
away, one that was killed is not counted after `ALIVE_S`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.database import Db
from gateway.vault.keyring import Keyring

EVERY_S = 5.0
ALIVE_S = 30.0


@dataclass(frozen=True, slots=True)
class Holder:
    """One process that serves."""

    process: UUID
    host: str
    current: int
    versions: Sequence[int]
    seen_at: datetime


TELL = """
WITH swept AS (DELETE FROM control.keyring_holders WHERE seen_at < clock_timestamp() - interval '1 hour' AND process <> $1)
INSERT INTO control.keyring_holders (process, host, current, versions, seen_at)
VALUES ($1, $2, $3, $4, clock_timestamp())
ON CONFLICT (process) DO UPDATE SET current = excluded.current, versions = excluded.versions, seen_at = excluded.seen_at"""


async def tell(db: Db, process: UUID, host: str, keys: Keyring) -> None:
    """Say that this process lives, and what it holds."""
    await db.execute(TELL, process, host, keys.current, list(keys.versions))


async def leave(db: Db, process: UUID) -> None:
    """This process ends."""
    await db.execute("DELETE FROM control.keyring_holders WHERE process = $1", process)


ALIVE = """SELECT process, host, current, versions, seen_at FROM control.keyring_holders
            WHERE seen_at > clock_timestamp() - make_interval(secs => $1) ORDER BY process"""


async def alive(db: Db, within_s: float = ALIVE_S) -> list[Holder]:
    """The processes that serve."""
    return [Holder(**row) for row in await db.fetch(ALIVE, within_s)]
