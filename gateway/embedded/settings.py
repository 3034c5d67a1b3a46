"""How the embedded server is set: safe first, small enough for a laptop, quiet.

Given on the command line, so a start always has this version's settings whatever `postgresql.conf` says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

_ROOMY_SHM = 256 * 1024 * 1024  # a container's default of 64 MiB breaks parallel queries half-way


def server_settings(socket_dir: str, chosen: Mapping[str, str]) -> dict[str, str]:
    """All that is set: what must be so, over what the caller chose, over our defaults."""
    return {**_DEFAULTS, "dynamic_shared_memory_type": _shared_memory(), **chosen, **_fixed(socket_dir)}


def _fixed(socket_dir: str) -> dict[str, str]:
    """Who may connect is decided by one private directory, and by nothing else."""
    return {
        "listen_addresses": "",
        "port": "5432",
        "unix_socket_directories": socket_dir,
        "unix_socket_permissions": "0700",
    }


def _shared_memory(directory: str = "/dev/shm") -> str:  # noqa: S108 only looked at
    """`posix` where /dev/shm can be used and has room, else files in the data directory."""
    try:
        room = os.statvfs(directory)
    except OSError:
        return "posix" if os.uname().sysname == "Darwin" else "mmap"
    usable = os.access(directory, os.W_OK | os.X_OK) and room.f_bavail * room.f_frsize >= _ROOMY_SHM
    return "posix" if usable else "mmap"


_DEFAULTS = {
    # an acknowledged delivery is on disk
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # sized for one machine
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "wal_buffers": "16MB",
    "checkpoint_timeout": "15min",
    "wal_compression": "off",  # the wheel has pglz alone, which costs more than it saves on a local disk
    "huge_pages": "off",  # not promised to us
    "jit": "off",  # short statements; the wheel has no LLVM either
    "autovacuum_naptime": "15s",  # leases and cursors are updated all the time
    "track_io_timing": "off",
    # the log says what happened to the server; never statements, parameters or key values, which may be secret
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}
