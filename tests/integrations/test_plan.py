"""`apply` makes control be what a file declares: whole or not at all, and nothing the second time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.database import Database
from gateway.errors import Conflict
from gateway.integrations import secrets, store
from gateway.integrations.plan import Plan, apply
from gateway.integrations.wanted import Wanted
from gateway.vault.keyring import Keyring
from tests.clock import FakeClock

NOW = FakeClock().now()
SLACK = Wanted(
    name="slack", provider="plain", secrets={"signing_secrets": (b"new!", b"old!"), "client_secrets": (b"c",)}
)
POSTY = Wanted(name="posty", provider="posty", settings={"audience": "us"}, client_id="1")


async def applied(database: Database, keyring: Keyring, *declared: Wanted, **how: bool) -> Plan:
    async with database.transaction() as tx:
        return await apply(tx, declared, keyring, NOW, **how)


async def state(database: Database) -> dict[str, Any]:
    """Everything an apply may change, row by row, and the revision that processes watch."""
    tables = ("integrations", "integration_secrets", "state")
    return {name: await database.fetch(f"SELECT * FROM control.{name} ORDER BY 1") for name in tables}  # noqa: S608  # constants


async def opened(database: Database, keyring: Keyring, name: str) -> dict[str, list[bytes]]:
    """An integration's secrets by purpose, newest first."""
    found = await store.get(database, name)
    held: dict[str, list[bytes]] = {}
    for row in await secrets.all_secrets(database, found.id):
        aad = secrets.secret_aad(row.integration_id, row.purpose, row.id)
        held.setdefault(row.purpose, []).append(keyring.open(row.sealed, aad))
    return held


async def test_what_is_declared_is_created_with_its_secrets_in_order(database: Database, keyring: Keyring) -> None:
    """Sealed, newest first; the plan says names and numbers only."""
    plan = await applied(database, keyring, SLACK, POSTY)
    assert [change.line() for change in plan.changes] == [
        "created    posty (posty)",
        "created    slack (plain): signing_secrets 2 (+2 -0), client_secrets 1 (+1 -0)",
    ]
    assert await opened(database, keyring, "slack") == {"signing_secrets": [b"new!", b"old!"], "client_secrets": [b"c"]}
    posty = await store.get(database, "posty")
    assert (posty.settings, posty.client_id, posty.declared_by, posty.secrets["signing_secrets"]) == (
        {"audience": "us"}, "1", "file", (),
    )  # fmt: skip


async def test_a_second_apply_changes_nothing(database: Database, keyring: Keyring) -> None:
    """Not a row, not even the revision: processes read nothing again. Also under a rotated keyring."""
    await applied(database, keyring, SLACK, POSTY)
    before = await state(database)
    for ring in (keyring, keyring.with_new_version()):
        plan = await applied(database, ring, POSTY, SLACK)
        assert plan.empty
        assert [change.action for change in plan.changes] == ["unchanged", "unchanged"]
        assert await state(database) == before


async def test_a_dry_run_tells_and_does_nothing(database: Database, keyring: Keyring) -> None:
    """Its plan is the one that the real run then carries out."""
    await applied(database, keyring, SLACK)
    before = await state(database)
    changed = replace(SLACK, unattributed="drop")
    told = await applied(database, keyring, changed, POSTY, dry_run=True)
    assert await state(database) == before
    assert await applied(database, keyring, changed, POSTY) == told
    assert not told.empty


async def test_a_rotation_keeps_the_rows_of_secrets_that_stay(database: Database, keyring: Keyring) -> None:
    """A new one in front: one row is added, the others move; then the oldest goes, then the order turns."""
    await applied(database, keyring, SLACK)
    before = {row.fingerprint: row for row in await secrets.all_secrets(database)}
    steps = [
        ((b"newest", b"new!", b"old!"), "3 (+1 -0)"),
        ((b"newest", b"new!"), "2 (+0 -1)"),
        ((b"new!", b"newest"), "2 (+0 -0 reordered)"),
        ((b"other",), "1 (+1 -2)"),
        ((), "0 (+0 -1)"),
    ]
    for signing, says in steps:
        wanted = replace(SLACK, secrets={"signing_secrets": signing, "client_secrets": (b"c",)})
        plan = await applied(database, keyring, wanted)
        assert plan.changes[0].line() == f"changed    slack (plain): signing_secrets {says}"
        assert (await opened(database, keyring, "slack")).get("signing_secrets", []) == list(signing)
        for row in await secrets.all_secrets(database):
            if row.fingerprint in before:
                assert (row.id, row.sealed) == (before[row.fingerprint].id, before[row.fingerprint].sealed)


