"""A database that was put back to an earlier point: no cursor from after that point is believed.

From a dump, the rows lie elsewhere: the identity says so, and a new epoch is drawn. Recovered to a point in time, or a
promoted standby: the timeline says so. By a copy of the files nothing in the database says anything; only what a
cursor remembers of its event does.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.database import Database
from gateway.embedded import EmbeddedPostgres, start
from gateway.embedded.binaries import installed
from gateway.errors import CursorGone, Invalid
from gateway.migrate import migrate_for_tests
from gateway.stream import consumers
from gateway.stream.consumers import Commit
from gateway.stream.cursor import Cursor, parse
from gateway.stream.epoch import look
from gateway.stream.read import Event, Filter, latest, read
from gateway.stream.upkeep import Upkeep
from tests import postgres
from tests.stream.making import event, everything, keep

SMALL = {"shared_buffers": "16MB", "fsync": "off", "full_page_writes": "off"}


async def run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode(errors="replace")


async def dump(dsn: str, into: Path, *options: str) -> None:
    await run(str(installed() / "pg_dump"), "--format=plain", f"--file={into}", *options, f"--dbname={dsn}")
    # A dump by 18's program sets what 15 does not know; the test may run on either.
    into.write_text(into.read_text().replace("SET transaction_timeout = 0;\n", ""))


async def load(dsn: str, dumped: Path) -> None:
    program, quiet = str(installed() / "psql"), ("--quiet", "--no-psqlrc", "--output=/dev/null")
    await run(program, *quiet, "--set=ON_ERROR_STOP=1", f"--file={dumped}", f"--dbname={dsn}")


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def epoch(database: Database) -> int:
    async with database.acquire() as db:
        return (await look(db)).epoch


async def cursor_at(database: Database, one: Event) -> Cursor:
    return parse(str(one.cursor(await epoch(database))))


async def told(database: Database, cursor: Cursor) -> Cursor:
    """That `cursor` is refused; the way on that comes with it."""
    async with database.acquire() as db:
        with pytest.raises(CursorGone) as refused:
            await read(db, cursor, Filter(), 10)
    return parse(str(refused.value.extra["earliest"]))


def data(events: Sequence[Event]) -> list[bytes]:
    return [one.data for one in events]


async def test_a_dump_loaded_into_a_new_database(
    database: Database, template: postgres.Template, tmp_path: Path
) -> None:
    """Every older cursor is told, those from before the dump too; what was dumped is there, and the log goes on."""
    await keep(database, *(event(b"%d" % n) for n in range(3)))
    [held, *_] = await consumers.lease(database, "c", "w", 60)
    last = await latest_of(database)
    await consumers.commit(database, "c", [Commit(held.partition, held.fence, last)])
    await dump(database.dsn, tmp_path / "dump.sql")
    lost = [event(b"lost %d" % n) for n in range(3)]
    await keep(database, *lost)
    log = await everything(database)
    cursors = [await cursor_at(database, one) for one in log]

    copies = [await template.server.create(f"{template.name}_copy{n}") for n in range(2)]
    try:
        for copy in copies:
            await load(copy, tmp_path / "dump.sql")
        async with opened(copies[0]) as restored, opened(copies[1]) as twin:
            ways_on = [await told(restored, cursor) for cursor in cursors]
            assert len(set(ways_on)) == 1
            assert data(await everything(restored, after=ways_on[0])) == [b"0", b"1", b"2"]
            assert len({await epoch(database), await epoch(restored), await epoch(twin)}) == 3

            # A consumer goes on where it was when the dump was made; its workers' old words count for nothing.
            [held, *_] = await consumers.lease(restored, "c", "w", 60)
            assert (held.cursor.seq, held.cursor.epoch) == (3, await epoch(restored))
            with pytest.raises(CursorGone):
                await consumers.commit(restored, "c", [Commit(held.partition, held.fence, cursors[1])])

            # What the provider sends again is a duplicate where it is there, and is kept where it was lost.
            again = await keep(restored, event(b"0", key=log[0].id), *lost)
            assert [one.duplicate for one in again] == [True, False, False, False]
            assert data(await everything(restored)) == [b"0", b"1", b"2", b"lost 0", b"lost 1", b"lost 2"]
            assert [await told(restored, cursor) for cursor in cursors] == ways_on
    finally:
        for number in range(2):
            await template.server.drop(f"{template.name}_copy{number}")


async def latest_of(database: Database) -> Cursor:
    async with database.acquire() as db:
        return await latest(db)


async def test_a_dump_loaded_over_the_same_database(database: Database, tmp_path: Path) -> None:
    """`--clean` into the database it came from: the same name and server, and another log all the same."""
    await keep(database, event(b"0"))
    await dump(database.dsn, tmp_path / "dump.sql", "--clean", "--if-exists")
    await keep(database, event(b"lost"))
    before, log = await epoch(database), await everything(database)
    cursors = [await cursor_at(database, one) for one in log]
    await load(database.dsn, tmp_path / "dump.sql")
    async with opened(database.dsn) as restored:
        assert await epoch(restored) != before
        for cursor in cursors:
            await told(restored, cursor)
        assert data(await everything(restored)) == [b"0"]


async def test_an_old_dump_is_made_fit_for_today(
    database: Database, template: postgres.Template, tmp_path: Path
) -> None:
    """A dump of a month ago has no partition for today; upkeep, which runs at each start, makes it."""
    await keep(database, event(b"old"))
    await dump(database.dsn, tmp_path / "dump.sql")
    name = f"{template.name}_old"
    dsn = await template.server.create(name)
    try:
        await load(dsn, tmp_path / "dump.sql")
        async with opened(dsn) as restored:
            await restored.execute("UPDATE gateway.clock SET shifted_by = $1", timedelta(days=30))
            await Upkeep(restored, 7).run_once()
            [kept] = await keep(restored, event(b"new"))
            assert kept.seq == 2
            assert data(await everything(restored)) == [b"new"]
    finally:
        await template.server.drop(name)


async def test_all_who_look_at_once_agree_on_the_new_epoch(template: postgres.Template) -> None:
    """A clone of a database is a log of its own; however many processes find that out at once, it has one epoch."""
    async with template.cloned() as dsn, opened(dsn) as database:
        connections = [await database.connect() for _ in range(8)]
        try:
            found = await asyncio.gather(*(look(connection) for connection in connections))
        finally:
            for connection in connections:
                await connection.close()
        assert len({log.epoch for log in found}) == 1
        assert {await epoch(database) for _ in range(3)} == {found[0].epoch}


class Files:
    """A server of the test's own, whose data folder is copied and put back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data, self._copy = folder / "postgres" / "data", folder / "copy"

    @asynccontextmanager
    async def running(self, settings: dict[str, str] | None = None) -> AsyncIterator[Database]:
        server: EmbeddedPostgres = await start(self.folder, settings=SMALL | (settings or {}))
        try:
            async with opened(server.dsn) as database:
                yield database
        finally:
            await server.stop()

    async def copy(self) -> None:
        await run("cp", "-a", str(self._data), str(self._copy))

    async def put_back(self) -> None:
        await run("rm", "-rf", str(self._data))
        await run("cp", "-a", str(self._copy), str(self._data))

    def recover_to_a_point(self) -> None:
        """Ask for archive recovery at the next start: it ends at once, on a new timeline."""
        signal = self._data / "recovery.signal"
        signal.touch()
        owner = self._data.stat()
        subprocess.run(["chown", f"{owner.st_uid}:{owner.st_gid}", str(signal)], check=True)


