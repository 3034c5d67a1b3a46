"""What is sealed directly under a keyring, without a data key: integration and endpoint secrets, stored answers.

Each such table has one `Direct` in its store, with the SQL that finds what is under which key version (a blob begins
with it) and puts a newly sealed value in the place of an old one. A rotation seals them anew; a version is retired
only when none of them is under it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.database import Database, Db
from gateway.vault import cipher
from gateway.vault.cipher import Aad, SealBroken
from gateway.vault.keyring import Keyring

BATCH = 500
PREFIX = f"FROM 1 FOR {cipher.HEADER.size}"  # substring(sealed FROM 1 FOR 5): format and key version


@dataclass(frozen=True, slots=True)
class Direct:
    """One table. A row's values are a bytea[]; a table with one value a row makes an array of it."""

    name: str  # for people, in the plural
    line: Literal["control", "region"]
    key: tuple[str, ...]  # columns of the primary key, as `read` names them
    under: str  # how many rows hold a value that begins with $1
    read: str = (
        ""  # at most $2 rows with a value that does not begin with $1, behind the key $3, …: key, `sealed` bytea[]
    )
    write: str = ""  # values $1 where they still are $2, of the row with the key $3, …
    start: tuple[Any, ...] = ()  # a key before every other
    aad: Callable[[str, Any], Aad] | None = None  # of a row in a place; None: it ends by itself, and is not sealed anew


async def under(db: Db, table: Direct, version: int) -> int:
    """How many of its rows are under this version."""
    return int(await db.fetchval(table.under, cipher.head(version)))


@dataclass(frozen=True, slots=True)
class Resealed:
    """What a walk through a table did."""

    moved: int = 0
    broken: int = 0


async def reseal(database: Database, table: Direct, keys: Keyring, place: str, *, batch: int = BATCH) -> Resealed:
    """Seal everything of this table under the current version.    Raises: Unavailable.

    Killed half-way it is simply run again: what is done is not found any more.
    """
    moved = broken = 0
    if table.aad is None:
        return Resealed()
    behind: Sequence[Any] = table.start
    while True:
        async with database.transaction() as tx:
            rows = await tx.fetch(table.read, cipher.head(keys.current), batch, *behind)
            if not rows:
                return Resealed(moved, broken)
            for row in rows:
                try:
                    aad = table.aad(place, row)
                    values = [keys.seal(keys.open(bytes(value), aad), aad) for value in row["sealed"]]
                except SealBroken:
                    broken += 1  # left as it is, for whoever can mend it; its version cannot be retired before
                    continue
                moved += int((await tx.execute(table.write, values, row["sealed"], *_key(table, row))).split()[-1])
        behind = _key(table, rows[-1])


def _key(table: Direct, row: Any) -> tuple[Any, ...]:
    return tuple(row[column] for column in table.key)


# The PKCE verifier of a consent under way: it lives for minutes, so it is waited for.
VERIFIERS = Direct(
    name="connect sessions under way",
    line="region",
    key=("id",),
    under=f"""SELECT count(*) FROM gateway.connect_sessions
               WHERE substring(sealed_verifier {PREFIX}) = $1 AND expires_at > gateway.now()""",  # noqa: S608 - constants
)
