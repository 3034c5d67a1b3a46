"""Both rotations on real tables: nothing is lost, nothing is locked, whoever is killed or late costs nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from gateway import ids, metrics
from gateway.database import Database
from gateway.vault import rewrap, rotations, sealed_tables
from gateway.vault.data_keys import NEWEST_S, DataKeys
from gateway.vault.keyring import Keyring
from gateway.vault.reseal import KEPT_S, SETTLE_S, Reseal
from gateway.vault.rewrap import Rewrap
from gateway.vault.rotations import Rotation, run
from gateway.vault.tokens import TokenVault, closing_place, opened_text, sealed_text, staged_place
from gateway.vault.upkeep import VaultUpkeep
from tests.clock import FakeClock
from tests.vault.conftest import REGION, Backend
from tests.vault.rows import NOW, access_of, fill, place_of, refresh_of

TENANTS = [f"tenant-{n:03}" for n in range(30)]
PER_TENANT = 4


async def pass_time(database: Database, seconds: float) -> None:
    """Move the region's clock."""
    await database.execute("UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)", seconds)


async def all_open(database: Database, vault: TokenVault) -> int:
    """Every row opens to what it held from the start; how many there are."""
    rows = await database.fetch("SELECT * FROM gateway.tokens")
    for row in rows:
        place, connection = place_of(REGION, row), row["connection_id"]
        assert await vault.open(place, "access_token", row["data_key_version"], row["sealed_access"]) == access_of(
            connection
        )
        assert await vault.open(place, "refresh_token", row["data_key_version"], row["sealed_refresh"]) == refresh_of(
            connection
        )
    return len(rows)


def fresh(database: Database, backend: Backend) -> DataKeys:
    """A process that has just started."""
    return DataKeys(REGION, database, backend, FakeClock())


async def to_the_end(database: Database, job: Reseal) -> Rotation:
    """A data rotation, with time passing whenever it waits."""
    while True:
        step = await job.run_once()
        assert step is not None
        if step.ended_at is not None:
            return step
        if step.waiting:
            await pass_time(database, SETTLE_S if step.position["step"] == "settle" else KEPT_S)


async def test_data_keys_are_wrapped_anew_in_batches_of_one_call(
    database: Database, dsn: str, keys: DataKeys, keyring: Keyring, backend: Backend
) -> None:
    """All under the new version, one unwrap and one wrap a batch, progress told; tokens themselves are not touched."""
    await fill(dsn, keys, TENANTS, PER_TENANT)
    before = await database.fetch("SELECT * FROM gateway.tokens ORDER BY 1")
    keyring.take(keyring.with_new_version())
    backend.wraps.clear()
    backend.unwraps.clear()
    job = Rewrap(keys, database, batch=8)
    assert (await job.begin()).total == len(TENANTS)
    told: list[int] = []
    ended = await run(job, lambda step: told.append(step.done))
    assert ended is not None
    assert told[:4] == [8, 16, 24, 30]
    assert (ended.done, ended.left, ended.broken) == (30, 0, 0)
    assert backend.wraps == backend.unwraps == [8, 8, 8, 6]
    assert await rewrap.under(database, 1) == 0
    keyring.take(keyring.without(1))
    assert await database.fetch("SELECT * FROM gateway.tokens ORDER BY 1") == before
    assert await all_open(database, TokenVault(fresh(database, backend))) == len(before)


async def test_a_rotation_goes_on_where_it_was_killed(
    database: Database, dsn: str, keys: DataKeys, keyring: Keyring, backend: Backend
) -> None:
    """In another process, from the last batch that was committed; `begin` finds it under way."""
    await fill(dsn, keys, TENANTS, 1)
    keyring.take(keyring.with_new_version())
    job = Rewrap(keys, database, batch=8)
    begun = await job.begin()
    await job.run_once()
    other = Rewrap(fresh(database, backend), database, batch=8)
    resumed = await other.begin()
    assert (resumed.began_at, resumed.done) == (begun.began_at, 8)
    ended = await run(other, lambda _: None)
    assert ended is not None
    assert (ended.done, ended.total) == (30, 30)


