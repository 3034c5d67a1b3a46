"""Making the data directory and starting the server on it: plain blocking code, run in a thread by `server`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from gateway.embedded import binaries
from gateway.embedded.binaries import Identity
from gateway.embedded.folder import DATABASE, EmbeddedUnavailable, Folder
from gateway.embedded.identity import settle
from gateway.embedded.settings import server_settings

_INITDB = (
    f"-U {DATABASE} -A trust -E UTF8 --no-locale --locale-provider=builtin --builtin-locale=C.UTF-8 --no-instructions"
)


def launch(folder: Folder, settings: Mapping[str, str]) -> int:
    """Start PostgreSQL on the folder, with new data where there is none; it is not ready yet when this returns.

    Returns how long the log was before. Raises: EmbeddedUnavailable; OSError, the disk's own trouble.
    """
    lock = folder.hold_for_postgres()
    if lock is None:
        raise EmbeddedUnavailable(f"another PostgreSQL has just started on {folder.path}; try again")
    try:
        identity, version = settle(folder)
        for unfinished in folder.home.glob("data.new*"):
            shutil.rmtree(unfinished)
        if not folder.data.exists():
            _initialise(folder, identity, lock, sync=settings.get("fsync") != "off")
        _same_major(folder, version)
        folder.forget_stale_pid()
        folder.turn_log()
        return _detach(folder, identity, lock, settings)
    finally:
        os.close(lock)  # PostgreSQL has inherited it


def _initialise(folder: Folder, identity: Identity, lock: int, *, sync: bool) -> None:
    """`initdb` beside its place, then one rename: a start cut short leaves no half-made data."""
    new = folder.home / "data.new"
    command = [identity.program("initdb"), "-D", str(new), *_INITDB.split(), *([] if sync else ["--no-sync"])]
    binaries.run(identity, folder.home, command, timeout_s=300, lock=lock)
    new.rename(folder.data)
    directory = os.open(folder.home, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _same_major(folder: Folder, version: str) -> None:
    try:
        made_by = (folder.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise EmbeddedUnavailable(f"{folder.data} is not a PostgreSQL data directory; move it away") from None
    if made_by != version.partition(".")[0]:
        raise EmbeddedUnavailable(
            f"{folder.data} was made by PostgreSQL {made_by} and this is {version}: dump it with the posthouse that "
            "made it and load it into a new folder, or go back to that version"
        )


def _detach(folder: Folder, identity: Identity, lock: int, settings: Mapping[str, str]) -> int:
    socket_dir = folder.socket_dir(identity.owner, identity.group)
    chosen = server_settings(str(socket_dir), settings)
    arguments = [argument for name, value in chosen.items() for argument in ("-c", f"{name}={value}")]
    command = [identity.program("postgres"), "-D", str(folder.data), *arguments]
    with os.fdopen(os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        since = os.fstat(log.fileno()).st_size
        binaries.detach(identity, folder.home, command, lock=lock, log=log)
    return since
