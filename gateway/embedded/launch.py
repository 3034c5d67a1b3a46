"""Becomes another program as another user: this is how root runs PostgreSQL, which refuses to run as root.

Run as a script, by path (`python -I -S launch.py …`), with nothing but the standard library, because what it does
has to happen in a process with one thread, between fork and exec:

    launch.py IDENTITY DIRECTORY stay|detach PROGRAM [ARGUMENT …]

IDENTITY is `plain`; `namespace:UID:GID` (a user namespace in which we look like UID, and own what we own outside);
or `user:UID:GID` (root drops to that user). DIRECTORY is entered as that user, which proves that it can be reached.
`detach` starts PROGRAM in a session of its own, as nobody's child, and returns at once.
"""

from __future__ import annotations

import os
import signal
import sys

CLONE_NEWUSER = 0x10000000  # linux/sched.h; os.unshare is there from Python 3.12 on


def become(identity: str) -> None:
    """Change who this process is. Raises: OSError, this machine does not allow it."""
    kind, _, numbers = identity.partition(":")
    if kind == "plain":
        return
    uid, gid = map(int, numbers.split(":"))
    if kind == "namespace":
        _enter_namespace(uid, gid)
    else:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _enter_namespace(uid: int, gid: int) -> None:
    outside_uid, outside_gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),  # the kernel wants this before an unprivileged gid_map
        ("uid_map", f"{uid} {outside_uid} 1"),
        ("gid_map", f"{gid} {outside_gid} 1"),
    ):
        file = os.open(f"/proc/self/{name}", os.O_WRONLY)  # bare: from here on Python may find no module to import
        os.write(file, text.encode())
        os.close(file)


def _unshare(flags: int) -> None:
    if hasattr(os, "unshare"):
        os.unshare(flags)
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def main(identity: str, directory: str, manner: str, *command: str) -> None:
    os.umask(0o077)
    if manner == "detach":
        if os.fork():
            os._exit(0)
        os.setsid()
    try:
        step = "entering a user namespace" if identity.startswith("namespace") else "becoming " + identity
        become(identity)
        step = "entering " + directory
        os.chdir(directory)
        step = "running " + command[0]
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and that would be inherited
        os.execv(command[0], command)  # noqa: S606 an argument list: no shell is wanted
    except OSError as err:
        sys.stderr.write(f"FATAL:  {step}: {err.strerror}\n")
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
