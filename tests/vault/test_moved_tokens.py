"""A sealed token opens in its own row and nowhere else: not in theory, and not when rows are changed by SQL."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import permutations
from typing import Any, get_args
from uuid import UUID

import asyncpg
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from gateway.database import Database
from gateway.vault.cipher import SealBroken
from gateway.vault.data_keys import DataKey, DataKeys
from gateway.vault.tokens import Place, Purpose, TokenVault, closing_place, opened_text, sealed_text, staged_place
from tests.clock import FakeClock
from tests.vault.conftest import REGION, Backend
from tests.vault.rows import NOW, place_of

KEY = DataKey("acme", 1, AESGCM(b"k" * 32))
TEXT = st.text(max_size=5)
FIELD: dict[str, st.SearchStrategy[Any]] = {
    "region": TEXT, "tenant": TEXT, "connection": st.uuids(), "profile": TEXT,
    "generation": st.integers(0, 12), "version": st.integers(0, 12),
}  # fmt: skip
PLACES = st.builds(Place, **FIELD)
PURPOSES = st.sampled_from(get_args(Purpose))


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Place, Place]:
    """Two places that differ in one part, or in some, or in none."""
    here = draw(PLACES)
    moved = draw(st.sets(st.sampled_from(sorted(FIELD))))
    return here, replace(here, **{name: draw(FIELD[name]) for name in moved})


@given(neighbours(), PURPOSES, PURPOSES, st.text(max_size=60))
def test_ciphertext_moved_to_another_place_does_not_open(
    places: tuple[Place, Place], sealed_for: Purpose, opened_as: Purpose, token: str
) -> None:
    """Not for another connection, tenant, access profile, generation, version, region or purpose; even under one key."""
    here, there = places
    sealed = sealed_text(KEY, token, here.aad(sealed_for))
    assert opened_text(KEY, sealed, here.aad(sealed_for)) == token
    if (here, sealed_for) != (there, opened_as):
        with pytest.raises(SealBroken):
            opened_text(KEY, sealed, there.aad(opened_as))


def test_every_part_of_a_place_is_drawn() -> None:
    """A part that is added to `Place` must be moved here too."""
    assert {field.name for field in fields(Place)} == set(FIELD)


@given(PLACES, PURPOSES, st.text(max_size=60), st.data())
def test_broken_ciphertext_is_one_typed_error(place: Place, purpose: Purpose, token: str, data: st.DataObject) -> None:
    """Truncated anywhere, a bit flipped anywhere, empty, under another version's name."""
    sealed = sealed_text(KEY, token, place.aad(purpose))
    flipped = bytearray(sealed)
    flipped[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for broken in (b"", sealed[: data.draw(st.integers(0, len(sealed) - 1))], bytes(flipped), sealed + b"\0"):
        with pytest.raises(SealBroken):
            opened_text(KEY, broken, place.aad(purpose))
    with pytest.raises(SealBroken):
        opened_text(DataKey("acme", 2, KEY.cipher), sealed, place.aad(purpose))


@given(st.uuids(), TEXT, TEXT)
def test_staged_and_closing_tokens_are_bound_to_their_rows(row: UUID, tenant: str, profile: str) -> None:
    """One that is staged opens neither as one that is being closed nor as a grant's."""
    sealed = sealed_text(KEY, "token", staged_place("r", tenant, row, profile).aad("staged"))
    for aad in (
        closing_place("r", tenant, row, profile).aad("closing"),
        Place("r", tenant, row, profile, 1, 1).aad("access_token"),
    ):
        with pytest.raises(SealBroken):
            opened_text(KEY, sealed, aad)


# One row differs from the next in one thing: profile, connection, generation, token version, tenant.
ROWS = [
    ("acme", 1, "reader", 1, 1), ("acme", 1, "writer", 1, 1), ("acme", 2, "reader", 1, 1), ("acme", 3, "reader", 2, 1),
    ("acme", 4, "reader", 1, 2), ("globex", 5, "reader", 1, 1),
]  # fmt: skip


async def rows(database: Database) -> list[Any]:
    return list(await database.fetch("SELECT * FROM gateway.tokens ORDER BY connection_id, access_profile"))


async def store(database: Database, vault: TokenVault) -> None:
    for tenant, number, profile, generation, version in ROWS:
        connection = UUID(int=number)
        sealed = await vault.seal(
            Place(REGION, tenant, connection, profile, generation, version), f"a{number}{profile}", "r"
        )
        async with database.transaction() as tx:
            await tx.execute(
                """INSERT INTO gateway.connections (id, tenant_id, integration_id, created_at, updated_at)
                   VALUES ($1, $2, $1, $3, $3) ON CONFLICT DO NOTHING""", connection, tenant, NOW,
            )  # fmt: skip
            await tx.execute(
                """INSERT INTO gateway.grants (connection_id, access_profile, state, generation, token_version, granted_at)
                   VALUES ($1, $2, 'active', $3, $4, $5)""", connection, profile, generation, version, NOW,
            )  # fmt: skip
            await tx.execute(
                """INSERT INTO gateway.tokens (connection_id, access_profile, tenant_id, generation, token_version, data_key_version,
                     sealed_access, sealed_refresh, has_refresh, issued_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, true, $9)""",
                connection, profile, tenant, generation, version, sealed.data_key_version, sealed.access, sealed.refresh, NOW,
            )  # fmt: skip


async def opens(vault: TokenVault, row: Any, *, region: str = REGION) -> bool:
    """Whether either sealed column of a row opens where the row lies now."""
    opened = []
    for purpose, column in (("access_token", "sealed_access"), ("refresh_token", "sealed_refresh")):
        try:
            await vault.open(place_of(region, row), purpose, row["data_key_version"], row[column])  # type: ignore[arg-type]
            opened.append(True)
        except SealBroken:
            opened.append(False)
    assert len(set(opened)) == 1
    return opened[0]


COPY = """UPDATE gateway.tokens t SET sealed_access = o.sealed_access, sealed_refresh = o.sealed_refresh {more} FROM gateway.tokens o
           WHERE (t.connection_id, t.access_profile) = ($1, $2) AND (o.connection_id, o.access_profile) = ($3, $4)"""


@pytest.mark.parametrize("more", ["", ", data_key_version = o.data_key_version"])
async def test_a_row_that_is_copied_over_another_does_not_open(
    database: Database, vault: TokenVault, more: str
) -> None:
    """Every row over every other one, with and without the name of its data key."""
    await store(database, vault)
    before = await rows(database)
    assert [await opens(vault, row) for row in before] == [True] * len(ROWS)
    refused = 0
    for there, here in permutations([(row["connection_id"], row["access_profile"]) for row in before], 2):
        try:
            async with database.transaction() as tx:
                await tx.execute(COPY.format(more=more), *there, *here)
                found = await tx.fetch(
                    "SELECT * FROM gateway.tokens WHERE (connection_id, access_profile) = ($1, $2)", *there
                )
                assert not await opens(vault, found[0])
                raise Undo
        except Undo:
            continue
        except asyncpg.ForeignKeyViolationError:
            refused += 1  # another tenant's data key: the schema itself says no
    assert refused == (0 if not more else 10)
    assert await rows(database) == before


class Undo(Exception):
    """Rolls a change back."""


CHANGES = {
    "generation": "generation = generation + 1",
    "token version": "token_version = token_version + 1",
    "purpose": "sealed_access = sealed_refresh, sealed_refresh = sealed_access",
    "cut": "sealed_access = substring(sealed_access FROM 1 FOR 20), sealed_refresh = substring(sealed_refresh FROM 1 FOR 33)",
    "empty": "sealed_access = '', sealed_refresh = ''",
    "flipped": "sealed_access = set_bit(sealed_access, 200, 1 - get_bit(sealed_access, 200)), "
    "sealed_refresh = set_bit(sealed_refresh, 8, 1 - get_bit(sealed_refresh, 8))",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_row_that_is_changed_does_not_open(database: Database, vault: TokenVault, change: str) -> None:
    """Whatever of it is changed by SQL."""
    await store(database, vault)
    await database.execute("UPDATE gateway.tokens SET " + CHANGES[change])  # noqa: S608 - from the table above
    assert not any([await opens(vault, row) for row in await rows(database)])


async def test_rows_moved_to_another_connection_tenant_or_region_do_not_open(
    database: Database, vault: TokenVault, backend: Backend, clock: FakeClock
) -> None:
    """With their grant, their data key and all that belongs to them."""
    await store(database, vault)
    elsewhere = TokenVault(DataKeys("elsewhere", database, backend, clock))
    assert not any([await opens(elsewhere, row, region="elsewhere") for row in await rows(database)])
    moved = TokenVault(DataKeys(REGION, database, backend, clock))
    async with database.transaction() as tx:
        await tx.execute(
            "INSERT INTO gateway.data_keys SELECT 'initech', version, wrapped, wrapped_under, created_at FROM gateway.data_keys WHERE tenant_id = 'acme'"
        )
        await tx.execute("UPDATE gateway.tokens SET tenant_id = 'initech' WHERE tenant_id = 'acme'")
    assert [await opens(moved, row) for row in await rows(database)] == [False] * 5 + [True]
    async with database.transaction() as tx:  # and with the memory of the right key still warm
        await tx.execute("UPDATE gateway.tokens SET tenant_id = 'acme' WHERE tenant_id = 'initech'")
        await tx.execute("ALTER TABLE gateway.tokens DROP CONSTRAINT tokens_connection_id_access_profile_fkey")
        await tx.execute("UPDATE gateway.tokens SET connection_id = gen_random_uuid()")
    assert not any([await opens(vault, row) for row in await rows(database)])
