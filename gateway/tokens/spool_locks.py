"""Which processes that share a folder live: each holds a file of its own there by `flock`, which the system ends with it."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

LOCK = re.compile(r"([0-9a-f]{32})\.lock")


class Locks:
    """Those that this process holds: its own, and those of dead ones whose heir it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}  # by process: open files, locked

    def __contains__(self, whose: str) -> bool:
        return whose in self._held

    @property
    def held(self) -> list[str]:
        return list(self._held)

    def known(self) -> list[str]:
        """Processes that have a lock there, held or not.    Raises: OSError."""
        return [shape[1] for file in self._folder.iterdir() if (shape := LOCK.fullmatch(file.name)) is not None]

    def take(self, whose: str) -> bool:
        """Have that process's lock; False: it lives, or has another heir. The folder is made.    Raises: OSError."""
        path = self._folder / f"{whose}.lock"
        while whose not in self._held:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_there(path, opened):
                    self._held[whose], opened = opened, -1
            except BlockingIOError:
                return False
            finally:
                if opened >= 0:
                    os.close(opened)
        return True

    def let_go(self, whose: str, *, over: bool) -> None:
        """`over`: nobody needs it any more."""
        if over:
            try:
                (self._folder / f"{whose}.lock").unlink(missing_ok=True)  # while it is held
            except OSError:
                pass  # the next finds it, and nothing beside it
        os.close(self._held.pop(whose))


def _is_there(path: Path, opened: int) -> bool:
    """Somebody may have cleared it away between its opening and its locking: then it is the lock of nothing."""
    try:
        there, mine = path.stat(), os.fstat(opened)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
