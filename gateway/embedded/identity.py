"""As whom PostgreSQL can run here.

PostgreSQL refuses uid 0, wants to own its data, and `initdb` wants its uid to have a passwd entry. So

- an ordinary user runs it plainly;
- root runs it in a user namespace, where it looks like an ordinary user and its files stay root's own;
- where namespaces are forbidden (a container's seccomp, usually), root drops to an ordinary user who can reach the
  folder: whoever owns it already, then `posthouse`, `postgres`, `nobody`, whichever exist;
- a uid without a passwd entry (a container's arbitrary one) also needs the namespace, for its first start at least.

Each candidate is tried out by running `postgres --version` as that user from the folder. No user is added to the
machine; of the folders above ours none is touched.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gateway.embedded import binaries
from gateway.embedded.binaries import Identity
from gateway.embedded.folder import EmbeddedUnavailable, Folder

_SERVICE_USERS = ("posthouse", "postgres", "nobody")
_FAMILIAR_UIDS = (1, 2, 1000, 65532)  # daemon, bin, a first user, distroless's nonroot: asked before the whole list


def settle(folder: Folder) -> tuple[Identity, str]:
    """The identity that works here, owning the folder's `postgres` part, and the version of PostgreSQL.

    Raises: EmbeddedUnavailable, none does; the line says why the best one failed.
    """
    folder.home.mkdir(mode=0o700, exist_ok=True)
    owner = folder.home.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise EmbeddedUnavailable(
            f"{folder.home} belongs to uid {owner} and this is uid {os.geteuid()}; run as that user, or chown -R it"
        )
    refusals: list[str] = []
    for candidate in _candidates(folder, owner):
        try:
            identity, version = _try(candidate, folder)
        except EmbeddedUnavailable as err:
            refusals.append(f"{candidate.kind}: {err}")
            continue
        if owner != identity.owner:
            _hand_over(folder.home, identity)
        return identity, version
    me, why = os.geteuid(), "; ".join(dict.fromkeys(refusals)) or "no uid has a passwd entry"
    if me == 0:
        advice = "run as an ordinary user, choose a folder that one can reach"
    elif _entry(me):
        advice = "use Linux with glibc or macOS"
    else:
        advice = "give this uid a passwd entry, allow user namespaces"
    raise EmbeddedUnavailable(
        f"PostgreSQL cannot run here as uid {me} ({why}): {advice}, or set POSTHOUSE_DATABASE_URL"
    )


def _candidates(folder: Folder, owner: int) -> Iterator[Identity]:
    me, mine = os.geteuid(), os.getegid()
    initialised = (folder.data / "PG_VERSION").exists()
    plain = Identity("plain", me, mine, me, mine, binaries.installed())
    if me == 0 and owner:  # it was made that way, so it goes on that way if it can
        yield from _user(owner, folder.home.stat().st_gid, anonymous=initialised)
    if me and _entry(me):
        yield plain
    else:
        yield from _namespace(plain)
    if me and initialised and not _entry(me):  # only initdb asks for the passwd entry
        yield plain
    if me == 0:
        yield from _ordinary_users(folder)


def _namespace(outside: Identity) -> Iterator[Identity]:
    seen_as = _somebody() if sys.platform == "linux" else None
    if seen_as:
        yield replace(outside, kind="namespace", uid=seen_as.pw_uid, gid=seen_as.pw_gid or seen_as.pw_uid)


def _ordinary_users(folder: Folder) -> Iterator[Identity]:
    """Those whom root may drop to: who owns the folder or the one above it, then service users."""
    for place in (folder.path, folder.path.parent):
        yield from _user(place.stat().st_uid, place.stat().st_gid, anonymous=False)
    for name in _SERVICE_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        yield from _user(entry.pw_uid, entry.pw_gid, anonymous=False)


def _user(uid: int, gid: int, *, anonymous: bool) -> Iterator[Identity]:
    entry = _entry(uid)
    if uid and (entry or anonymous):
        group = entry.pw_gid if entry else gid
        yield Identity("user", uid, group, uid, group, binaries.installed())


def _try(identity: Identity, folder: Folder) -> tuple[Identity, str]:
    """Run something as `identity` from the folder; root's own folder, and no other, is opened to that user.

    Where only the programs are out of reach, the identity returned runs a copy of them in the folder.
    """
    place = folder.path
    found = place.stat()
    if identity.kind == "user" and found.st_uid == 0 and not found.st_mode & 0o001:
        binaries.enter(identity, place.parent)
        os.chown(place, -1, identity.gid)
        os.chmod(place, found.st_mode & 0o7777 | 0o010)  # noqa: S103 may pass through, not list
    try:
        return identity, binaries.version(identity, place)
    except EmbeddedUnavailable:
        if identity.kind != "user":
            raise
        binaries.enter(identity, place)
        identity = replace(identity, programs=binaries.copied(place))
        return identity, binaries.version(identity, place)


def _hand_over(home: Path, identity: Identity) -> None:
    """Root gives PostgreSQL's part of the folder (never links' targets) to whom it runs as from now on."""
    for place, _, files in os.walk(home):
        os.chown(place, identity.owner, identity.group)
        for name in files:
            os.chown(os.path.join(place, name), identity.owner, identity.group, follow_symlinks=False)


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _somebody() -> pwd.struct_passwd | None:
    """Someone with a passwd entry to look like; not the overflow uid, which every unmapped file seems to have."""
    for uid in _FAMILIAR_UIDS:
        entry = _entry(uid)
        if entry:
            return entry
    overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
    others = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    return next((entry for entry in others if entry.pw_uid != overflow), others[0] if others else None)
