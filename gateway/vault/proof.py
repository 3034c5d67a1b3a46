"""Is the key backend the one that this region's data keys were wrapped by? Asked before anything is wrapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

from gateway.database import Database
from gateway.errors import SetupError, Unavailable
from gateway.vault import checks
from gateway.vault.backend import KeyBackend, Wrapped
from gateway.vault.cipher import Aad

log = structlog.get_logger(__name__)


UNDER = "SELECT count(*) FROM gateway.data_keys WHERE wrapped_under <= $1"


class Remote(KeyBackend, Protocol):
    """A key backend at the other end of a line."""

    async def prove(self) -> None:
        """That its key is there and fit.    Raises: SetupError, one line; Unavailable."""

    async def oldest(self) -> int:
        """The oldest version that still unwraps.    Raises: Unavailable."""

    async def rotate(self) -> int:
        """A new version, current at once; its number.    Raises: Unavailable, SetupError."""

    async def retire(self, version: int) -> None:
        """`version` and older ones open nothing any more.    Raises: Unavailable, SetupError."""


class Checked:
    """A remote key backend that wraps nothing until it was seen to be the right one.

    A start while it is away goes on, since deliveries need no key; the question is then asked before the first wrap.
    """

    def __init__(self, backend: Remote, database: Database, region: str) -> None:
        self._backend, self._database, self._region = backend, database, region
        self._right = False

    async def verify(self) -> None:
        """Raises: SetupError: it is not; Unavailable: it cannot be asked."""
        if not self._right:
            await self._backend.prove()
            await checks.verify_region(self._database, self._region, self._backend)
            self._right = True

    async def current(self) -> int:
        return await self._backend.current()

    async def oldest(self) -> int:
        """The oldest version that still opens.    Raises: Unavailable."""
        return await self._backend.oldest()

    async def wrap(self, keys: Sequence[tuple[bytes, Aad]]) -> list[bytes]:
        try:
            await self.verify()
        except SetupError as error:
            log.error("key_backend.wrong", error=error)
            raise Unavailable("the key backend is not the one that this region was sealed with") from None
        return await self._backend.wrap(keys)

    async def unwrap(self, wrapped: Sequence[Wrapped]) -> list[bytes]:
        return await self._backend.unwrap(wrapped)

    def version_of(self, wrapped: bytes) -> int:
        return self._backend.version_of(wrapped)

    async def rotate(self) -> int:
        """A new version of the region's key, current at once.    Raises: Unavailable, SetupError."""
        await self.verify()
        return await self._backend.rotate()

    async def retire(self, version: int) -> None:
        """`version` and older ones open nothing any more.    Raises: Unavailable; SetupError: one of them is in use."""
        if under := await self._database.fetchval(UNDER, version):
            raise SetupError(f"{under} data keys are wrapped under version {version} or an older one: rotate first")
        await self._backend.retire(version)