async def test_changed_fields_are_named(database: Database, keyring: Keyring) -> None:
    """And saved; the id stays."""
    await applied(database, keyring, POSTY)
    before = await store.get(database, "posty")
    plan = await applied(database, keyring, replace(POSTY, client_id=None, settings={"audience": "them", "depth": 2}))
    assert plan.changes[0].fields == ("client_id", "settings")
    after = await store.get(database, "posty")
    assert (after.id, after.client_id, after.settings) == (before.id, None, {"audience": "them", "depth": 2})


async def test_what_vanishes_from_the_file_goes_only_when_asked(database: Database, keyring: Keyring) -> None:
    """Without prune it is named and left; those made by API are never touched."""
    async with database.transaction() as tx:
        await store.create(tx, keyring, replace(POSTY, name="by-api"), NOW, by="api")
    await applied(database, keyring, SLACK, POSTY)
    plan = await applied(database, keyring, SLACK)
    assert plan.empty
    assert [change.line() for change in plan.of("left")] == [
        "left       posty (posty): no longer in the file; --prune removes it"
    ]
    plan = await applied(database, keyring, SLACK, prune=True)
    assert [change.name for change in plan.of("removed")] == ["posty"]
    assert [row.name for row in await store.all_rows(database)] == ["by-api", "slack"]
    assert (await applied(database, keyring, SLACK, prune=True)).empty


async def test_one_that_cannot_be_leaves_all_undone(database: Database, keyring: Keyring) -> None:
    """An integration made by API stands in the way of the last one declared: the first is not made either."""
    async with database.transaction() as tx:
        await store.create(tx, keyring, replace(POSTY, name="z"), NOW, by="api")
    before = await state(database)
    with pytest.raises(Conflict, match="'z' was made by API"):
        await applied(database, keyring, SLACK, replace(POSTY, name="z"))
    assert await state(database) == before


async def test_an_integration_never_becomes_another_providers(database: Database, keyring: Keyring) -> None:
    """Its events are on the stream under its provider's name."""
    await applied(database, keyring, POSTY)
    with pytest.raises(Conflict, match="is of posty"):
        await applied(database, keyring, replace(POSTY, provider="plain", settings={}))


async def test_applies_at_once_take_turns(database: Database, keyring: Keyring) -> None:
    """Eight processes with two files: no error, no half of each, no secret twice."""
    other = replace(SLACK, secrets={"signing_secrets": (b"xxxx", b"new!")})
    await asyncio.gather(*(applied(database, keyring, one) for one in [SLACK, other] * 4))
    held = await opened(database, keyring, "slack")
    assert held in (
        {"signing_secrets": [b"new!", b"old!"], "client_secrets": [b"c"]},
        {"signing_secrets": [b"xxxx", b"new!"]},
    )


async def test_no_secret_is_stored_in_plain(database: Database, keyring: Keyring) -> None:
    """Neither in a sealed column nor in a fingerprint; equal secrets of two integrations look different."""
    secret = b"a-rather-long-secret"
    one = Wanted(name="one", provider="plain", secrets={"signing_secrets": (secret,), "client_secrets": (secret,)})
    await applied(database, keyring, one, replace(one, name="two"))
    rows = await secrets.all_secrets(database)
    assert all(secret not in row.sealed + row.fingerprint for row in rows)
    assert len({row.fingerprint for row in rows}) == len({row.sealed for row in rows}) == 4
    assert all("sealed" not in repr(row) for row in rows)
