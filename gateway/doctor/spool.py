"""The spool's folder: can it be written, does it outlive the machine's or the container's end, and what lies there."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from gateway.doctor.finding import Finding
from gateway.settings import Settings

# What lies on these is gone with the machine, or with the container whose image is below.
PASSING = {
    "tmpfs": "in memory",
    "ramfs": "in memory",
    "overlay": "in a container's own layer",
    "aufs": "in a container's own layer",
}
MOUNT = "mount a volume there (or name another folder: POSTHOUSE_SPOOL_DIR)"


def look(settings: Settings, mounts: str | None) -> list[Finding]:
    """`mounts`: the text of /proc/mounts; None: this system has none."""
    folder = settings.spool_folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return [Finding("fix", "spool", f"{there} cannot be written: a token that comes while the database is away is lost "
                                        f"with its process; {MOUNT}")]  # fmt: skip
    return [_kind(folder, there, mounts), *_locks(there), *_left(folder)]


def mounts() -> str | None:
    """What is mounted, as Linux says."""
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _kind(folder: Path, there: Path, mounts: str | None) -> Finding:
    kind = None if mounts is None else _file_system(there.resolve(), mounts)
    if kind is None:
        return Finding("look", "spool", f"{folder}: whether that outlives the machine cannot be told here")
    if kind in PASSING:
        return Finding(
            "look", "spool", f"{folder} lies {PASSING[kind]} ({kind}), and a rotated token in it goes with it: {MOUNT}"
        )
    if there != folder:
        return Finding("look", "spool", f"there is no {folder} yet: a process that serves makes it ({kind})")
    return Finding("ok", "spool", f"{folder} ({kind})")


def _file_system(path: Path, mounts: str) -> str | None:
    """Its kind: of the innermost mount around `path`, the last one there.    Source: man 5 fstab, proc(5)."""
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        _, point, kind, *_ = [*line.split(" "), "", "", ""]
        at = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point))  # a space is \040 there
        if point and (path == at or at in path.parents) and (found is None or len(at.parts) >= found[0]):
            found = len(at.parts), kind
    return None if found is None else found[1]


def _locks(there: Path) -> list[Finding]:
    """Which processes live is told by locks."""
    opened = os.open(there, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError as error:
        return [
            Finding(
                "fix", "spool", f"files there cannot be locked ({error.strerror}): use a file system that has flock"
            )
        ]
    finally:
        os.close(opened)
    return []


def _left(folder: Path) -> list[Finding]:
    waiting, aside = len(list(folder.glob("*.spool"))), len(list(folder.glob("set-aside/*")))
    findings = []
    if waiting:
        findings.append(Finding("look", "spool", f"{waiting} token sets wait to be written: is a process serving?"))
    if aside:
        findings.append(Finding("look", "spool", f"{aside} files in {folder / 'set-aside'} did not open: with the keyring that "
                                                 "they were sealed with, move them back"))  # fmt: skip
    return findings
