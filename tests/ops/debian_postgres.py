"""Another PostgreSQL than the embedded one: Debian's, with TLS. For what the embedded wheel (18, no TLS) cannot show."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "40",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
}


@dataclass(frozen=True)
class Server:
    """A running server: superuser `postgres`, trusted over the socket in `folder`, and over TCP as `hba` says."""

    folder: Path
    port: int

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}"


def binaries() -> Path | None:
    """The newest PostgreSQL of the machine, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


def _unprivileged() -> list[str]:
    """PostgreSQL refuses root: the way to another uid, empty for those who are not root."""
    if os.getuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


@contextmanager
def running(
    bin_folder: Path, port: int, *, files: Mapping[str, str] | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server on a fresh cluster for the length of the block.

    `files` lie in its folder, readable by it alone; in values of `settings` that folder is `{folder}`.
    """
    folder = Path(tempfile.mkdtemp(prefix="ph-pg-"))
    prefix = _unprivileged()
    try:
        for name, text in (files or {}).items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        if prefix:
            nobody = pwd.getpwnam("nobody")
            for path in (folder, *folder.iterdir()):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        data = folder / "data"
        initdb = [str(bin_folder / "initdb"), f"--pgdata={data}", "--username=postgres", "--auth=trust", "--no-sync"]
        subprocess.run([*prefix, *initdb], check=True, capture_output=True, cwd=folder)
        chosen = {**SETTINGS, "unix_socket_directories": folder, "port": port, **dict(settings or {})}
        with (data / "postgresql.conf").open(
            "a"
        ) as configuration:  # not as arguments, which ALTER SYSTEM cannot change
            configuration.writelines(
                f"{name} = '{str(value).format(folder=folder)}'\n" for name, value in chosen.items()
            )
        command = [*prefix, str(bin_folder / "postgres"), "-D", str(data)]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(bin_folder, folder, port)
            yield Server(folder, port)
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(bin_folder: Path, folder: Path, port: int) -> None:
    """Until it takes connections: pg_isready tries once a call, we try for 20 s."""
    for _ in range(200):
        ready = subprocess.run(
            [str(bin_folder / "pg_isready"), "-q", "-h", str(folder), "-p", str(port), "-t", "1"], check=False
        )
        if ready.returncode == 0:
            return
        time.sleep(0.05)  # a server starting tells nobody
    raise AssertionError("PostgreSQL did not start")
