"""Sealing token sets. A seal is bound to the row it lies in: moved anywhere else, it does not open.

Access and refresh token are sealed apart, under purposes of their own: a read never opens the refresh token.
`TokenVault` is the one door: whether the sealed bytes lie in the row or in a secrets manager that the row points to
(`kv_path`), nobody else needs to know. A row carries (data_key_version, sealed_access, sealed_refresh, kv_path).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import UUID

from gateway.vault import cipher
from gateway.vault.cipher import Aad, SealBroken
from gateway.vault.data_keys import DataKey, DataKeys

Purpose = Literal["access_token", "refresh_token", "staged", "closing", "spool"]


@dataclass(slots=True, unsafe_hash=True)  # not frozen: that would treble the cost of making one, and each read does
class Place:
    """Where a token set belongs: every part is authenticated with it."""

    region: str
    tenant: str
    connection: UUID
    profile: str
    generation: int
    version: int

    def aad(self, purpose: Purpose) -> Aad:
        return Aad(
            place=self.region, owner=self.tenant, purpose=purpose, row=self.connection,
            more=(self.profile, str(self.generation), str(self.version)),
        )  # fmt: skip


def staged_place(region: str, tenant: str, session: UUID, profile: str) -> Place:
    """Where a token set in `gateway.staged_tokens` belongs: no connection's yet, so it is bound to its session."""
    return Place(region, tenant, session, profile, 0, 0)


def closing_place(region: str, tenant: str, task: UUID, profile: str) -> Place:
    """Where a token set in `gateway.closing_tasks` belongs: to that task."""
    return Place(region, tenant, task, profile, 0, 0)


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a row of `gateway.tokens` holds of a token set: the sealed columns, or the path of the blob with both."""

    data_key_version: int
    access: bytes | None = field(repr=False)
    refresh: bytes | None = field(repr=False)
    kv_path: str | None = None
    has_refresh: bool = False  # there is a refresh token, wherever it lies


@dataclass(frozen=True, slots=True)
class Blob:
    """A token set's sealed bytes, as they lie outside PostgreSQL."""

    access: bytes = field(repr=False)
    refresh: bytes | None = field(repr=False)


class Blobs(Protocol):
    """Where sealed token sets lie if not in PostgreSQL. A path is written once and never changed."""

    async def write(self, place: Place, blob: Blob) -> str:
        """The new path of `blob`.    Raises: Unavailable."""

    async def read(self, path: str) -> Blob:
        """Raises: Unavailable; SealBroken: there is no such blob."""

    async def delete(self, paths: Iterable[str]) -> None:
        """Never raises: what cannot be deleted now is swept later."""


class TokenVault:
    """Seals and opens the tokens of one region."""

    def __init__(self, keys: DataKeys, blobs: Blobs | None = None, *, into_blobs: bool = False) -> None:
        """`blobs`: where rows with a `kv_path` are read; with `into_blobs` new token sets go there too."""
        self.keys = keys
        self.blobs = blobs
        self._into = blobs if into_blobs else None

    async def seal(self, place: Place, access: str, refresh: str | None) -> Sealed:
        """A token set for its row, which must be committed soon (minutes).

        A blob that no row names is swept, and a data key that nothing refers to is deleted some time after a newer one was made.

        Raises: Unavailable (the key backend, the secrets manager or the database is away); SealBroken (the tenant's data
        key does not open).
        """
        key = await self.keys.for_sealing(place.tenant)
        blob = Blob(
            sealed_text(key, access, place.aad("access_token")),
            None if refresh is None else sealed_text(key, refresh, place.aad("refresh_token")),
        )
        if self._into is None:
            return Sealed(key.version, blob.access, blob.refresh, None, refresh is not None)
        return Sealed(key.version, None, None, await self._into.write(place, blob), refresh is not None)

    async def open(
        self, place: Place, purpose: Purpose, data_key_version: int, sealed: bytes | None, kv_path: str | None = None
    ) -> str:
        """One secret of a row: `sealed` is its column, `kv_path` its path; one of them is None.

        Raises: Unavailable; SealBroken: it was not sealed for this place and purpose, or the row moved on meanwhile
        (KV mode: read the row again; one that still names this path has lost its tokens).
        """
        if kv_path is not None:
            sealed = await self._from_blob(kv_path, purpose)
        if sealed is None:
            raise SealBroken("the row holds no such token")
        name = (place.tenant, data_key_version)
        key = self.keys.held(*name) or (await self.keys.for_opening([name]))[name]
        return opened_text(key, sealed, place.aad(purpose))

    async def discard(self, paths: Iterable[str | None]) -> None:
        """After the commit that ended these rows (a close, an erased tenant): delete their blobs at once.

        Not after a refresh: somebody may just have read the old row; the sweep deletes those later. Never raises.
        """
        named = [path for path in paths if path is not None]
        if named and self.blobs is not None:
            await self.blobs.delete(named)

    async def _from_blob(self, path: str, purpose: Purpose) -> bytes | None:
        if self.blobs is None:
            raise SealBroken("the row's tokens lie in a secrets manager, and POSTHOUSE_VAULT_ADDR is not set")
        blob = await self.blobs.read(path)
        return blob.refresh if purpose == "refresh_token" else blob.access


def sealed_text(key: DataKey, text: str, aad: Aad) -> bytes:
    return cipher.seal(key.cipher, key.version, text.encode("utf-8", "surrogatepass"), aad)


def opened_text(key: DataKey, sealed: bytes, aad: Aad) -> str:
    """Raises: SealBroken."""
    return cipher.open_sealed({key.version: key.cipher}, sealed, aad).decode("utf-8", "surrogatepass")


__all__ = [
    "Blob", "Blobs", "Place", "Purpose", "SealBroken", "Sealed", "TokenVault", "closing_place", "opened_text",
    "sealed_text", "staged_place",
]  # fmt: skip
