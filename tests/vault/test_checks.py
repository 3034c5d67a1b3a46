"""A start with the wrong or a missing key fails at once with one clear line, before anything is written."""

from __future__ import annotations

import asyncio

import pytest

from gateway.database import Database
from gateway.errors import SetupError
from gateway.vault.checks import verify_against
from gateway.vault.keyring import Keyring, generate, parse


async def rows(database: Database) -> list[tuple[str, int, bytes]]:
    return [
        tuple(row)
        for row in await database.fetch("SELECT keyring, version, proof FROM control.keyring_checks ORDER BY 1, 2")
    ]


async def test_the_first_start_leaves_proofs_and_the_next_ones_pass(database: Database, keyring: Keyring) -> None:
    """One row for each version and for the hashing key; a second start changes nothing."""
    await verify_against(database, keyring)
    held = await rows(database)
    assert [(place, version) for place, version, _ in held] == [("control", 0), ("control", 1)]
    await verify_against(database, keyring)
    assert await rows(database) == held


async def test_another_keyring_is_refused_and_nothing_is_written(database: Database, keyring: Keyring) -> None:
    """The line names what differs."""
    await verify_against(database, keyring)
    held = await rows(database)
    with pytest.raises(SetupError, match=r"not the keyring that `control` was sealed with \(the hashing key differs\)"):
        await verify_against(database, generate().with_new_version())
    assert await rows(database) == held


async def test_one_wrong_key_is_enough(database: Database, keyring: Keyring) -> None:
    """The same hashing key with another key 1 is not the same keyring."""
    await verify_against(database, keyring)
    mixed = keyring.to_json().split('"keys"')[0] + '"keys"' + generate().to_json().split('"keys"')[1]
    hashing = keyring.to_json().split('"hashing"')[1]
    mixed = mixed.split('"hashing"')[0] + '"hashing"' + hashing
    with pytest.raises(SetupError, match="key version 1 differs"):
        await verify_against(database, parse(mixed, "x"))


async def test_a_keyring_that_lost_a_version_is_refused(database: Database, keyring: Keyring) -> None:
    """What was sealed under it could not be opened."""
    await verify_against(database, keyring.with_new_version())
    with pytest.raises(SetupError, match="lacks key version 2"):
        await verify_against(database, keyring)


async def test_a_new_version_is_noted(database: Database, keyring: Keyring) -> None:
    """Rotation adds a key; the next start takes it up."""
    await verify_against(database, keyring)
    await verify_against(database, keyring.with_new_version())
    assert [version for _, version, _ in await rows(database)] == [0, 1, 2]


async def test_places_are_told_apart(database: Database, keyring: Keyring) -> None:
    """A region may have a keyring of its own, and proofs of one say nothing of another."""
    await verify_against(database, keyring)
    await verify_against(database, generate(), "default")
    with pytest.raises(SetupError, match="`default`"):
        await verify_against(database, keyring, "default")
    proofs = [proof for _, _, proof in await rows(database)]
    assert len(set(proofs)) == len(proofs)


async def test_two_first_starts_with_different_keyrings_cannot_both_win(database: Database) -> None:
    """Of processes that start at once on an empty database, those with the same keyring pass and no others."""
    rings = [generate(), generate()]
    outcomes = await asyncio.gather(*(verify_against(database, rings[n % 2]) for n in range(8)), return_exceptions=True)
    passed = {n % 2 for n, outcome in enumerate(outcomes) if outcome is None}
    assert len(passed) == 1
    assert all(isinstance(outcome, SetupError) for outcome in outcomes if outcome is not None)
