"""A start with the wrong or a missing key fails at once with one clear line, before anything is written."""

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import SecretStr

from gateway.database import Database
from gateway.errors import SetupError, Unavailable
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault import checks
from gateway.vault.checks import verify_against
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Keyring, generate, parse
from tests.clock import FakeClock
from tests.vault.conftest import Backend


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


async def test_a_retired_version_may_be_absent_but_never_another(database: Database, keyring: Keyring) -> None:
    """Whoever still holds it passes too, with the same key only."""
    grown = keyring.with_new_version()
    await verify_against(database, grown)
    with pytest.raises(SetupError, match="lacks key version 1"):
        await verify_against(database, grown.without(1))
    await checks.retire(database, ["control"], 1)
    await verify_against(database, grown.without(1))
    await verify_against(database, grown)
    other = json.loads(grown.to_json())
    other["keys"]["1"] = json.loads(generate().to_json())["keys"]["1"]
    with pytest.raises(SetupError, match="key version 1 differs"):
        await verify_against(database, parse(json.dumps(other), "x"))


async def test_a_start_with_another_key_of_the_region_writes_nothing(
    database: Database, settings: Settings, keyring: Keyring, keys: DataKeys, clock: FakeClock
) -> None:
    """A control database that knows no proof (a new one, say) beside a region with data keys: those tell."""
    await keys.for_sealing("acme")
    wrong = settings.model_copy(update={"keyring": SecretStr(generate().to_json())})
    with pytest.raises(SetupError, match="does not open the data keys") as caught:
        await Gateway.open(wrong, clock)
    assert "\n" not in str(caught.value)
    assert await rows(database) == []
    right = await Gateway.open(settings, clock)
    await right.close()
    assert {(place, version) for place, version, _ in await rows(database)} == {
        (place, version) for place in ("control", "default") for version in (0, 1)
    }


async def test_a_key_backend_that_is_away_is_no_wrong_key(database: Database, keys: DataKeys, backend: Backend) -> None:
    """It cannot be asked; the start goes on (tests/vault/openbao/test_outage.py)."""
    await keys.for_sealing("acme")
    backend.away = True
    with pytest.raises(Unavailable):
        await checks.verify_region(database, "default", backend)


async def test_two_first_starts_with_different_keyrings_cannot_both_win(database: Database) -> None:
    """Of processes that start at once on an empty database, those with the same keyring pass and no others."""
    rings = [generate(), generate()]
    outcomes = await asyncio.gather(*(verify_against(database, rings[n % 2]) for n in range(8)), return_exceptions=True)
    passed = {n % 2 for n, outcome in enumerate(outcomes) if outcome is None}
    assert len(passed) == 1
    assert all(isinstance(outcome, SetupError) for outcome in outcomes if outcome is not None)
