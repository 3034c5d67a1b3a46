"""Data keys: a bounded memory that goes on while what stands behind it is away, and forgets in time."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from gateway import metrics
from gateway.database import Database
from gateway.errors import Unavailable
from gateway.vault.data_keys import NEWEST_S, TTL_S, DataKeys
from gateway.vault.keyring import Keyring, generate
from gateway.vault.tokens import Place, SealBroken, TokenVault
from tests.clock import FakeClock
from tests.vault.conftest import REGION, Backend
from tests.vault.rows import PROFILE, fill

HERE = Place(REGION, "acme", UUID(int=1), PROFILE, 1, 1)


def twin(database: Database, backend: Backend, clock: FakeClock, **more: int) -> DataKeys:
    """Another process's."""
    return DataKeys(REGION, database, backend, clock, **more)


async def test_a_tenant_gets_one_key_however_many_ask(
    database: Database, keys: DataKeys, backend: Backend, clock: FakeClock
) -> None:
    """One wrap in one process; of two processes, one's key is everybody's."""
    got = await asyncio.gather(*(keys.for_sealing("acme") for _ in range(50)))
    assert len(set(map(id, got))) == 1
    assert backend.wraps == [1]
    assert (await twin(database, backend, clock).for_sealing("acme")).version == got[0].version
    assert await database.fetchval("SELECT count(*) FROM gateway.data_keys") == 1


async def test_processes_that_make_a_key_at_once_agree_on_the_newest(
    database: Database, backend: Backend, clock: FakeClock
) -> None:
    """What each sealed in that moment opens everywhere, and from then on all seal under the same one."""
    processes = [twin(database, backend, clock) for _ in range(6)]
    sealed = await asyncio.gather(*(TokenVault(p).seal(HERE, "token", None) for p in processes))
    for process in processes:
        for each in sealed:
            assert await TokenVault(process).open(HERE, "access_token", each.data_key_version, each.access) == "token"
    clock.move(NEWEST_S)
    assert len({(await p.for_sealing("acme")).version for p in processes}) == 1


async def test_keys_that_are_missing_are_opened_in_one_call(
    database: Database, keys: DataKeys, backend: Backend, clock: FakeClock
) -> None:
    """However many readers ask for however many: each key once, in as few calls as there were moments of asking."""
    names = [
        (tenant, key.version) for tenant, key in (await keys.for_sealing_all([f"t{n}" for n in range(40)])).items()
    ]
    other = twin(database, backend, clock)
    backend.unwraps.clear()
    got = await asyncio.gather(*(other.for_opening(names) for _ in range(20)), other.for_opening(names[:3]))
    assert backend.unwraps == [40]
    assert all(set(each) == set(names) for each in got[:-1])


async def test_memory_is_bounded_and_keeps_what_is_used(database: Database, backend: Backend, clock: FakeClock) -> None:
    """The least recently used goes first."""
    keys = twin(database, backend, clock, most=3)
    made = {tenant: (await keys.for_sealing(tenant)).version for tenant in ("a", "b", "c")}
    assert keys.held("a", made["a"]) is not None
    await keys.for_sealing("d")
    assert keys.held("b", made["b"]) is None
    assert keys.held("a", made["a"]) is not None
    await keys.run_once()
    assert metrics.DATA_KEYS_HELD.labels(REGION)._value.get() == 3
    clock.move(TTL_S)
    await keys.run_once()
    assert not keys._known


async def test_reads_go_on_while_all_is_away_and_sealing_says_so(
    database: Database, keys: DataKeys, vault: TokenVault, backend: Backend, clock: FakeClock
) -> None:
    """What is in memory opens, until its time is over; what is not is Unavailable, and so is a new seal."""
    sealed = await vault.seal(HERE, "token", "again")
    assert sealed.refresh is not None
    backend.away = True
    database._pool.terminate()
    clock.move(TTL_S - 1)
    assert await vault.open(HERE, "refresh_token", sealed.data_key_version, sealed.refresh) == "again"
    with pytest.raises(Unavailable, match="database"):
        await vault.seal(HERE, "token", None)
    clock.move(1)
    with pytest.raises(Unavailable, match="database"):
        await vault.open(HERE, "access_token", sealed.data_key_version, sealed.access)
    await database.open()
    before = metrics.KEY_BACKEND_ERRORS.labels(REGION, "unavailable")._value.get()
    for doing in (
        vault.open(HERE, "access_token", sealed.data_key_version, sealed.access),
        vault.seal(HERE, "token", None),
    ):
        with pytest.raises(Unavailable, match="backend"):
            await doing
    assert metrics.KEY_BACKEND_ERRORS.labels(REGION, "unavailable")._value.get() == before + 2
    backend.away = False
    assert await vault.open(HERE, "access_token", sealed.data_key_version, sealed.access) == "token"