async def test_the_files_are_put_back(tmp_path: Path) -> None:
    """Nothing in the database has changed but what is missing: cursors beyond it are told, also when it has grown again.

    A cursor that both logs have in common stays good: nothing after it is missing for its reader.
    """
    files = Files(tmp_path / "ph")
    async with files.running() as database:
        await migrate_for_tests(database.dsn)
        await keep(database, *(event(b"%d" % n) for n in range(3)))
        await consumers.lease(database, "c", "w", 3600)
        before = await epoch(database)
    await files.copy()
    async with files.running() as database:
        await keep(database, *(event(b"lost %d" % n) for n in range(3)))
        log = await everything(database)
        cursors = [await cursor_at(database, one) for one in log]
        [held, *_] = await consumers.lease(database, "c", "w", 3600)
    await files.put_back()

    async with files.running() as database:
        assert await epoch(database) == before, "this case is the one that an epoch cannot tell"
        assert data(await everything(database)) == [b"0", b"1", b"2"]
        for cursor in cursors[3:]:  # beyond the end
            way_on = await told(database, cursor)
            assert data(await everything(database, after=way_on)) == [b"0", b"1", b"2"]
            with pytest.raises(Invalid):
                await consumers.commit(database, "c", [Commit(held.partition, held.fence, cursor)])

        await keep(database, *(event(b"new %d" % n) for n in range(5)))
        grown = await everything(database)
        assert [one.seq for one in grown[:6]] == [one.seq for one in log]
        for cursor in cursors[3:]:  # other events stand there now
            await told(database, cursor)
            with pytest.raises(CursorGone):
                await consumers.commit(database, "c", [Commit(held.partition, held.fence, cursor)])
        for place, cursor in enumerate(cursors[:3]):
            assert await everything(database, after=cursor) == grown[place + 1 :]
        assert {one.cursor.seq for one in await consumers.lease(database, "c", "w", 3600)} == {0}

    files.recover_to_a_point()
    async with files.running({"restore_command": "false", "hot_standby": "off"}) as database:
        assert await epoch(database) != before, "a new timeline is a new epoch"
        for cursor in cursors:
            await told(database, cursor)
        await keep(database, event(b"goes on"))
        assert data(await everything(database))[-1] == b"goes on"


async def test_files_put_back_a_page_at_a_time(database: Database) -> None:
    """Every page's cursor carries a mark, filtered or empty ones too, so a reader that saw nothing is told as well."""
    await keep(database, *(event(b"%d" % n) for n in range(10)))
    nothing = Filter(types=("no.such",))
    async with database.acquire() as db:
        start = Cursor(await epoch(database), 0)
        page = await read(db, start, nothing, 5)
        assert (list(page.events), page.next.seq) == ([], 10)
        idle = await read(db, page.next, nothing, 5)
        assert idle.next.mark == page.next.mark == (await latest(db)).mark
        await db.execute("UPDATE gateway.events SET id = gen_random_uuid()")  # as if others had come in their place
    await told(database, idle.next)
