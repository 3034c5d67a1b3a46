"""The spool's folder: nothing in it is lost, nothing in it can be read, and nothing that lies there makes a process stumble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from gateway import ids
from gateway.tokens.spool import ASIDE, Spool, Waiting, under
from gateway.tokens.spooled import MOST_BYTES, Entry
from gateway.vault.keyring import Keyring, generate
from gateway.vault.tokens import Place
from providers.oauth import TokenSet
from tests.flows.house import metric

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
Make = Callable[..., Spool]


def entry(version: int = 1, *, region: str = "default", came_at: datetime = NOW) -> Entry:
    tokens = TokenSet(
        access_token="the-access-token", refresh_token="the-refresh-token", expires_in_s=3600, scopes=frozenset("ab"),
    )  # fmt: skip
    place = Place(region, "acme", ids.uuid7(NOW), "reader", 2, version)
    return Entry(
        place=place, integration_id=ids.uuid7(NOW), tokens=tokens, refresh_token="the-refresh-token", came_at=came_at,
        came_by_database=came_at, asked_s=0.25, holder=ids.uuid7(NOW), fence=7,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spool"


@pytest.fixture
async def make(folder: Path, keyring: Keyring) -> AsyncIterator[Make]:
    """Spools of processes that share the folder."""
    made: list[Spool] = []

    def new(process: UUID | None = None, keys: Keyring = keyring, region: str = "default") -> Spool:
        made.append(Spool(folder, {region: keys}, process or ids.uuid7(NOW)))
        return made[-1]

    yield new
    for one in made:
        await one.close()


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock" and file.is_file())


async def test_what_is_put_is_there_until_it_is_removed(make: Make, folder: Path) -> None:
    """Every field comes back; the oldest first."""
    spool = make()
    await spool.open()
    late, early = entry(2), entry(1, came_at=NOW - timedelta(minutes=1))
    early = replace(early, tokens=replace(early.tokens, refresh_token=None, scopes=None))
    names = [await spool.put(late), await spool.put(early)]
    assert [found for _, found in await spool.entries()] == [early, late]
    assert await spool.waiting() == Waiting(True, 2, early.came_at)
    assert (await spool.waiting()).age_s(NOW) == 60
    for name in names:
        assert name is not None
        await spool.remove(name)
    assert (await spool.entries(), files(folder)) == ([], [])


async def test_nobody_else_reads_it(make: Make, folder: Path) -> None:
    """Sealed, 0600 in a folder of 0700; no repr shows a token."""
    spool = make()
    name = await spool.put(entry())
    assert name is not None
    data = (folder / name).read_bytes()
    assert b"the-access-token" not in data
    assert b"the-refresh-token" not in data
    assert ((folder / name).stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "the-" not in repr(await spool.entries())


DAMAGE: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("empty", lambda data: b""),
    ("cut short", lambda data: data[:-1]),
    ("no seal", lambda data: data[: data.rindex(b"}") + 2]),
    ("another version", lambda data: data.replace(b'"version":1', b'"version":2')),
    ("another tenant", lambda data: data.replace(b'"acme"', b'"emca"')),
    ("another connection", lambda data: data.replace(b'"connection":"0', b'"connection":"1')),
    ("another region", lambda data: data.replace(b'"default"', b'"elsewhere"')),
    ("a bit", lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]),
    ("not ours", lambda data: b"\x7fELF" + data),
    ("no object", lambda data: b'posthouse spool 1\n["region"]\n'),
    ("odd parts", lambda data: data.replace(b'"acme"', b"17")),
    ("not JSON", lambda data: data.replace(b"{", b"[", 1)),
    ("too long", lambda data: data + bytes(MOST_BYTES)),
]


@pytest.mark.parametrize("damage", [how for _, how in DAMAGE], ids=[name for name, _ in DAMAGE])
async def test_what_does_not_open_is_set_aside_and_hides_nothing(
    make: Make, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Not lost: it lies where an operator finds it, byte for byte. The others are read as always."""
    spool = make()
    name, whole = await spool.put(entry()), await spool.put(entry(5))
    assert name is not None
    damaged = damage((folder / name).read_bytes())
    assert damaged != (folder / name).read_bytes()
    (folder / name).write_bytes(damaged)
    assert [found for found, _ in await spool.entries()] == [whole]
    assert (folder / ASIDE / name).read_bytes() == damaged
    assert files(folder) == [whole]