async def test_a_straggler_is_wrapped_too(
    database: Database, keys: DataKeys, keyring: Keyring, backend: Backend
) -> None:
    """A process that had not heard of the new version adds a key behind the walk's back."""
    behind = Backend(Keyring.__new__(Keyring))
    behind._keyring = keyring.with_new_version().with_current(1)
    await keys.for_sealing("m")
    keyring.take(behind._keyring.with_current(2))
    job = Rewrap(keys, database, batch=10)
    await job.begin()
    await job.run_once()
    await DataKeys(REGION, database, behind, FakeClock()).for_sealing("a")
    late = Rewrap(DataKeys(REGION, database, behind, FakeClock()), database)
    step = await late.run_once()
    assert step is not None
    assert step.waiting  # it seals under 1: it leaves the work to others
    ended = await run(job, lambda _: None)
    assert ended is not None
    assert (ended.done, ended.total) == (2, 2)
    assert await rewrap.left(database, 2) == 0


async def test_two_processes_may_rotate_at_once(
    database: Database, dsn: str, keys: DataKeys, keyring: Keyring, backend: Backend
) -> None:
    """Both kinds, four workers each: every row once in the count, and all of them open."""
    await fill(dsn, keys, TENANTS, PER_TENANT)
    keyring.take(keyring.with_new_version())
    await Rewrap(keys, database).begin()
    wraps = [Rewrap(fresh(database, backend), database, batch=3) for _ in range(4)]
    ended = await asyncio.gather(*(run(job, lambda _: None) for job in wraps))
    assert {(step.done, step.total) for step in ended if step is not None} == {(30, 30)}
    await Reseal(keys, database).begin()
    seals = [Reseal(fresh(database, backend), database, rows=7, names=5) for _ in range(4)]
    await asyncio.gather(*(to_the_end(database, job) for job in seals))
    done = await rotations.get(database, "data")
    assert done is not None
    assert (done.done, done.total) == (120, 120)
    assert await all_open(database, TokenVault(fresh(database, backend))) == 120


@dataclass
class Other:
    """A row of another table that is sealed under a data key."""

    table: str
    id: UUID
    text: str


async def add_others(database: Database, keys: DataKeys, tenant: str) -> list[Other]:
    key, session, task = await keys.for_sealing(tenant), ids.uuid7(NOW), ids.uuid7(NOW)
    await database.execute(
        """INSERT INTO gateway.connect_sessions (id, tenant_id, integration_id, connection_id, reconnects, profiles, asked, state,
             link_hash, created_at, expires_at) VALUES ($1, $2, $1, $1, false, '{}', '{}', 'returned', 'x', $3, $3)""",
        session, tenant, NOW,
    )  # fmt: skip
    await database.execute(
        "INSERT INTO gateway.staged_tokens VALUES ($1, 'reader', $2, $3, $4, $5, 0)", session, tenant, key.version,
        sealed_text(key, "staged", staged_place(REGION, tenant, session, "reader").aad("staged")), NOW,
    )  # fmt: skip
    await database.execute(
        """INSERT INTO gateway.closing_tasks (id, tenant_id, connection_id, access_profile, integration_id, data_key_version, sealed,
             due_at, until) VALUES ($1, $2, $1, 'reader', $1, $3, $4, $5, $5)""",
        task, tenant, key.version, sealed_text(key, "closing", closing_place(REGION, tenant, task, "reader").aad("closing")), NOW,
    )  # fmt: skip
    return [Other("staged_tokens", session, "staged"), Other("closing_tasks", task, "closing")]


