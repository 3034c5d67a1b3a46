"""The secrets-manager mode on a real OpenBao: rows point to blobs that are written once, and what no row names is swept."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from gateway.database import Database
from gateway.errors import SetupError
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring, generate
from gateway.vault.kv import KvBlobs
from gateway.vault.openbao import OpenBao, Refused
from gateway.vault.sweep import MARGIN_S, Sweep
from gateway.vault.tokens import Blob, Place, Sealed, TokenVault
from tests import openbao
from tests.clock import FakeClock
from tests.flows.house import metric
from tests.vault.openbao import rows

READS = {"kind": "read", "outcome": "ok"}


@pytest.fixture
async def house(tenancy: openbao.Tenancy, settings: Settings, clock: FakeClock) -> AsyncIterator[Gateway]:
    """A process in KV mode."""
    made = await Gateway.open(tenancy.settings(settings, token_store="kv"), clock)
    yield made
    await made.close()


@pytest.fixture
def tokens(house: Gateway) -> TokenVault:
    return house.regions.home.tokens


def sweep_of(house: Gateway) -> Sweep:
    sweep = house.regions.home.sealing.sweep
    assert sweep is not None
    return sweep


async def opened(tokens: TokenVault, where: Place, row: Sealed) -> tuple[str, str]:
    """Both secrets of a row, as whoever reads one does it."""
    return (
        await tokens.open(where, "access_token", row.data_key_version, row.access, row.kv_path),
        await tokens.open(where, "refresh_token", row.data_key_version, row.refresh, row.kv_path),
    )


async def test_tokens_lie_there_and_the_row_has_their_path(
    house: Gateway,
    tokens: TokenVault,
    tenancy: openbao.Tenancy,
    database: Database,
    settings: Settings,
    clock: FakeClock,
) -> None:
    """End to end: nothing sealed in PostgreSQL, nothing readable there, and another process reads it."""
    where = rows.place()
    sealed = await tokens.seal(where, "access-of-acme", "refresh-of-acme")
    assert (sealed.access, sealed.refresh) == (None, None)
    await rows.put(database, where, sealed)
    assert await opened(tokens, where, await rows.get(database, where)) == ("access-of-acme", "refresh-of-acme")
    [path] = tenancy.blobs("posthouse")
    assert path == sealed.kv_path
    held = tenancy.ask("GET", f"kv/data/{path}")["data"]
    assert held["metadata"]["version"] == 1
    assert b"of-acme" not in base64.b64decode(held["data"]["access"]) + base64.b64decode(held["data"]["refresh"])
    other = await Gateway.open(tenancy.settings(settings, token_store="postgres"), clock)  # switched back: still read
    vault = other.regions.home.tokens
    assert await opened(vault, where, sealed) == ("access-of-acme", "refresh-of-acme")
    assert (await vault.seal(where, "a", "r")).kv_path is None
    await other.close()


async def test_a_blob_of_another_row_does_not_open(
    tokens: TokenVault, tenancy: openbao.Tenancy, house: Gateway
) -> None:
    """Neither by its path in another row, nor by its bytes at another path; nor is it one token for the other."""
    here, there = rows.place(), rows.place("bolt")
    mine, other = await tokens.seal(here, "a1", "r1"), await tokens.seal(there, "a2", "r2")
    assert mine.kv_path
    assert other.kv_path
    for moved in (
        there,
        replace(here, generation=2),
        replace(here, version=2),
        replace(here, profile="writer"),
        replace(here, region="x"),
        replace(here, connection=uuid4()),
    ):
        with pytest.raises(SealBroken):
            await opened(tokens, moved, mine)
    held = tenancy.ask("GET", f"kv/data/{mine.kv_path}")["data"]["data"]
    swapped = {"access": held["refresh"], "refresh": held["access"]}
    for path, data in (
        (other.kv_path, held),
        (mine.kv_path, swapped),
        (mine.kv_path, {"access": "%"}),
        (mine.kv_path, {"access": 5}),
        (mine.kv_path, {}),
    ):
        tenancy.ask("POST", f"kv/data/{path}", {"data": data})
        fresh = KvBlobs(house.bao, house.settings, "default", house.control_keyring)  # type: ignore[arg-type]  # there is one
        vault = TokenVault(tokens.keys, fresh)
        where = here if path == mine.kv_path else there
        with pytest.raises(SealBroken):
            await opened(vault, where, replace(mine, kv_path=path))


@pytest.mark.parametrize(
    "path", ["", "x", "../../sys/raw", "a/../b", "posthouse/none/at/all", "a b/c", "a/b?list=true", "a/b#c", "//"]
)
async def test_a_path_that_leads_nowhere_is_one_typed_error(tokens: TokenVault, path: str) -> None:
    """A row that was tampered with reaches nothing else."""
    with pytest.raises(SealBroken):
        await tokens.open(rows.place(), "access_token", 1, None, path)


async def test_a_row_without_anything_is_one_typed_error(tokens: TokenVault, house: Gateway) -> None:
    """No refresh token, no column, no server named."""
    where = rows.place()
    sealed = await tokens.seal(where, "a", None)
    assert await tokens.open(where, "access_token", sealed.data_key_version, None, sealed.kv_path) == "a"
    for vault, path in ((tokens, sealed.kv_path), (tokens, None), (TokenVault(tokens.keys), sealed.kv_path)):
        with pytest.raises(SealBroken):
            await vault.open(where, "refresh_token", sealed.data_key_version, None, path)


async def test_orphans_and_superseded_blobs_are_swept_after_their_margin(
    house: Gateway, tokens: TokenVault, tenancy: openbao.Tenancy, database: Database, clock: FakeClock
) -> None:
    """A crash before the commit, a refresh, an older data key: the row's blob stays, the others go, each after an hour
    without a row; a blob whose row comes late is left alone."""
    sweep = sweep_of(house)
    where = rows.place()
    first = await tokens.seal(where, "a1", "r1")
    await rows.put(database, where, first)
    crashed = await tokens.seal(replace(where, version=2), "lost", "lost")
    late = rows.place("bolt")
    coming = await tokens.seal(late, "late", "late")
    assert await sweep.run_once() == 0
    clock.move(MARGIN_S - 1)
    second = await tokens.seal(replace(where, version=2), "a2", "r2")  # the same version again: a path of its own
    await rows.put(database, replace(where, version=2), second)
    assert await sweep.run_once() == 0
    await rows.put(database, late, coming)
    clock.move(1)
    assert await sweep.run_once() == 1
    left = set(tenancy.blobs("posthouse"))
    assert crashed.kv_path not in left
    assert left == {first.kv_path, second.kv_path, coming.kv_path}  # the superseded one was a row's until a second ago
    clock.move(MARGIN_S)
    assert await sweep.run_once() == 1
    assert set(tenancy.blobs("posthouse")) == {second.kv_path, coming.kv_path}
    clock.move(10 * MARGIN_S)
    assert await sweep.run_once() == 0
    assert await opened(tokens, replace(where, version=2), second) == ("a2", "r2")
    with pytest.raises(SealBroken):
        await tokens.open(where, "access_token", first.data_key_version, None, first.kv_path)


async def test_another_deployments_blobs_are_never_swept(
    house: Gateway,
    bao_server: openbao.Server,
    tenancy: openbao.Tenancy,
    settings: Settings,
    template: Any,
    clock: FakeClock,
) -> None:
    """The same engine, prefix and region name, another keyring and database: each sweeps its own."""
    async with template.cloned() as dsn:
        apart = tenancy.settings(settings, token_store="kv").model_copy(
            update={
                "database_url": type(settings.keyring)(dsn),
                "keyring": type(settings.keyring)(generate().to_json()),
            }  # type: ignore[misc]
        )
        other = await Gateway.open(apart, clock)
        sealed = await other.regions.home.tokens.seal(rows.place(), "theirs", "theirs")
        for _ in range(3):
            await sweep_of(house).run_once()
            clock.move(MARGIN_S)
        assert tenancy.blobs("posthouse") == [sealed.kv_path]
        await other.close()


async def test_discarding_ends_a_blob_at_once(house: Gateway, tokens: TokenVault, tenancy: openbao.Tenancy) -> None:
    """A closed connection's tokens do not wait for the sweep; what is not there is no trouble."""
    where = rows.place()
    sealed = await tokens.seal(where, "a", "r")
    await tokens.discard([sealed.kv_path, None, "posthouse/not/there", "../x"])
    assert tenancy.blobs("posthouse") == []
    with pytest.raises(SealBroken):
        await opened(tokens, where, sealed)


