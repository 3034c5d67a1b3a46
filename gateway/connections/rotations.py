"""The record of token sets that came: when, how, and whether with another refresh token than before.

A refresh token stands in it as a keyed hash, the same in every region and for as long as the deployment lives: so one that
was superseded is known when it comes back. The newest `KEPT` of a grant are kept, and for `POSTHOUSE_HISTORY_DAYS` at most.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.database import Db
from gateway.vault.keyring import Keyring

Source = Literal["consent", "import", "refresh", "spool"]
# refused_current: the provider refuses one that only we should have; superseded_import: one that we had replaced was
# brought by an import; provider_reported: the provider says so itself.
Reuse = Literal["refused_current", "superseded_import", "provider_reported"]

KEPT = 20


def fingerprint(keyring: Keyring, integration: UUID, refresh_token: str | None) -> UUID | None:
    """What is kept of a refresh token: a keyed hash under the *control* keyring."""
    if refresh_token is None:
        return None
    return keyring.mac_id("refresh_token", integration.bytes + refresh_token.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """A token set that is being stored."""

    connection: UUID
    access_profile: str
    generation: int
    token_version: int
    source: Source
    fingerprint: UUID | None  # None: it has no refresh token
    brought: bool = True  # its refresh token came with it; False: the former one goes on
    holder: UUID | None = None  # the process that got it


# What it was before is asked of the row before; where there is none, whoever stores it knows no better than `brought`.
RECORD = """
WITH n AS (SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::text[], $6::uuid[], $7::bool[], $8::uuid[])
             AS n(connection_id, access_profile, token_version, generation, source, fingerprint, brought, holder)),
trimmed AS (
  DELETE FROM gateway.rotations r USING n
   WHERE (r.connection_id, r.access_profile) = (n.connection_id, n.access_profile) AND r.token_version <= n.token_version - $9)
INSERT INTO gateway.rotations (connection_id, access_profile, token_version, generation, at, source, fingerprint, rotated, holder, epoch)
SELECT n.connection_id, n.access_profile, n.token_version, n.generation, clock.now, n.source, n.fingerprint,
       n.fingerprint IS NOT NULL AND CASE WHEN was.token_version IS NULL THEN n.brought
                                          ELSE was.fingerprint IS DISTINCT FROM n.fingerprint END, n.holder, e.epoch
  FROM n CROSS JOIN (SELECT gateway.now() AS now) AS clock CROSS JOIN gateway.epoch e
  LEFT JOIN LATERAL (
    SELECT r.token_version, r.fingerprint FROM gateway.rotations r
     WHERE (r.connection_id, r.access_profile) = (n.connection_id, n.access_profile) AND r.token_version < n.token_version
     ORDER BY r.token_version DESC LIMIT 1) AS was ON true
ON CONFLICT DO NOTHING"""


async def record(tx: Db, came: Sequence[Came]) -> None:
    """Keep a row for each, in the transaction that stores the token sets."""
    if came:
        columns = [
            [getattr(one, name) for one in came]
            for name in ("connection", "access_profile", "token_version", "generation", "source", "fingerprint", "brought", "holder")
        ]  # fmt: skip
        await tx.execute(RECORD, *columns, KEPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One of them, as it is shown. No fingerprint."""

    access_profile: str
    token_version: int
    generation: int
    at: datetime
    source: Source
    rotated: bool  # with another refresh token than before
    reuse: Reuse | None  # it showed that somebody else has this refresh token …
    reuse_at: datetime | None  # … and when


PAGE = """SELECT access_profile, token_version, generation, at, source, rotated, reuse, reuse_at FROM gateway.rotations
           WHERE connection_id = $1 AND ($2::timestamptz IS NULL OR (at, access_profile, token_version) < ($2, $3, $4))
           ORDER BY at DESC, access_profile DESC, token_version DESC LIMIT $5"""

Position = tuple[datetime, str, int]  # of a row: at, access profile, token version


async def page(db: Db, connection: UUID, *, before: Position | None, limit: int) -> list[Rotation]:
    """Newest first."""
    at, profile, version = before or (None, None, None)
    return [Rotation(**dict(row)) for row in await db.fetch(PAGE, connection, at, profile, version, limit)]


# The time is asked for once: a volatile function in a condition keeps the index from being used.
FORGET = "DELETE FROM gateway.rotations WHERE at < (SELECT gateway.now()) - make_interval(days => $1)"


async def forget(db: Db, days: int) -> None:
    """Drop what is older."""
    await db.execute(FORGET, days)


@dataclass(frozen=True, slots=True)
class Superseded:
    """A refresh token that was replaced here, and where."""

    fingerprint: UUID
    connection: UUID
    access_profile: str
    token_version: int


# The newest row that has it; and behind that another one came for the same grant.
SUPERSEDED = """
SELECT DISTINCT ON (r.fingerprint) r.fingerprint, r.connection_id AS connection, r.access_profile, r.token_version
  FROM gateway.rotations r
 WHERE r.fingerprint = ANY ($1::uuid[])
   AND NOT EXISTS (SELECT FROM gateway.rotations s WHERE s.fingerprint = r.fingerprint AND s.at > r.at)
   AND EXISTS (SELECT FROM gateway.rotations l
                WHERE (l.connection_id, l.access_profile) = (r.connection_id, r.access_profile)
                  AND l.token_version > r.token_version AND l.fingerprint IS NOT NULL)
 ORDER BY r.fingerprint, r.at DESC"""


async def superseded(db: Db, fingerprints: Collection[UUID]) -> list[Superseded]:
    """Which of these refresh tokens had others in their place later."""
    if not fingerprints:
        return []
    return [Superseded(**dict(row)) for row in await db.fetch(SUPERSEDED, list(fingerprints))]
