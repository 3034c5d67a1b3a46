"""How a process that serves learns of a changed keyring: it looks at the file, once a second and at every unknown version.

A keyring in the environment does not change while a process runs; then there is nothing to look at. A file that is
broken, gone, or another deployment's changes nothing here: the keys in memory go on, and the log says so.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from gateway.errors import SetupError
from gateway.settings import Settings
from gateway.vault import files, keyring
from gateway.vault.keyring import Keyring

log = structlog.get_logger(__name__)

EVERY_S = 1.0

Signature = tuple[int, int, int]


class KeyringWatch:
    """Keeps one process's keyring as its file is."""

    def __init__(self, keys: Keyring, settings: Settings) -> None:
        self._keys, self._settings = keys, settings
        self._path: Path | None = None if settings.keyring is not None else files.path(settings)
        self._seen: Signature | None = None  # None: the next look reads; the file may have changed since `load`
        keys.when_unknown = self.look

    def look(self) -> None:
        """Take the file's keys over if it changed since the last look."""
        if self._path is None:
            return
        signature = _signature(self._path)
        if signature == self._seen:
            return
        self._seen = signature
        before = self._keys.current, self._keys.versions
        try:
            self._keys.take(keyring.load(self._settings))
        except SetupError as error:
            log.error("keyring.unusable", path=str(self._path), why=str(error), going_on_with=self._keys.current)
            return
        after = self._keys.current, self._keys.versions
        if after != before:
            log.info("keyring.changed", current=after[0], versions=list(after[1]))


def _signature(path: Path) -> Signature:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)  # gone: read once more, which says why, and then only when it is back
    return found.st_ctime_ns, found.st_ino, found.st_size
