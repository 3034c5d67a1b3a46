"""The spool: a folder for token sets that came while nobody could write them down.

A refresh token that was rotated may be the only one that still works, and it is in one process's memory: what is put here
outlives that. One sealed file a token set, named after the process that got it; several processes share a folder.

    <process>-<id>.<region>.spool    an entry (`spooled.py`), there under its name once it is whole and on the disk
    <process>.lock                   held by that process for as long as it lives (`spool_locks.py`)
    set-aside/                       what is no entry of ours, or none that opens: for an operator, never deleted

Files of a dead process are anybody's, and its lock says whose turn it is. That saves work and nothing more: an entry is
written by compare-and-swap on generation and version (`draining.py`), so to write one twice changes nothing, and one that
is overtaken is dropped.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from uuid import UUID

import structlog

from gateway import ids, metrics
from gateway.tokens import spooled
from gateway.tokens.spool_locks import Locks
from gateway.tokens.spooled import Entry, Unreadable
from gateway.vault.keyring import Keyring

ENTRY = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})\.([^/]+)\.spool(\.new)?")  # `.new`: of one that died while it wrote
ASIDE = "set-aside"

log = structlog.get_logger(__name__)


def under(folder: Path, version: int) -> int:
    """How many entries on this machine are sealed under a version of the keyring: without it they are lost."""
    found = 0
    for file in folder.glob("**/*.spool*"):
        try:
            found += spooled.version_of(_bytes(file)) == version
        except (OSError, Unreadable):
            pass
    return found


@dataclass(frozen=True, slots=True)
class Waiting:
    """What lies there to be written by this process."""

    usable: bool  # the folder is there and takes files
    entries: int
    oldest: datetime | None  # when the oldest came, by the clock of the process that got it

    def age_s(self, now: datetime) -> float:
        return 0.0 if self.oldest is None else max(0.0, (now - self.oldest).total_seconds())


class Spool:
    """The spool as one process sees it. Nothing here raises for a disk that refuses: the token set is in memory still."""

    def __init__(self, folder: Path, keyrings: Mapping[str, Keyring], process: UUID) -> None:
        """`keyrings`: by region, of those that this process serves."""
        self._folder, self._keyrings, self._process = folder, keyrings, process.hex
        self._locks = Locks(folder)
        self._said: str | None = None  # what is wrong with the folder
        self._turn = Lock()  # of threads that look at the folder

    async def open(self) -> None:
        """Make the folder, and hold this process's lock. One that cannot be is an error in the log; `doctor` says more."""
        await asyncio.to_thread(self._open)

    async def close(self) -> None:
        """Let go of the locks: what is left is whoever's who comes next."""
        await asyncio.to_thread(self._close)

    async def put(self, entry: Entry) -> str | None:
        """Write it down, on the disk; its name for `remove`, or None where that failed (said in the log and a metric)."""
        return await asyncio.to_thread(self._put, entry)

    async def remove(self, name: str) -> None:
        """It is written where it belongs, or is of no use any more."""
        await asyncio.to_thread(self._remove, name)

    async def entries(self) -> list[tuple[str, Entry]]:
        """What this process is to write: its own and dead processes', the oldest first. What does not open is set aside."""
        return await asyncio.to_thread(self._entries)

    async def waiting(self) -> Waiting:
        """How much that is, without opening any."""
        return await asyncio.to_thread(self._waiting)

    def _open(self) -> None:
        try:
            with self._turn:
                self._locks.take(self._process)
        except OSError as error:
            self._unusable(error)

    def _close(self) -> None:
        with self._turn:
            try:
                left = {whose for whose, _ in self._names()}
            except OSError:
                left = set(self._locks.held)
            for whose in self._locks.held:
                self._locks.let_go(whose, over=whose not in left)

    def _put(self, entry: Entry) -> str | None:
        name = f"{self._process}-{ids.uuid7(entry.came_at).hex}.{entry.place.region}.spool"
        try:
            data = spooled.written(entry, self._keyrings[entry.place.region])
            self._open()
            _write(self._folder, name, data)
        except Exception as error:  # never the caller's trouble: it goes on in memory
            why = error.strerror if isinstance(error, OSError) else type(error).__name__
            metrics.SPOOL_FAILURES.inc()
            log.error("spool.unwritten", folder=str(self._folder), error=why, hint="see `posthouse doctor`")
            return None
        log.warning("spool.put", file=name, connection=str(entry.place.connection), profile=entry.place.profile)
        return name

    def _remove(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
            _settle(self._folder)
        except OSError as error:  # it will be found to be overtaken
            log.warning("spool.not_removed", file=name, error=error.strerror)

    def _entries(self) -> list[tuple[str, Entry]]:
        with self._turn:
            found = [(name, self._read(name)) for name in self._ours()]
        return [(name, entry) for name, entry in found if entry is not None]

    def _waiting(self) -> Waiting:
        with self._turn:
            came = [int(shape[2][:12], 16) for name in self._ours() if (shape := ENTRY.fullmatch(name)) is not None]
        usable = self._folder.is_dir() and os.access(self._folder, os.W_OK | os.X_OK)
        return Waiting(usable, len(came), datetime.fromtimestamp(min(came) / 1000, UTC) if came else None)

    def _ours(self) -> list[str]:
        """Names of our own entries and of dead processes', the oldest first; locks that are over are cleared away."""
        try:
            of: dict[str, list[str]] = {}
            for whose, name in self._names():
                of.setdefault(whose, []).append(name)
            for whose in {*of, *self._locks.known()} - {self._process}:
                if self._locks.take(whose) and whose not in of:
                    self._locks.let_go(whose, over=True)
        except OSError as error:
            self._unusable(error)
            return []
        self._said = None
        ours = [name for whose, names in of.items() if whose == self._process or whose in self._locks for name in names]
        return sorted(ours, key=lambda name: name.partition("-")[2])

    def _unusable(self, error: OSError) -> None:
        if error.strerror != self._said:  # once, until it is another trouble or none
            log.error("spool.unusable", folder=str(self._folder), error=error.strerror, hint="see `posthouse doctor`")
            self._said = error.strerror

    def _names(self) -> Iterator[tuple[str, str]]:
        """Entries of our regions, and whose they are. A draft of our own is being written."""
        for file in self._folder.iterdir():
            shape = ENTRY.fullmatch(file.name)
            if shape is not None and shape[3] in self._keyrings and not (shape[4] and shape[1] == self._process):
                yield shape[1], file.name

    def _read(self, name: str) -> Entry | None:
        try:
            data = _bytes(self._folder / name)
            keyring = self._keyrings.get(spooled.region_of(data))
            if keyring is None:
                raise Unreadable("it says another region than its name does")
            return spooled.read(data, keyring)
        except FileNotFoundError:
            pass  # whoever it was of is quicker
        except OSError as error:
            log.error("spool.unreadable", file=name, error=error.strerror)
        except Unreadable as error:
            self._set_aside(name, str(error))
        return None

    def _set_aside(self, name: str, why: str) -> None:
        try:
            aside = self._folder / ASIDE
            aside.mkdir(mode=0o700, exist_ok=True)
            (self._folder / name).rename(aside / name)
            _settle(aside)
        except OSError as error:
            log.error("spool.not_set_aside", file=name, why=why, error=error.strerror)
        else:
            log.error("spool.set_aside", file=name, folder=str(aside), why=why, hint="put it back once that is mended")


def _write(folder: Path, name: str, data: bytes) -> None:
    """A new file that only its owner reads, on the disk before it has its name, and its name on the disk.    Raises: OSError."""
    draft = folder / f"{name}.new"
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        draft.rename(folder / name)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _settle(folder)


def _settle(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes(file: Path) -> bytes:
    """Raises: OSError; Unreadable, no entry is so long."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW), "rb") as opened:
        data = opened.read(spooled.MOST_BYTES + 1)
    if len(data) > spooled.MOST_BYTES:
        raise Unreadable("no entry is so long")
    return data
