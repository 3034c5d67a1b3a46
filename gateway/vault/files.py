"""The keyring's file: only its owner reads it, and it is written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from gateway.errors import SetupError
from gateway.settings import Settings

log = structlog.get_logger(__name__)

MAX_BYTES = 1024 * 1024  # a keyring is a few hundred bytes; a device or a wrong path may be endless


def path(settings: Settings) -> Path:
    """Where the keyring's file is, or would be."""
    return settings.keyring_file or settings.home / "keyring.json"


def read(file: Path) -> str:
    """The file's text.    Raises: SetupError: missing, unreadable, or open to others."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SetupError(f"there is no keyring at {file}: put it there, or set POSTHOUSE_KEYRING_FILE") from None
    except OSError as error:
        raise SetupError(f"the keyring at {file} cannot be read: {error.strerror}") from None
    # Kubernetes gives a secret to an unprivileged process by its group (fsGroup), so reading by the group is only said.
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise SetupError(f"the keyring at {file} is open to other users: chmod 600 {file}")
    if mode & stat.S_IRGRP:
        log.warning("keyring.group_readable", path=str(file), hint="chmod 600, unless the group is this process's own")
    text = _text(data)
    if text is None:
        raise SetupError(f"the keyring at {file} is not a text of at most {MAX_BYTES} bytes")
    return text


def create(file: Path, text: str) -> None:
    """Write a new file, mode 0600.    Raises: SetupError; one that is already there is never overwritten."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _draft(file, text) as draft:
            os.link(draft, file)  # unlike a rename, fails where the name is taken
        _settle(file.parent)
    except FileExistsError:
        raise SetupError(f"there is already a keyring at {file}") from None
    except OSError as error:
        raise SetupError(f"the keyring cannot be written at {file}: {error.strerror}") from None


def replace(file: Path, text: str) -> None:
    """Put `text` in the place of the file's, at once.    Raises: SetupError; then the old file stands."""
    try:
        with _draft(file, text) as draft:
            os.replace(draft, file)
        _settle(file.parent)
    except OSError as error:
        raise SetupError(f"the keyring cannot be written at {file}: {error.strerror}") from None


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other writers of this file out: two that add a version at once would lose one of the keys."""
    try:
        folder = os.open(file.parent, os.O_RDONLY)
    except OSError as error:
        raise SetupError(f"the keyring's folder {file.parent} cannot be read: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _text(data: bytes) -> str | None:
    try:
        return data.decode() if len(data) <= MAX_BYTES else None
    except UnicodeDecodeError:
        return None


@contextmanager
def _draft(file: Path, text: str) -> Iterator[Path]:
    """A file beside `file`, on the disk, that nobody else can read at any moment; gone when the block ends."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """The folder's entry on the disk too: a key that a power cut forgets takes every secret with it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