async def test_memory_is_bounded_and_one_read_serves_many(
    bao: OpenBao, vault_settings: Settings, keyring: Keyring
) -> None:
    """The least recently read make room; forty who ask at once are one call."""
    size = 4096
    blobs = KvBlobs(bao, vault_settings, "default", keyring, memory=10 * (size + 700))
    paths = [await blobs.write(rows.place(), Blob(bytes(size), None)) for _ in range(20)]
    assert blobs._held <= 10 * (size + 700)
    before = metric("posthouse_vault_calls_total", **READS)
    await asyncio.gather(*(blobs.read(paths[-1]) for _ in range(40)))
    assert metric("posthouse_vault_calls_total", **READS) == before
    await asyncio.gather(*(blobs.read(paths[0]) for _ in range(40)))
    assert metric("posthouse_vault_calls_total", **READS) == before + 1
    for path in paths * 2:
        assert (await blobs.read(path)).access == bytes(size)
    assert blobs._held <= 10 * (size + 700)
    await blobs.delete(paths)
    assert blobs._held == 0


@pytest.mark.parametrize(
    ("more", "policy", "says"),
    [
        ({"vault_kv_mount": "none"}, openbao.POLICY, "no KV engine at none"),
        ({"vault_kv_mount": "old"}, 'path "old/*" { capabilities = ["create", "read", "list", "delete"] }', "old is no KV engine of version 2"),
        ({}, 'path "x" { capabilities = ["read"] }', "no KV engine at kv, or our policy allows nothing there"),
        ({}, 'path "kv/data/posthouse/*" { capabilities = ["create", "read"] }', "our policy must allow delete on kv/metadata/posthouse/"),
        ({"vault_kv_prefix": "elsewhere"}, openbao.POLICY, "our policy must allow create, read on kv/data/elsewhere/"),
    ],
)  # fmt: skip
async def test_a_store_that_is_not_fit_is_refused_at_the_start(
    tenancy: openbao.Tenancy, settings: Settings, clock: FakeClock, more: dict[str, Any], policy: str, says: str
) -> None:
    """One line, nothing written."""
    tenancy.ask("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
    tenancy.allow(policy)
    with pytest.raises(SetupError) as caught:
        await Gateway.open(tenancy.settings(settings, token_store="kv", **more), clock)
    assert says in str(caught.value)
    assert tenancy.blobs("") == []


async def test_a_login_without_the_default_policy_will_do(
    bao_server: openbao.Server, settings: Settings, database: Database, clock: FakeClock
) -> None:
    """It may not look itself up, nor renew itself: we log in again instead, and a policy's no is still one."""
    tenancy = bao_server.tenancy(token_no_default_policy=True)
    house = await Gateway.open(tenancy.settings(settings, token_store="kv", key_backend="transit"), clock)
    assert house.bao is not None
    where = rows.place()
    sealed = await house.regions.home.tokens.seal(where, "a", "r")
    clock.move(1000)
    await house.bao.run_once()
    assert house.bao.seconds_left == 1200
    with pytest.raises(Refused, match="permission denied"):
        await house.bao.call("key", "GET", "transit/keys/other")
    assert await opened(house.regions.home.tokens, where, sealed) == ("a", "r")
    await house.close()
