"""Both rotations with a real OpenBao behind: Transit wraps, KV holds the blobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.database import Database
from gateway.errors import SetupError
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault import rewrap
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from gateway.vault.kv import KvBlobs
from gateway.vault.reseal import KEPT_S, SETTLE_S, Reseal
from gateway.vault.rewrap import Rewrap
from gateway.vault.rotations import Rotation, run
from gateway.vault.sweep import MARGIN_S
from gateway.vault.tokens import TokenVault
from tests import openbao
from tests.clock import FakeClock
from tests.vault.openbao import rows
from tests.vault.rows import access_of, fill, place_of

TENANTS = [f"tenant-{n:03}" for n in range(250)]


async def to_the_end(database: Database, job: Reseal) -> Rotation:
    """With time passing whenever it waits."""
    while True:
        step = await job.run_once()
        assert step is not None
        if step.ended_at is not None:
            return step
        if step.waiting:
            seconds = SETTLE_S if step.position["step"] == "settle" else KEPT_S
            await database.execute(
                "UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)", seconds
            )


async def test_data_keys_are_wrapped_anew_by_transit(
    tenancy: openbao.Tenancy, settings: Settings, database: Database, dsn: str, clock: FakeClock
) -> None:
    """Killed half-way and resumed; every token opens before, between and after; then the old version is retired, and
    only keys that were missed would notice."""
    transit = tenancy.settings(settings, key_backend="transit")
    gateway = await Gateway.open(transit, clock)
    vault = gateway.regions.home.tokens
    backend = gateway.regions.home.sealing.remote_keys
    assert backend is not None
    made = await fill(dsn, vault.keys, TENANTS, 1)

    async def all_open() -> None:
        for tenant in TENANTS:
            vault.keys.forget(tenant)
        found = await database.fetch("SELECT * FROM gateway.tokens")
        await vault.keys.for_opening([(row["tenant_id"], row["data_key_version"]) for row in found])
        opened = [
            await vault.open(place_of("default", row), "access_token", row["data_key_version"], row["sealed_access"])
            for row in found
        ]
        assert opened == [access_of(row["connection_id"]) for row in found]
        assert len(opened) == len(made)

    with pytest.raises(SetupError, match="250 data keys are wrapped under version 1"):
        await backend.retire(1)
    assert await backend.rotate() == 2
    job = Rewrap(vault.keys, database, batch=60)
    assert (await job.begin()).total == len(TENANTS)
    await job.run_once()
    await all_open()
    with pytest.raises(SetupError, match="190 data keys are wrapped under version 1"):
        await backend.retire(1)
    ended = await run(Rewrap(vault.keys, database, batch=60), lambda _: None)
    assert ended is not None
    assert (ended.done, ended.broken) == (len(TENANTS), 0)
    assert await rewrap.under(database, 1) == 0
    await backend.retire(1)
    await all_open()
    await gateway.close()
    await (await Gateway.open(transit, clock)).close()


async def test_blobs_are_sealed_anew_under_new_data_keys(
    tenancy: openbao.Tenancy, settings: Settings, database: Database, keyring: Keyring, clock: FakeClock
) -> None:
    """Rows come to point to new blobs, the token version stays; a row that moved on meanwhile is left to its writer; the
    old data keys go, and the old blobs with the sweep."""
    gateway = await Gateway.open(tenancy.settings(settings, token_store="kv"), clock)
    vault, sweep = gateway.regions.home.tokens, gateway.regions.home.sealing.sweep
    assert sweep is not None
    places = [rows.place(tenant) for tenant in TENANTS[:12]]
    before = []
    for where in places:
        before.append(await vault.seal(where, f"access-{where.tenant}", f"refresh-{where.tenant}"))
        await rows.put(database, where, before[-1])
    plain = await TokenVault(vault.keys).seal(rows.place("plain"), "a", None)  # of a time before KV mode
    in_row = rows.place("plain")
    await rows.put(database, in_row, await TokenVault(vault.keys).seal(in_row, "in-row", "in-row"))
    assert plain.access
    job = Reseal(vault.keys, database, vault.blobs, rows=5)
    assert (await job.begin()).total == len(places) + 1
    moved_on = replace(places[0], version=2)
    await rows.put(database, moved_on, await vault.seal(moved_on, "access-new", "refresh-new"))
    ended = await to_the_end(database, job)
    assert ended.broken == 0
    other = TokenVault(vault.keys, KvBlobs(gateway.bao, gateway.settings, "default", keyring))  # type: ignore[arg-type]  # there is one
    for where, old in list(zip(places, before, strict=True))[1:]:
        row = await rows.get(database, where)
        assert row.kv_path != old.kv_path
        assert row.data_key_version > old.data_key_version
        assert (
            await other.open(where, "access_token", row.data_key_version, None, row.kv_path) == f"access-{where.tenant}"
        )
        assert (
            await other.open(where, "refresh_token", row.data_key_version, None, row.kv_path)
            == f"refresh-{where.tenant}"
        )
        vault.keys.forget(where.tenant)
        with pytest.raises(SealBroken):
            await vault.open(where, "access_token", old.data_key_version, None, old.kv_path)
    row = await rows.get(database, moved_on)
    assert await other.open(moved_on, "access_token", row.data_key_version, None, row.kv_path) == "access-new"
    row = await rows.get(database, in_row)
    assert await other.open(in_row, "access_token", row.data_key_version, row.access, None) == "in-row"
    assert await database.fetchval("SELECT count(*) FROM gateway.data_keys") == len(places) + 1
    await sweep.run_once()
    clock.move(MARGIN_S)
    assert await sweep.run_once() >= len(places)
    assert set(tenancy.blobs("posthouse")) == {
        r["kv_path"] for r in await database.fetch("SELECT kv_path FROM gateway.tokens WHERE kv_path IS NOT NULL")
    }
    await gateway.close()