async def test_new_data_keys_for_all_and_everything_sealed_anew(
    database: Database, dsn: str, keys: DataKeys, backend: Backend, clock: FakeClock
) -> None:
    """Tokens, staged and closing ones; generation and token version stay; the old data keys are deleted in the end."""
    await fill(dsn, keys, TENANTS, PER_TENANT)
    others = await add_others(database, keys, TENANTS[3])
    stays = "SELECT connection_id, access_profile, generation, token_version, issued_at FROM gateway.tokens ORDER BY 1"
    before, old = await database.fetch(stays), await database.fetch("SELECT * FROM gateway.data_keys")
    reader = TokenVault(fresh(database, backend))
    job = Reseal(keys, database, rows=10, names=4)
    assert (await job.begin()).total == 122
    steps = 0
    while (step := await job.run_once()) and not step.waiting:
        steps += 1
        if steps % 5 == 0:
            await all_open(database, reader)  # somewhere in the middle, with a memory of whatever age
    assert step is not None
    assert (step.done, step.position["step"]) == (122, "settle")
    assert await database.fetchval("SELECT count(*) FROM gateway.data_keys") == 60
    ended = await to_the_end(database, job)
    assert (ended.done, ended.broken) == (122, 0)
    assert await database.fetch(stays) == before
    left = await database.fetch("SELECT * FROM gateway.data_keys")
    assert len(left) == 30
    assert not {(row["tenant_id"], row["version"]) for row in left} & {
        (row["tenant_id"], row["version"]) for row in old
    }
    reader = TokenVault(fresh(database, backend))
    assert await all_open(database, reader) == 120
    for other in others:
        row = await database.fetchrow(f"SELECT * FROM gateway.{other.table}")  # noqa: S608 - ours
        assert row is not None
        key = (await reader.keys.for_opening([(row["tenant_id"], row["data_key_version"])]))[
            row["tenant_id"], row["data_key_version"]
        ]
        place = staged_place if other.table == "staged_tokens" else closing_place
        aad = place(REGION, row["tenant_id"], other.id, "reader").aad(other.text)  # type: ignore[arg-type]
        assert opened_text(key, row["sealed"], aad) == other.text


async def test_a_row_that_is_written_meanwhile_is_left_to_its_writer(
    database: Database, dsn: str, keys: DataKeys
) -> None:
    """Compare and swap: what a refresh stored between our read and our write stays, and is sealed anew by the next round."""
    [connection] = await fill(dsn, keys, ["acme"], 1)
    job = Reseal(keys, database)
    began = await job.begin()
    await job.run_once()
    old = (
        await database.fetch("SELECT tenant_id, version FROM gateway.data_keys WHERE created_at < $1", began.began_at)
    )[0]
    read = await database.fetch(sealed_tables.TOKENS.read, ["acme"], [old["version"]], UUID(int=0), "", 10)
    sealed = await job._sealed_anew(sealed_tables.TOKENS, read)
    key = (await keys.for_opening([("acme", old["version"])]))["acme", old["version"]]
    refreshed = place_of(REGION, {**read[0], "connection_id": connection, "token_version": 2})
    await database.execute(
        "UPDATE gateway.tokens SET token_version = 2, sealed_access = $1, sealed_refresh = NULL",
        sealed_text(key, "refreshed", refreshed.aad("access_token")),
    )
    async with database.transaction() as tx:
        assert await job._write(tx, sealed_tables.TOKENS, sealed) == 0
    ended = await to_the_end(database, job)
    assert ended.done == 1
    row: Any = await database.fetchrow("SELECT * FROM gateway.tokens")
    vault = TokenVault(keys)
    assert row["data_key_version"] > old["version"]
    assert (
        await vault.open(place_of(REGION, row), "access_token", row["data_key_version"], row["sealed_access"])
        == "refreshed"
    )


