"""The public URL, and the disk."""

from __future__ import annotations

import ipaddress
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from gateway.doctor.finding import Finding
from gateway.settings import Settings

GIB = 1024**3
NEED_FREE = GIB // 2
WANT_FREE = 5 * GIB


def public_url(settings: Settings) -> Finding:
    """Can a provider call it, by its shape? Whether it leads here only a delivery shows."""
    try:
        parts = urlsplit(settings.public_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host:
        return Finding("fix", "public url", "POSTHOUSE_PUBLIC_URL has no host that can be read")
    if parts.username is not None or parts.password is not None:
        return Finding("fix", "public url", "POSTHOUSE_PUBLIC_URL holds a login: take it out, providers show the URL")
    if _local(host):
        return Finding(
            "look", "public url", f"{host} is reached from this network only: providers need a public https URL"
        )
    if parts.scheme != "https":
        return Finding("fix", "public url", f"http://{host}: providers call https only; set POSTHOUSE_PUBLIC_URL")
    return Finding("ok", "public url", settings.public_url)


def disk(settings: Settings) -> list[Finding]:
    """Room in the home folder: the embedded database and the keyring lie there."""
    folder = settings.home if settings.home.is_dir() else Path.cwd()
    if not settings.home.is_dir() and settings.database_url is not None:
        return []  # nothing of ours lies on this machine
    usage = shutil.disk_usage(folder)
    room = f"{usage.free / GIB:.1f} GiB free at {folder.resolve()}"
    if usage.free < NEED_FREE:
        return [Finding("fix", "disk", f"{room}: free some; a full disk means 503 for every delivery")]
    return [Finding("ok" if usage.free > WANT_FREE else "look", "disk", room)]


def _local(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host.rstrip(".") or host.endswith((".local", ".internal", ".localhost", ".test"))
