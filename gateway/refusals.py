"""Why deliveries were not taken: the last 1,000 of each integration. Never a body, never a header's value.

Notes are buffered in memory, bounded for each integration, and written once a second: a flood of forgeries costs one
small INSERT a second, and a note is a hint for people that may be lost with the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

from gateway.database import Db

BUFFERED = 200  # for each integration, between two flushes; the newest stay
KEPT = 1000  # for each integration, in the database
MOST_NAMES = 50
LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """One delivery that was not taken."""

    id: int
    integration_id: UUID
    endpoint_id: UUID | None
    at: datetime
    reason: str
    status: int
    header_names: tuple[str, ...]
    skew_s: float | None  # now minus its signed time, seconds, where it signs one
    size: int
    digest: bytes


class Refusals:
    """The buffer. One a process."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, deque[tuple[Any, ...]]] = {}

    def record(
        self,
        *,
        integration: UUID,
        endpoint: UUID | None,
        reason: str,
        status: int,
        header_names: Sequence[str],
        skew_s: float | None,
        size: int,
        digest: bytes,
        at: datetime,
    ) -> None:
        """Note a refusal. Never blocks, never fails for what a stranger sent."""
        names = ",".join(_plain(name) for name in header_names[:MOST_NAMES])
        waiting = self._waiting.get(integration)
        if waiting is None:
            waiting = self._waiting[integration] = deque(maxlen=BUFFERED)
        waiting.append((integration, endpoint, at, reason[:100], status, names, skew_s, size, digest))

    async def flush(self, db: Db) -> int:
        """Write what is buffered and keep the last 1,000 of each integration; how many were written.

        When the database is away the notes wait for the next flush, the oldest giving way.    Raises: Unavailable.
        """
        taken, self._waiting = self._waiting, {}
        if not taken:
            return 0
        rows = list(chain.from_iterable(taken.values()))
        try:
            await db.execute(WRITE, *map(list, zip(*rows, strict=True)))
        except BaseException:
            for integration, newer in self._waiting.items():
                taken.setdefault(integration, deque(maxlen=BUFFERED)).extend(newer)
            self._waiting = taken
            raise
        await db.execute(TRIM, list(taken), KEPT - 1)
        return len(rows)


# Header names come as one text a row: arrays of arrays do not unnest to arrays.
WRITE = """
INSERT INTO gateway.refusals (integration_id, endpoint_id, at, reason, status, header_names, skew_s, size, digest)
SELECT i, e, a, r, s, string_to_array(h, ','), k, z, d
  FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::text[], $5::int[], $6::text[], $7::float8[], $8::bigint[], $9::bytea[])
       AS n(i, e, a, r, s, h, k, z, d) ORDER BY a"""
# Several processes trim the same integration: whoever is there first does it.
TRIM = """
DELETE FROM gateway.refusals WHERE id IN (
  SELECT r.id FROM unnest($1::uuid[]) AS n(integration) JOIN gateway.refusals r ON r.integration_id = n.integration
   WHERE r.id < (SELECT id FROM gateway.refusals WHERE integration_id = n.integration ORDER BY id DESC OFFSET $2 LIMIT 1)
   FOR UPDATE OF r SKIP LOCKED)"""

LATEST = """
SELECT id, integration_id, endpoint_id, at, reason, status, header_names, skew_s, size, digest FROM gateway.refusals
 WHERE ($1::uuid IS NULL OR integration_id = $1) AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"""


async def latest(
    db: Db, *, integration_id: UUID | None = None, before: int | None = None, limit: int = 50
) -> list[Refusal]:
    """Refusals, newest first, older than the one numbered `before`."""
    rows = await db.fetch(LATEST, integration_id, before, limit)
    return [Refusal(**{**dict(row), "header_names": tuple(row["header_names"])}) for row in rows]


def _plain(name: str) -> str:
    """A header's name with nothing in it that a database or a terminal would mind."""
    return "".join(c if c.isascii() and c.isprintable() and c != "," else "_" for c in name[:LONGEST_NAME])