async def test_a_process_that_has_not_heard_seals_under_the_old_key_and_loses_nothing(
    database: Database, dsn: str, keys: DataKeys, backend: Backend, clock: FakeClock
) -> None:
    """For some seconds it believes the old version to be the newest; its row is found by the last round."""
    [connection] = await fill(dsn, keys, ["acme"], 1)
    other = fresh(database, backend)
    before = await other.for_sealing("acme")
    job = Reseal(keys, database)
    await job.begin()
    while (step := await job.run_once()) and not step.waiting:
        pass
    late = await TokenVault(other).seal(
        place_of(REGION, await database.fetchrow("SELECT * FROM gateway.tokens")),
        access_of(connection),
        refresh_of(connection),
    )
    assert late.data_key_version == before.version
    await database.execute(
        "UPDATE gateway.tokens SET sealed_access = $1, sealed_refresh = $2, data_key_version = $3",
        late.access, late.refresh, late.data_key_version,
    )  # fmt: skip
    assert (await to_the_end(database, job)).done == 2
    assert await all_open(database, TokenVault(fresh(database, backend))) == 1
    assert await database.fetchval("SELECT count(*) FROM gateway.data_keys") == 1
    other._clock.move(NEWEST_S)  # type: ignore[attr-defined]
    assert (await other.for_sealing("acme")).version > before.version


async def test_what_does_not_open_is_left_and_counted(
    database: Database, dsn: str, keys: DataKeys, keyring: Keyring, backend: Backend
) -> None:
    """A row and a wrapped key that were tampered with: everything else is rotated, their old data key stays."""
    made = await fill(dsn, keys, TENANTS[:3], 2)
    await database.execute("UPDATE gateway.tokens SET sealed_access = '' WHERE connection_id = $1", made[0])
    keys = fresh(database, backend)
    await Reseal(keys, database).begin()
    ended = await to_the_end(database, Reseal(keys, database))
    assert (ended.done, ended.broken) == (5, 1)
    assert await database.fetchval("SELECT count(*) FROM gateway.data_keys") == 4
    await database.execute("UPDATE gateway.data_keys SET wrapped = '' WHERE tenant_id = $1", TENANTS[1])
    keyring.take(keyring.with_new_version())
    job = Rewrap(fresh(database, backend), database)
    await job.begin()
    wrapped = await run(job, lambda _: None)
    assert wrapped is not None
    assert (wrapped.done, wrapped.broken) == (3, 1)
    assert await rewrap.under(database, 1) == 1


async def test_a_process_that_serves_takes_up_what_stands_still(
    database: Database, dsn: str, keys: DataKeys, keyring: Keyring, backend: Backend
) -> None:
    """A rotation whose process was killed is gone on with; one that moves is left alone."""
    await fill(dsn, keys, TENANTS, 1)
    keyring.take(keyring.with_new_version())
    await Rewrap(keys, database).begin()
    upkeep = VaultUpkeep(fresh(database, backend), database)
    await upkeep.run_once()
    assert await rewrap.left(database, 2) == 30
    assert metrics.KEY_ROTATION_LEFT.labels(REGION, "wrap")._value.get() == 30
    await pass_time(database, rotations.IDLE_S + 1)
    await upkeep.run_once()
    assert metrics.KEY_ROTATION_LEFT.labels(REGION, "wrap")._value.get() == 0
    assert await rewrap.left(database, 2) == 0


@pytest.mark.parametrize("killed_after", range(1, 14))
async def test_a_data_rotation_may_be_cut_anywhere(
    database: Database, dsn: str, keys: DataKeys, backend: Backend, killed_after: int
) -> None:
    """After any step another process ends it, and every row is sealed anew once."""
    await fill(dsn, keys, TENANTS[:6], 2)
    first = Reseal(keys, database, rows=3, names=2)
    await first.begin()
    for _ in range(killed_after):
        await first.run_once()
    second = Reseal(fresh(database, backend), database, rows=3, names=2)
    await second.begin()
    ended = await to_the_end(database, second)
    assert (ended.done, ended.total) == (12, 12)
    assert await database.fetchval("SELECT count(*) FROM gateway.data_keys") == 6
    assert await all_open(database, TokenVault(fresh(database, backend))) == 12
