"""Names to addresses: looked up once for each connection, and only permitted addresses handed on.

The client connects to what stands here and to nothing else, so a name that answers differently a moment later
(DNS rebinding) gains nothing: the second answer is never asked for, or is checked like the first.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.outbound import addresses
from gateway.outbound.addresses import Address
from providers.errors import NotAllowed

Lookup = Callable[[str], Awaitable[Sequence[str]]]  # a host's addresses, as texts; OSError where there are none
LOOKUPS_AT_ONCE = 8


class SystemLookup:
    """The machine's resolver, in threads of its own: a slow name server must not hold up other work in threads."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_AT_ONCE, thread_name_prefix="lookup")

    async def __call__(self, host: str) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _ask, host)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Wait for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Pinned(AbstractResolver):
    """A resolver for aiohttp's connector. A name with one address that is not permitted is refused altogether:

    public and private addresses under one name are either an attack or a set-up that would fail half of the time.
    """

    def __init__(self, lookup: Lookup, permitted: Callable[[Address], bool]) -> None:
        self._lookup, self._permitted = lookup, permitted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises: OSError (no such name), NotAllowed."""
        found = await self._lookup(host)
        if not found:
            raise OSError("no address")
        for text in found:
            try:
                permitted = self._permitted(addresses.read(text))
            except ValueError:
                permitted = False
            if not permitted:
                raise NotAllowed("address_not_public")
        return [
            ResolveResult(
                hostname=host,
                host=text,
                port=port,
                family=socket.AF_INET6 if ":" in text else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for text in found
        ]

    async def close(self) -> None:
        pass


def _ask(host: str) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
