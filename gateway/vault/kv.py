"""The secrets-manager mode: sealed token sets in KV version 2 of Vault / OpenBao, where PostgreSQL holds their path.

A blob lies at `{prefix}/{region}-{deployment}/{shard}/{connection}.{profile}.{version}.{nonce}` and is written once
(`cas=0`), before the PostgreSQL commit that points to it. The nonce makes each try a path of its own: the blob of an
attempt that crashed before its commit never stands in the way of the next, and a new data key re-seals under the same
token version. Blobs that no row points to (attempts that crashed, sets that were superseded) are swept.

`{deployment}` comes of the hashing key, so that two deployments with the same prefix never sweep each other's blobs.
The bytes are sealed under the tenant's data key and bound to their place just as PostgreSQL would hold them, so whoever
reads the KV engine reads no token.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import structlog

from gateway.clock import random_bytes
from gateway.errors import SetupError, Unavailable
from gateway.settings import Settings
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from gateway.vault.openbao import OpenBao, Refused
from gateway.vault.tokens import Blob, Place

log = structlog.get_logger(__name__)

MEMORY_BYTES = 32 * 1024 * 1024  # of sealed bytes, so nothing here opens without its data key
OVERHEAD = 500  # about what an entry costs beside its bytes
REFUSED_RETRY_S = 10
SHARDS = tuple(f"{number:02x}" for number in range(256))
PATH = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+")


class KvBlobs:
    """The token blobs of one region."""

    def __init__(
        self, bao: OpenBao, settings: Settings, region: str, keyring: Keyring, *, memory: int = MEMORY_BYTES
    ) -> None:
        self._bao, self.mount = bao, settings.vault_kv_mount
        self.folder = f"{settings.vault_kv_prefix}/{region}-{keyring.mac('kv_folder', region.encode()).hex()[:12]}"
        self._memory = memory
        self._known: OrderedDict[str, Blob] = OrderedDict()
        self._held = 0
        self._reading: dict[str, asyncio.Task[Blob]] = {}

    async def write(self, place: Place, blob: Blob) -> str:
        """Where `blob` lies from now on.    Raises: Unavailable; then it is not there, or will be swept."""
        connection = place.connection.hex
        leaf = f"{connection}.{place.profile}.{place.version}.{random_bytes(8).hex()}"
        path = f"{self.folder}/{connection[-2:]}/{leaf}"
        body = {"options": {"cas": 0}, "data": {"access": _text(blob.access), "refresh": _text(blob.refresh)}}
        try:
            await self._bao.call("write", "POST", f"{self.mount}/data/{path}", body)
        except Refused as error:
            raise Unavailable(str(error), retry_after_s=REFUSED_RETRY_S) from None
        self._keep(path, blob)
        return path

    async def read(self, path: str) -> Blob:
        """From memory, or the server: once however many ask.

        Raises: Unavailable; SealBroken: there is no such blob (its row moved on, or it was taken away).
        """
        known = self._known.get(path)
        if known is not None:
            self._known.move_to_end(path)
            return known
        reading = self._reading.get(path)
        if reading is None:
            reading = self._reading[path] = asyncio.create_task(self._fetch(path))
            reading.add_done_callback(lambda done: self._read(path, done))
        return await asyncio.shield(reading)

    async def delete(self, paths: Iterable[str]) -> None:
        """Blobs and their history. Never raises: what cannot be deleted now is swept later."""
        for path in paths:
            self._forget(path)
            try:
                await self._bao.call("delete", "DELETE", f"{self.mount}/metadata/{_sound(path)}")
            except (Unavailable, Refused, SealBroken) as error:
                log.warning("kv.not_deleted", error=type(error).__name__)

    async def listed(self, shard: str) -> list[str]:
        """The paths of every blob of one of `SHARDS`.    Raises: Unavailable, Refused."""
        folder = f"{self.folder}/{shard}"
        answer = await self._bao.call("list", "GET", f"{self.mount}/metadata/{folder}/?list=true", takes=(404,))
        data = answer.body.get("data")
        found = data.get("keys") if isinstance(data, dict) else None
        leaves = found if isinstance(found, list) else []
        return [f"{folder}/{leaf}" for leaf in leaves if isinstance(leaf, str) and not leaf.endswith("/")]

    async def prove(self) -> None:
        """That the mount is there, of version 2, and our policy allows what we do.    Raises: SetupError; Unavailable."""
        try:
            data = (await self._bao.call("lookup", "GET", f"sys/internal/ui/mounts/{self.mount}")).body.get("data")
            mount = data if isinstance(data, dict) else {}
        except Refused:
            raise SetupError(f"there is no KV engine at {self.mount}, or our policy allows nothing there") from None
        if mount.get("type") != "kv" or (mount.get("options") or {}).get("version") != "2":
            raise SetupError(f"{self.mount} is no KV engine of version 2")
        wanted = {f"{self.mount}/data/{self.folder}/00/x": {"create", "read"},
                  f"{self.mount}/metadata/{self.folder}/00/x": {"delete"},
                  f"{self.mount}/metadata/{self.folder}/00/": {"list"}}  # fmt: skip
        try:
            allowed = (await self._bao.call("lookup", "POST", "sys/capabilities-self", {"paths": list(wanted)})).body
        except Refused:
            return  # a login without the default policy may not ask; the first write tells
        for path, needed in wanted.items():
            has = set(allowed.get(path) or ())
            if "root" not in has and not needed <= has:
                raise SetupError(
                    f"our policy must allow {', '.join(sorted(needed - has))} on {path.rpartition('/')[0]}/*"
                )

    async def _fetch(self, path: str) -> Blob:
        try:
            answer = await self._bao.call("read", "GET", f"{self.mount}/data/{_sound(path)}", takes=(404,))
        except Refused as error:
            raise Unavailable(str(error), retry_after_s=REFUSED_RETRY_S) from None
        data = answer.body.get("data")
        fields = data.get("data") if isinstance(data, dict) else None
        if answer.status == 404 or not isinstance(fields, dict):
            raise SealBroken("the row's blob is not there (any more)")
        access = _bytes(fields.get("access"))
        if access is None:
            raise SealBroken("the row's blob is no token set")
        blob = Blob(access, _bytes(fields.get("refresh")))
        self._keep(path, blob)
        return blob

    def _read(self, path: str, done: asyncio.Task[Blob]) -> None:
        del self._reading[path]
        if not done.cancelled():
            done.exception()  # told to those who wait; nobody may wait any more

    def _keep(self, path: str, blob: Blob) -> None:
        self._forget(path)
        self._known[path] = blob
        self._held += _size(path, blob)
        while self._held > self._memory:
            self._forget(next(iter(self._known)))

    def _forget(self, path: str) -> None:
        blob = self._known.pop(path, None)
        if blob is not None:
            self._held -= _size(path, blob)


def _size(path: str, blob: Blob) -> int:
    return OVERHEAD + len(path) + len(blob.access) + len(blob.refresh or b"")


def _sound(path: str) -> str:
    """Raises: SealBroken: a row's path that leads elsewhere."""
    if PATH.fullmatch(path) is None or {".", ".."} & set(path.split("/")):
        raise SealBroken("the row's path is none of ours")
    return path


def _text(sealed: bytes | None) -> str | None:
    return None if sealed is None else base64.b64encode(sealed).decode()


def _bytes(text: Any) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        pass
    raise SealBroken("the row's blob is no token set")