async def test_one_broken_key_spoils_no_other(
    database: Database, keys: DataKeys, backend: Backend, clock: FakeClock
) -> None:
    """Of a batch all others open; the broken one is SealBroken for whoever wants it, and counted."""
    names = [(tenant, key.version) for tenant, key in (await keys.for_sealing_all([f"t{n}" for n in range(9)])).items()]
    await database.execute(
        "UPDATE gateway.data_keys SET wrapped = set_byte(wrapped, 30, get_byte(wrapped, 30) # 1) WHERE tenant_id = 't4'"
    )
    other = twin(database, backend, clock)
    with pytest.raises(SealBroken):
        await other.for_opening(names)
    opened = await other.openable(names)
    assert set(names) - set(opened) == {name for name in names if name[0] == "t4"}
    with pytest.raises(SealBroken):
        await other.for_sealing("t4")


async def test_a_key_that_was_swapped_does_not_open(
    database: Database, keys: DataKeys, backend: Backend, clock: FakeClock
) -> None:
    """A wrapped key is bound to its tenant, its version and its region; another keyring's opens nothing."""
    made = await keys.for_sealing_all(["a", "b"])
    name = ("a", made["a"].version)
    for stranger in (DataKeys("elsewhere", database, backend, clock), twin(database, Backend(generate()), clock)):
        with pytest.raises(SealBroken):
            await stranger.for_opening([name])
    await database.execute(
        "UPDATE gateway.data_keys a SET wrapped = b.wrapped FROM gateway.data_keys b WHERE a.tenant_id = 'a' AND b.tenant_id = 'b'"
    )
    with pytest.raises(SealBroken):
        await twin(database, backend, clock).for_opening([name])


async def test_destroyed_keys_open_nothing_in_any_process(
    database: Database, dsn: str, keys: DataKeys, backend: Backend, clock: FakeClock
) -> None:
    """Crypto-shredding: a copy of the rows is worthless in the process that did it, and in every other within the TTL."""
    other = twin(database, backend, clock)
    await fill(dsn, keys, ["acme", "globex"], 3)
    rows = await database.fetch("SELECT * FROM gateway.tokens WHERE tenant_id = 'acme'")
    place = Place(REGION, "acme", rows[0]["connection_id"], PROFILE, 1, 1)
    version, copied = rows[0]["data_key_version"], rows[0]["sealed_access"]
    await TokenVault(other).open(place, "access_token", version, copied)
    async with database.transaction() as tx:
        await tx.execute("DELETE FROM gateway.tokens WHERE tenant_id = 'acme'")
        await keys.destroy(tx, "acme")
    with pytest.raises(SealBroken):
        await TokenVault(keys).open(place, "access_token", version, copied)
    assert other.held("acme", version) is not None  # that is what the TTL is for
    clock.move(TTL_S)
    with pytest.raises(SealBroken):
        await TokenVault(other).open(place, "access_token", version, copied)
    kept = await database.fetchrow("SELECT * FROM gateway.tokens WHERE tenant_id = 'globex' LIMIT 1")
    assert kept is not None
    there = Place(REGION, "globex", kept["connection_id"], PROFILE, 1, 1)
    assert (
        await TokenVault(other).open(there, "access_token", kept["data_key_version"], kept["sealed_access"])
    ).startswith("access-")


async def test_a_tenant_that_comes_back_meets_no_key_of_its_former_life(
    database: Database, keys: DataKeys, backend: Backend, clock: FakeClock
) -> None:
    """Erased and made again while another process still holds the old key: what that process seals opens everywhere."""
    other = twin(database, backend, clock)
    old = await other.for_sealing("acme")
    async with database.transaction() as tx:
        await keys.destroy(tx, "acme")
    new = await keys.for_sealing("acme")
    assert new.version != old.version
    clock.move(NEWEST_S)
    sealed = await TokenVault(other).seal(HERE, "token", None)
    assert sealed.data_key_version == new.version
    assert await TokenVault(keys).open(HERE, "access_token", sealed.data_key_version, sealed.access) == "token"


async def test_a_failed_or_abandoned_look_leaves_nothing_behind(keys: DataKeys, backend: Backend) -> None:
    """One who gives up takes nobody's answer away; a failure is not remembered."""
    backend.away = True
    with pytest.raises(Unavailable):
        await keys.for_sealing("acme")
    backend.away = False
    impatient = asyncio.create_task(keys.for_sealing("acme"))
    patient = asyncio.create_task(keys.for_sealing("acme"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).tenant == "acme"
    assert not keys._finding
    assert not keys._opening


def test_nothing_shows_a_data_key(keyring: Keyring) -> None:
    """Neither the key nor the sealed columns stand in a repr."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from gateway.vault.data_keys import DataKey
    from gateway.vault.tokens import Sealed

    assert repr(DataKey("acme", 1, AESGCM(b"k" * 32))) == "DataKey(tenant='acme', version=1)"
    assert repr(Sealed(1, b"access", b"refresh")) == "Sealed(data_key_version=1, kv_path=None, has_refresh=False)"
