"""Sealing token sets. A seal is bound to the row it lies in: moved anywhere else, it does not open.

Access and refresh token are sealed apart, under purposes of their own: a read never opens the refresh token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from gateway.vault import cipher
from gateway.vault.cipher import Aad, SealBroken
from gateway.vault.data_keys import DataKey, DataKeys

Purpose = Literal["access_token", "refresh_token", "staged", "closing"]


@dataclass(frozen=True, slots=True)
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
    """The sealed columns of `gateway.tokens`."""

    data_key_version: int
    access: bytes = field(repr=False)
    refresh: bytes | None = field(repr=False)


class TokenVault:
    """Seals and opens the tokens of one region."""

    def __init__(self, keys: DataKeys) -> None:
        self.keys = keys

    async def seal(self, place: Place, access: str, refresh: str | None) -> Sealed:
        """A token set for its row.

        Raises: Unavailable (the key backend, or the database, is away); SealBroken (the tenant's data key does not open).
        Store it soon (minutes): a data key that nothing refers to is deleted some time after a newer one was made.
        """
        key = await self.keys.for_sealing(place.tenant)
        return Sealed(
            key.version,
            sealed_text(key, access, place.aad("access_token")),
            None if refresh is None else sealed_text(key, refresh, place.aad("refresh_token")),
        )

    async def open(self, place: Place, purpose: Purpose, data_key_version: int, sealed: bytes) -> str:
        """Raises: Unavailable; SealBroken: it was not sealed for this place and purpose."""
        name = (place.tenant, data_key_version)
        key = self.keys.held(*name) or (await self.keys.for_opening([name]))[name]
        return opened_text(key, sealed, place.aad(purpose))


def sealed_text(key: DataKey, text: str, aad: Aad) -> bytes:
    return cipher.seal(key.cipher, key.version, text.encode("utf-8", "surrogatepass"), aad)


def opened_text(key: DataKey, sealed: bytes, aad: Aad) -> str:
    """Raises: SealBroken."""
    return cipher.open_sealed({key.version: key.cipher}, sealed, aad).decode("utf-8", "surrogatepass")


__all__ = [
    "Place", "Purpose", "SealBroken", "Sealed", "TokenVault", "closing_place", "opened_text", "sealed_text",
    "staged_place",
]  # fmt: skip