async def test_another_deployments_files_are_set_aside(make: Make, folder: Path) -> None:
    """And once its keyring is there again, they are put back and open."""
    theirs = make(keys=generate())
    name = await theirs.put(entry())
    assert name is not None
    await theirs.close()
    assert await make().entries() == []
    (folder / ASIDE / name).rename(folder / name)
    assert len(await theirs.entries()) == 1


async def test_a_key_that_something_lies_under_is_known(make: Make, folder: Path, keyring: Keyring) -> None:
    """Before a version leaves the keyring, somebody asks: also for what was set aside."""
    await make().put(entry())
    keyring.take(keyring.with_new_version())
    newer = make()
    name = await newer.put(entry())
    assert name is not None
    (folder / ASIDE).mkdir()
    (folder / name).rename(folder / ASIDE / name)
    (folder / "odd.spool").write_bytes(b"odd")
    assert [under(folder, version) for version in (1, 2, 3)] == [1, 1, 0]
    assert under(folder / "nowhere", 1) == 0


async def test_what_is_none_of_ours_is_let_lie(make: Make, folder: Path) -> None:
    spool = make()
    await spool.open()
    (folder / "lost+found").mkdir()
    (folder / "notes.txt").write_text("hands off")
    assert await spool.entries() == []
    assert (folder / "notes.txt").exists()


async def test_the_living_write_their_own_and_the_dead_leave_theirs(make: Make, folder: Path) -> None:
    """One of those that live takes a dead process's entries over; nobody takes a living one's."""
    dead, first, second = make(), make(), make()
    for spool in (dead, first, second):
        await spool.open()
    name = await dead.put(entry())
    assert name is not None
    assert (await first.entries(), await second.entries()) == ([], [])
    await dead.close()  # as its end does
    assert [found for found, _ in await first.entries()] == [name]
    assert await second.entries() == []
    await first.remove(name)
    assert (await first.entries(), await second.entries()) == ([], [])
    assert len(list(folder.glob("*.lock"))) == 2  # the dead one's is cleared away


async def test_whoever_took_over_may_die_too(make: Make) -> None:
    dead, first, second = make(), make(), make()
    name = await dead.put(entry())
    await dead.close()
    assert len(await first.entries()) == 1
    await first.close()
    assert [found for found, _ in await second.entries()] == [name]


async def test_a_draft_that_is_whole_counts(make: Make, folder: Path) -> None:
    """It died before the file had its name. Half a draft is set aside."""
    dead, heir = make(), make()
    names = [await dead.put(entry(1)), await dead.put(entry(2))]
    await dead.close()
    for name, cut in zip(names, (None, -30), strict=True):
        assert name is not None
        (folder / f"{name}.new").write_bytes((folder / name).read_bytes()[:cut])
        (folder / name).unlink()
    assert [found.place.version for _, found in await heir.entries()] == [1]
    assert (folder / ASIDE / f"{names[1]}.new").exists()


async def test_another_regions_entries_wait_for_a_process_that_serves_it(make: Make, keyring: Keyring) -> None:
    dead, elsewhere = make(region="eu"), make()
    await dead.put(entry(region="eu"))
    await dead.close()
    assert await elsewhere.entries() == []
    assert (await elsewhere.waiting()).entries == 0
    assert len(await make(region="eu").entries()) == 1


async def test_a_disk_that_refuses_stops_nobody(make: Make, folder: Path) -> None:
    """It is said in the log and counted; whoever has the token set goes on with it in memory."""
    folder.parent.mkdir(parents=True)
    folder.write_text("no folder at all")
    before = metric("posthouse_spool_failures_total")
    spool = make()
    await spool.open()
    assert await spool.put(entry()) is None
    assert metric("posthouse_spool_failures_total") == before + 1
    assert await spool.entries() == []
    assert await spool.waiting() == Waiting(False, 0, None)
    await spool.remove("nothing")
    folder.unlink()
    assert await spool.put(entry()) is not None  # it has come back
    assert len(await spool.entries()) == 1


async def test_many_at_once(make: Make) -> None:
    """Every one of them, under a name of its own."""
    spool = make()
    names = await asyncio.gather(*(spool.put(entry(version)) for version in range(40)))
    assert len(set(names)) == 40
    assert {found.place.version for _, found in await spool.entries()} == set(range(40))


def test_how_long_it_has_waited_is_told_by_the_regions_clock() -> None:
    """Two processes' clocks differ; none of it makes a token live longer than it does."""
    known = replace(entry(came_at=NOW + timedelta(days=1)), came_by_database=NOW - timedelta(seconds=30))
    assert known.waited_s(NOW) == 30
    assert known.waited_s(NOW - timedelta(minutes=1)) == 0
