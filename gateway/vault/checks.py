"""Is this the keyring that this deployment was sealed with? Asked at each start, before anything is written."""

from __future__ import annotations

import structlog

from gateway.database import Database, Db
from gateway.errors import SetupError
from gateway.vault.backend import KeyBackend
from gateway.vault.cipher import SealBroken
from gateway.vault.data_keys import aad_of
from gateway.vault.keyring import Keyring

log = structlog.get_logger(__name__)

READ = "SELECT version, proof, retired_at IS NOT NULL AS retired FROM control.keyring_checks WHERE keyring = $1 ORDER BY version"
ADD = """INSERT INTO control.keyring_checks (keyring, version, proof)
         SELECT $1, version, proof FROM unnest($2::integer[], $3::bytea[]) AS new (version, proof)
         ORDER BY version ON CONFLICT DO NOTHING"""
RETIRE = """UPDATE control.keyring_checks SET retired_at = clock_timestamp()
             WHERE keyring = ANY ($1::text[]) AND version = $2 AND retired_at IS NULL"""
# One key under the oldest version and one under the newest: what lies between was current between them.
SAMPLES = """(SELECT tenant_id, version, wrapped FROM gateway.data_keys ORDER BY wrapped_under, tenant_id, version LIMIT 1)
             UNION ALL
             (SELECT tenant_id, version, wrapped FROM gateway.data_keys ORDER BY wrapped_under DESC, tenant_id DESC, version DESC LIMIT 1)"""


async def compare(control: Db, keyring: Keyring, place: str = "control") -> None:
    """`verify_against` without noting anything.    Raises: SetupError."""
    await _compare(control, keyring.proofs(place), place)


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


async def verify_region(region: Db, name: str, backend: KeyBackend) -> None:
    """Does the region's key open the region's data keys?

    Raises: SetupError, one line: it is another one; Unavailable: the database is away, or the key backend.
    """
    rows = await region.fetch(SAMPLES)
    if not rows:
        return
    try:
        await backend.unwrap([(bytes(row["wrapped"]), aad_of(name, row["tenant_id"], row["version"])) for row in rows])
    except SealBroken:
        raise SetupError(
            f"the key of region `{name}` does not open the data keys of its tenants: restore the right one"
        ) from None


async def sealed_before(control: Db) -> bool:
    """Whether this deployment has had a keyring: then a new one must not be made up for it."""
    if await control.fetchval("SELECT to_regclass('control.keyring_checks') IS NULL"):
        return False
    return bool(await control.fetchval("SELECT EXISTS (SELECT FROM control.keyring_checks)"))


async def retire(control: Db, places: list[str], version: int) -> None:
    """From now on a keyring may lack this version. One that holds it must still hold the same."""
    await control.execute(RETIRE, places, version)


async def _compare(tx: Db, held: dict[int, bytes], place: str) -> set[int]:
    rows = await tx.fetch(READ, place)
    for row in rows:
        version = row["version"]
        if version not in held:
            if row["retired"]:
                continue
            raise SetupError(
                f"the keyring lacks key version {version}, under which secrets of `{place}` were sealed: restore it"
            )
        if held[version] != bytes(row["proof"]):
            which = f"key version {version}" if version else "the hashing key"
            raise SetupError(
                f"this is not the keyring that `{place}` was sealed with ({which} differs): restore the right one"
            )
    return {row["version"] for row in rows}
