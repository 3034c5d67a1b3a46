"""Integrations by API: made, changed, rotated, deleted; each side changes only its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from gateway.database import Database
from gateway.errors import Conflict, Invalid, NotFound
from gateway.ids import uuid7
from gateway.integrations import secrets, store
from gateway.integrations.store import Stored
from gateway.integrations.wanted import Wanted, checked
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from providers.registry import Provider
from tests.clock import FakeClock
from tests.integrations.conftest import PROVIDERS
from tests.integrations.test_plan import opened

NOW = FakeClock().now()
POSTY = Wanted(name="posty", provider="posty", settings={"audience": "us"}, secrets={"signing_secrets": (b"first",)})


async def made(database: Database, keyring: Keyring, wanted: Wanted = POSTY, **more: Any) -> Stored:
    async with database.transaction() as tx:
        return await store.create(tx, keyring, checked(wanted, PROVIDERS, ["default"]), NOW, **{"by": "api", **more})


async def test_one_is_made_listed_and_found(database: Database, keyring: Keyring) -> None:
    """By name and by id; of its secrets only when they were added."""
    id = uuid7(NOW)
    stored = await made(database, keyring, new_id=id)
    assert stored == Stored(
        id, "posty", "posty", "default", None, {"audience": "us"}, "keep", {}, (), "api", NOW, NOW,
        {"signing_secrets": (NOW,), "client_secrets": ()},
    )  # fmt: skip
    assert await store.get(database, "posty") == await store.get(database, id) == stored
    for missing in ("other", UUID(int=5)):
        with pytest.raises(NotFound):
            await store.get(database, missing)


async def test_a_name_is_taken_once(database: Database, keyring: Keyring) -> None:
    """A second one of the name is a conflict, not an error of the database."""
    await made(database, keyring)
    with pytest.raises(Conflict, match="already an integration"):
        await made(database, keyring, replace(POSTY, secrets={}))


async def test_pages_follow_one_another(database: Database, keyring: Keyring) -> None:
    """In the order they were made, without a gap or a repetition."""
    for n in range(5):
        await made(database, keyring, replace(POSTY, name=f"p{n}"))
    first = await store.page(database, limit=3)
    rest = await store.page(database, after=first[-1].id, limit=3)
    assert sorted(one.name for one in first + rest) == [f"p{n}" for n in range(5)]
    assert [one.id for one in first + rest] == sorted(one.id for one in first + rest)


async def test_what_is_not_named_stays(database: Database, keyring: Keyring, providers: Mapping[str, Provider]) -> None:
    """A change of one field leaves the others and the secrets."""
    stored = await made(database, keyring)
    async with database.transaction() as tx:
        how: dict[str, Any] = {"by": "api", "providers": providers, "regions": ["default"]}
        changed = await store.update(tx, "posty", {"client_id": "7"}, NOW, **how)
        assert changed == replace(stored, client_id="7")
        with pytest.raises(Invalid) as caught:
            await store.update(tx, stored.id, {"settings": {"colour": 1}}, NOW, **how)
        with pytest.raises(NotFound):
            await store.update(tx, "other", {}, NOW, **how)
    assert [fault["where"] for fault in caught.value.extra["errors"]] == [
        "body.settings.audience",
        "body.settings.colour",
    ]


async def test_a_secret_is_rotated_in_front_and_old_ones_retired(database: Database, keyring: Keyring) -> None:
    """The new one first; the same again changes nothing; one that is there already comes to the front."""
    stored = await made(database, keyring)

    async def rotated(new: bytes) -> list[bytes]:
        async with database.transaction() as tx:
            await secrets.rotate_secret(tx, keyring, stored.id, "signing_secrets", new, NOW)
        return (await opened(database, keyring, "posty"))["signing_secrets"]

    assert await rotated(b"second") == [b"second", b"first"]
    assert await rotated(b"second") == [b"second", b"first"]
    assert await rotated(b"third") == [b"third", b"second", b"first"]
    assert await rotated(b"first") == [b"first", b"third", b"second"]
    async with database.transaction() as tx:
        assert (await secrets.retire(tx, stored.id, "signing_secrets", keep=1)).removed == 2
        assert (await secrets.retire(tx, stored.id, "signing_secrets", keep=1)).removed == 0
        assert (await secrets.retire(tx, stored.id, "client_secrets", keep=1)).removed == 0
    assert await opened(database, keyring, "posty") == {"signing_secrets": [b"first"]}


async def test_secrets_do_not_pile_up(database: Database, keyring: Keyring) -> None:
    """The ninth waits until old ones are retired; bringing one of eight to the front is no ninth."""
    eight = tuple(b"secret%d" % n for n in range(8))
    stored = await made(database, keyring, replace(POSTY, secrets={"signing_secrets": eight}))
    async with database.transaction() as tx:
        with pytest.raises(Invalid, match="retire old ones"):
            await secrets.rotate_secret(tx, keyring, stored.id, "signing_secrets", b"ninth", NOW)
        await secrets.rotate_secret(tx, keyring, stored.id, "signing_secrets", eight[7], NOW)
    assert (await opened(database, keyring, "posty"))["signing_secrets"] == [eight[7], *eight[:7]]


async def test_a_secret_moved_to_another_integration_does_not_open(database: Database, keyring: Keyring) -> None:
    """Nor to another purpose: the seal binds both and the row."""
    await made(database, keyring)
    other = await made(database, keyring, replace(POSTY, name="other", secrets={}))
    for sql in (
        "UPDATE control.integration_secrets SET purpose = 'client_secrets'",
        f"UPDATE control.integration_secrets SET purpose = 'signing_secrets', integration_id = '{other.id}'",  # noqa: S608  # our id
    ):
        await database.execute(sql)
        moved = (await secrets.all_secrets(database))[0]
        with pytest.raises(SealBroken):
            keyring.open(moved.sealed, secrets.secret_aad(moved.integration_id, moved.purpose, moved.id))


async def test_deleting_takes_the_secrets_along(database: Database, keyring: Keyring) -> None:
    """And the second time it is not there."""
    await made(database, keyring)
    async with database.transaction() as tx:
        await store.delete(tx, "posty", by="api")
        with pytest.raises(NotFound):
            await store.delete(tx, "posty", by="api")
    assert await secrets.all_secrets(database) == []


async def test_the_api_leaves_the_files_integrations_alone(
    database: Database, keyring: Keyring, providers: Mapping[str, Provider]
) -> None:
    """A conflict that says where to change it."""
    await made(database, keyring, by="file")
    async with database.transaction() as tx:
        with pytest.raises(Conflict, match=r"declared in posthouse\.toml"):
            await store.update(tx, "posty", {}, NOW, by="api", providers=providers, regions=["default"])
        with pytest.raises(Conflict, match=r"declared in posthouse\.toml"):
            await store.delete(tx, "posty", by="api")


async def test_every_change_moves_the_revision(database: Database, keyring: Keyring) -> None:
    """Processes look at it to learn of changes."""

    async def revision() -> int:
        return int(await database.fetchval("SELECT revision FROM control.state"))

    seen = [await revision()]
    stored = await made(database, keyring)
    seen.append(await revision())
    async with database.transaction() as tx:
        await secrets.rotate_secret(tx, keyring, stored.id, "signing_secrets", b"second", NOW)
    seen.append(await revision())
    async with database.transaction() as tx:
        await store.delete(tx, stored.id, by="api")
    seen.append(await revision())
    assert seen == sorted(set(seen))
