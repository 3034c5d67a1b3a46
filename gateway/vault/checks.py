"""Is this the keyring that this deployment was sealed with? Asked at each start, before anything is written."""

from __future__ import annotations

from gateway.database import Database, Db
from gateway.errors import SetupError
from gateway.vault.keyring import Keyring

READ = "SELECT version, proof FROM control.keyring_checks WHERE keyring = $1 ORDER BY version"
ADD = """INSERT INTO control.keyring_checks (keyring, version, proof)
         SELECT $1, version, proof FROM unnest($2::integer[], $3::bytea[]) AS new (version, proof)
         ORDER BY version ON CONFLICT DO NOTHING"""


async def verify_against(control: Database, keyring: Keyring, place: str = "control") -> None:
    """Compare the keyring with the proofs of `place` ("control", or a region); the first start ever writes them.

    Raises: SetupError, one line: a key differs from the one that was used, or is missing. Nothing is written then.
    """
    async with control.transaction() as tx:
        held = keyring.proofs(place)
        known = await _compare(tx, held, place)
        if new := {version: proof for version, proof in held.items() if version not in known}:
            await tx.execute(ADD, place, list(new), list(new.values()))
            await _compare(tx, held, place)  # another process may have been first, with another keyring


async def _compare(tx: Db, held: dict[int, bytes], place: str) -> set[int]:
    known = {row["version"]: bytes(row["proof"]) for row in await tx.fetch(READ, place)}
    for version, proof in known.items():
        if version not in held:
            raise SetupError(
                f"the keyring lacks key version {version}, under which secrets of `{place}` were sealed: restore it"
            )
        if held[version] != proof:
            which = f"key version {version}" if version else "the hashing key"
            raise SetupError(
                f"this is not the keyring that `{place}` was sealed with ({which} differs): restore the right one"
            )
    return set(known)
