"""A region's vault on the test's database."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.database import Database
from gateway.errors import Unavailable
from gateway.vault.backend import LocalKeys, Wrapped
from gateway.vault.cipher import Aad
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Keyring
from gateway.vault.tokens import TokenVault
from tests.clock import FakeClock

REGION = "default"


class Backend(LocalKeys):
    """The local keyring, counted, and away when the test says so."""

    def __init__(self, keyring: Keyring) -> None:
        super().__init__(keyring)
        self.away = False
        self.wraps: list[int] = []
        self.unwraps: list[int] = []

    async def wrap(self, keys: Sequence[tuple[bytes, Aad]]) -> list[bytes]:
        self._answer(self.wraps, len(keys))
        return await super().wrap(keys)

    async def unwrap(self, wrapped: Sequence[Wrapped]) -> list[bytes]:
        self._answer(self.unwraps, len(wrapped))
        return await super().unwrap(wrapped)

    def _answer(self, calls: list[int], size: int) -> None:
        if self.away:
            raise Unavailable("the key backend is away")
        calls.append(size)


@pytest.fixture
def backend(keyring: Keyring) -> Backend:
    return Backend(keyring)


@pytest.fixture
def keys(database: Database, backend: Backend, clock: FakeClock) -> DataKeys:
    return DataKeys(REGION, database, backend, clock)


@pytest.fixture
def vault(keys: DataKeys) -> TokenVault:
    return TokenVault(keys)
