"""The iterator that platform code holds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType

from gateway.client.entries import Entry


class Events:
    """Entries without end. Also a context manager: leaving it commits what is finished and gives everything back.

    Closing the `Client` closes it too.
    """

    def __init__(
        self,
        source: AsyncGenerator[Entry, None],
        commit: Callable[[], Awaitable[None]],
        closed: Callable[[Events], None],
    ) -> None:
        self._source, self._commit, self._closed = source, commit, closed

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Entry:
        return await anext(self._source)

    async def commit(self) -> None:
        """The entry in hand is done too; commit now. Before leaving the loop, say. Without a consumer: nothing to do."""
        await self._commit()

    async def aclose(self) -> None:
        """Commit what is finished and give back what is held. The entry in hand counts as not finished."""
        self._closed(self)
        await self._source.aclose()

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
