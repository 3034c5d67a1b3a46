"""What lies in the folder of an embedded PostgreSQL, and who holds it.

    FOLDER/up.lock            held (flock) by the gateway process for its life: one `up` per folder
    FOLDER/postgres.lock      held by every process of PostgreSQL, which inherits it: free means all of them are gone
    FOLDER/postgres.log(.1)   what PostgreSQL says
    FOLDER/postgres/data      the data directory
    FOLDER/postgres/socket    the socket's directory, or `socket.path` naming a short one elsewhere

Locks of the kernel and not process numbers decide what is alive: a number may belong to another process after a
reboot or in a new container, may be a zombie's, and says nothing when two containers share a volume.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

DATABASE = "posthouse"  # of the database and of its owner
PORT = 5432  # a part of the socket's name; nothing listens on it
_SOCKET_NAME = len("/.s.PGSQL.5432") + 1
_SUN_PATH = 104  # macOS; Linux has 108
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._-]*")  # needs no quoting in a DSN nor in PostgreSQL's list of directories
_POSTMASTERS = (b"postgres", b"postmaster")
_LOG_LIMIT = 10 * 1024 * 1024


class EmbeddedUnavailable(Exception):
    """The embedded PostgreSQL cannot run here. The message is one line and says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What `postmaster.pid` says of a running server."""

    pid: int
    socket_dir: str


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.home = self.path / "postgres"
        self.data = self.home / "data"
        self.log = self.path / "postgres.log"
        self._pid_file = self.data / "postmaster.pid"
        self._socket_record = self.home / "socket.path"

    def make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def hold(self) -> int:
        """Take the folder for this process; the descriptor returned holds it, and no child inherits it."""
        held = self._lock("up.lock")
        if held is None:
            holder = _first_line(self.path / "up.lock") or "unknown"
            raise EmbeddedUnavailable(f"another posthouse (pid {holder}) is running on {self.path}; stop it first")
        os.ftruncate(held, 0)
        os.write(held, f"{os.getpid()}\n".encode())
        return held

    def hold_for_postgres(self) -> int | None:
        """The lock that PostgreSQL is to inherit, or None: some process of a PostgreSQL still lives here."""
        return self._lock("postgres.lock")

    def postgres_lives(self) -> bool:
        """Whether any process of PostgreSQL lives on this folder."""
        held = self.hold_for_postgres()
        if held is not None:
            os.close(held)
        return held is None

    def postmaster(self) -> Postmaster | None:
        """What the server says of itself, or None: there is none, or it has not got that far."""
        try:
            lines = self._pid_file.read_text().splitlines()
            return Postmaster(abs(int(lines[0])), lines[4]) if lines[4] else None
        except (FileNotFoundError, NotADirectoryError, ValueError, IndexError):
            return None

    def tell(self, pid: int, order: signal.Signals) -> None:
        """Send a signal to the postmaster, unless its number has become somebody else's."""
        try:
            if _program_of(pid) in (None, *_POSTMASTERS):
                os.kill(pid, order)
        except ProcessLookupError:
            pass  # the postmaster is dead; its children notice and go
        except PermissionError as err:
            raise EmbeddedUnavailable(f"PostgreSQL (pid {pid}) may not be stopped by uid {os.geteuid()}") from err

    def forget_stale_pid(self) -> None:
        """Remove a `postmaster.pid` whose number now belongs to something else; PostgreSQL would refuse to start.

        Only with the lock of PostgreSQL in hand, and where we can see what a process is.
        """
        said = (_first_line(self._pid_file) or "").lstrip("-")
        if not said.isdigit() or not _alive(int(said)):
            return  # PostgreSQL sees by itself that nobody is there
        name = _program_of(int(said))
        if name in _POSTMASTERS and os.fsencode(self.data) in _arguments(int(said)):
            raise EmbeddedUnavailable(f"PostgreSQL (pid {said}), started by hand, runs on {self.data}; stop it first")
        if name is not None:
            self._pid_file.unlink(missing_ok=True)

    def socket_dir(self, uid: int, gid: int) -> Path:
        """A directory of that owner's for the socket: mode 0700, empty, short enough for a socket's address."""
        inside = self.home / "socket"
        if not _fits(inside):
            recorded = Path(_first_line(self._socket_record) or "/nonexistent")
            inside = recorded if _private(recorded, uid) else self._outside()
        inside.mkdir(mode=0o700, exist_ok=True)
        if inside.stat().st_uid != uid:
            os.chown(inside, uid, gid)
        os.chmod(inside, 0o700)
        _clear(inside)
        return inside

    def drop_outside_socket_dir(self) -> None:
        """Once PostgreSQL has stopped: leave no litter in /tmp."""
        recorded = _first_line(self._socket_record)
        if recorded:
            try:
                _clear(Path(recorded))
                Path(recorded).rmdir()
            except OSError:
                pass  # gone already, or somebody put something there: not ours to judge
            self._socket_record.unlink(missing_ok=True)

    def turn_log(self) -> None:
        """Between two runs: a log that has grown becomes `.1`, and the one before it goes."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_name("postgres.log.1"))

    def complaint(self, since: int) -> str:
        """The last fatal line of the log after byte `since`, or the last line."""
        try:
            with self.log.open("rb") as log:
                log.seek(since)
                return last_complaint(log.read().decode(errors="replace"))
        except OSError:
            return "it said nothing"

    def _lock(self, name: str) -> int | None:
        file = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            os.close(file)
            if err.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise EmbeddedUnavailable(f"the file system of {self.path} has no locks ({err.strerror})") from err
        return file

    def _outside(self) -> Path:
        for parent in (tempfile.gettempdir(), "/tmp", "/dev/shm"):  # noqa: S108 mkdtemp makes it private
            if _fits(Path(parent) / "posthouse-12345678") and os.access(parent, os.W_OK | os.X_OK):
                made = Path(tempfile.mkdtemp(prefix="posthouse-", dir=parent))
                self._socket_record.write_text(f"{made}\n")
                return made
        raise EmbeddedUnavailable(f"the path {self.home} is too long for a socket, and /tmp cannot be written")


def dsn(socket_dir: str | Path, database: str = DATABASE) -> str:
    """The address of a database on that socket; says the port, so that PGPORT has no say."""
    place = urlencode({"host": str(socket_dir), "port": PORT}, safe="/", quote_via=quote)
    return f"postgresql://{DATABASE}@/{database}?{place}"


def last_complaint(text: str) -> str:
    """The last line that tells what went wrong, without its prefix."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marks = ("PANIC:", "FATAL:", "initdb: error:", "ERROR:")
    for line in reversed(lines):
        for mark in marks:
            if mark in line:
                return line.partition(mark)[2].strip()
    return lines[-1] if lines else "it said nothing"


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory)) + _SOCKET_NAME <= _SUN_PATH and bool(_PLAIN_PATH.fullmatch(str(directory)))


def _clear(socket_dir: Path) -> None:
    """Remove what a killed server left: its number in the lock file may be somebody else's by now."""
    for left in socket_dir.glob(".s.PGSQL.*"):
        left.unlink()


def _private(directory: Path, uid: int) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and stat.S_IMODE(found.st_mode) == 0o700


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]  # hidden from us, or a zombie


def _program_of(pid: int) -> bytes | None:
    """Its program's name, empty if it does not show; None where there is no /proc to look into."""
    return os.path.basename(_arguments(pid)[0]) if Path("/proc/self/cmdline").exists() else None


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().partition("\n")[0]
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
