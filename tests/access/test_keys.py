"""API keys: shown once, stored as a keyed hash, revoked for good."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from uuid import UUID

import pytest

from gateway.access import keys
from gateway.access.keys import Key, NewKey
from gateway.access.roles import ACTIONS, ADMIN, ROLES, allows
from gateway.database import Database
from gateway.errors import Invalid, NotFound
from gateway.vault.keyring import Keyring
from tests.clock import FakeClock

NOW = FakeClock().now()


async def test_a_key_is_shown_once_and_kept_as_a_hash(database: Database, keyring: Keyring) -> None:
    """Its form is fixed; the table holds its beginning and a MAC, and nothing shows the rest."""
    made = await keys.create(database, keyring, NOW, name="first")
    assert re.fullmatch(r"ph_[a-z2-9]{8}_[A-Za-z0-9_-]{43}", made.token)
    assert made.token.startswith(made.key.prefix + "_")
    row = await database.fetchrow("SELECT * FROM control.api_keys")
    assert row is not None
    assert made.token[12:] not in repr(dict(row)) + repr(made)
    assert row["hash"] == keys.hash_of(keyring, made.token)
    assert await keys.page(database) == [made.key] == [await keys.get(database, made.key.id)]


@pytest.mark.parametrize(
    ("name", "role", "ends_in_s"), [("x", "emperor", 5), ("", "admin", 5), ("a\0", "admin", 5), ("x", "admin", 0)]
)
async def test_a_key_that_cannot_be_is_refused(
    database: Database, keyring: Keyring, name: str, role: str, ends_in_s: int
) -> None:
    """An unknown role, no usable name, an end that has passed."""
    with pytest.raises(Invalid):
        await keys.create(database, keyring, NOW, name=name, role=role, expires_at=NOW + timedelta(seconds=ends_in_s))
    assert await keys.page(database) == []


async def test_a_revoked_key_stays_listed_and_is_not_live(database: Database, keyring: Keyring) -> None:
    """The first time counts; an unknown id is not found."""
    made = await keys.create(database, keyring, NOW, name="x")
    later = NOW + timedelta(hours=1)
    assert (await keys.revoke(database, made.key.id, NOW)).revoked_at == NOW
    assert (await keys.revoke(database, made.key.id, later)).revoked_at == NOW
    assert await keys.live(database, NOW) == {}
    assert len(await keys.page(database)) == 1
    for act in (keys.get(database, UUID(int=1)), keys.revoke(database, UUID(int=1), NOW)):
        with pytest.raises(NotFound):
            await act


async def test_keys_are_listed_in_pages(database: Database, keyring: Keyring) -> None:
    """In the order they were made."""
    moments = [NOW + timedelta(seconds=n) for n in range(4)]
    made = [(await keys.create(database, keyring, moment, name="k")).key for moment in moments]
    first = await keys.page(database, limit=3)
    assert first + await keys.page(database, after=first[-1].id, limit=3) == made


async def test_only_one_of_many_first_starts_gets_the_first_key(database: Database, keyring: Keyring) -> None:
    """An admin's; and once there was any key, even one revoked since, there is no first one any more."""

    async def start() -> NewKey | None:
        async with database.transaction() as tx:
            return await keys.ensure_first(tx, keyring, NOW)

    got = [one for one in await asyncio.gather(*(start() for _ in range(8))) if one is not None]
    assert [one.key.role for one in got] == [ADMIN]
    await keys.revoke(database, got[0].key.id, NOW)
    assert await start() is None


async def test_use_is_noted_at_most_once_a_minute_and_moves_no_revision(database: Database, keyring: Keyring) -> None:
    """Processes do not read all of control again because somebody used a key; a late note sets nothing back."""
    made = await keys.create(database, keyring, NOW, name="x")
    before = await database.fetchval("SELECT revision FROM control.state")

    async def noted(after_s: int) -> Key:
        await keys.note_used(database, {made.key.id: NOW + timedelta(seconds=after_s), UUID(int=1): NOW})
        return await keys.get(database, made.key.id)

    assert [((await noted(after_s)).last_used_at or NOW) - NOW for after_s in (0, 59, 61, 30)] == [
        timedelta(0), timedelta(0), timedelta(seconds=61), timedelta(seconds=61),
    ]  # fmt: skip
    assert await database.fetchval("SELECT revision FROM control.state") == before


def test_roles_allow_what_is_written_and_nothing_else() -> None:
    """Every action of every role is a known one; an unknown role may do nothing; an unknown action is the admin's."""
    for role, allowed in ROLES.items():
        assert allowed == "*" or allowed <= ACTIONS
        assert {action for action in ACTIONS if allows(role, action)} == (ACTIONS if allowed == "*" else allowed)
    assert not any(allows("nobody", action) for action in ACTIONS)
    assert allows("consumer", "consumers:write")
    assert not allows("reader", "consumers:write")
    assert not allows("reader", "keys:read")
    assert not allows("consumer", "unheard:of")
