"""Asking the gateway over HTTP: one try, or as many as the patience lasts, with backoff and full jitter between them."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.client.errors import PASSING, ApiError, Unreachable, from_answer

ANSWER_S = 30.0  # how long an answer may take
CONNECT_S = 5.0
SILENCE_S = 45.0  # a stream says something every 15 s
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0

Params = Sequence[tuple[str, str]]

log = logging.getLogger("posthouse.client")


@dataclass(frozen=True, slots=True)
class Pace:
    """Time and chance."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random  # 0 to 1


class Backoff:
    """Pauses between tries: longer with each failure in a row, never shorter than the gateway asks for."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0

    def reset(self) -> None:
        """It went well."""
        self._failures = 0

    def pause_s(self, trouble: Exception | None) -> float:
        """How long to wait now."""
        most_s = min(FIRST_PAUSE_S * (1 << self._failures), LONGEST_PAUSE_S)
        self._failures = min(self._failures + 1, 30)
        asked_s = trouble.retry_after_s if isinstance(trouble, ApiError) else None
        return (asked_s or 0.0) + self._pace.chance() * most_s

    async def wait(self, trouble: Exception | None = None) -> None:
        """Wait that long."""
        pause_s = self.pause_s(trouble)
        log.info("again in %.1f s: %s", pause_s, "the stream ended" if trouble is None else type(trouble).__name__)
        await self._pace.sleep(pause_s)


class Http:
    """The gateway's private listener, with a key. Redirects are not followed: the key goes nowhere else."""

    def __init__(self, base_url: str, api_key: str, session: aiohttp.ClientSession, pace: Pace) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._session = session
        self.pace = pace

    async def once(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Params = (),
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> Any:
        """The answer's JSON (None where it has none).    Raises: ApiError, Unreachable."""
        sent = {**self._headers, **(headers or {})}
        data = None
        if body is not None:
            sent["Content-Type"], data = "application/json", json.dumps(body).encode()
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        try:
            async with self._session.request(
                method, self._base_url + path, params=params, data=data, headers=sent,
                timeout=timeout, allow_redirects=False,
            ) as answer:  # fmt: skip
                content = await answer.read()
                if answer.status >= 300:
                    raise from_answer(answer.status, answer.headers, content)
                return json.loads(content) if content else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(type(error).__name__) from error  # its text may hold a query
        except ValueError as error:
            raise Unreachable("the answer is not JSON") from error

    async def patiently(self, method: str, path: str, *, patience_s: float | None, **more: Any) -> Any:
        """`once`, again and again for at most `patience_s` (None: until it goes well) while the trouble may pass."""
        backoff, began = Backoff(self.pace), self.pace.clock()
        while True:
            try:
                return await self.once(method, path, **more)
            except PASSING as trouble:
                asked_s = (trouble.retry_after_s if isinstance(trouble, ApiError) else None) or 0.0
                if patience_s is not None and self.pace.clock() - began + asked_s >= patience_s:
                    raise  # a pause that outlasts the patience is the caller's to make
                await backoff.wait(trouble)

    @asynccontextmanager
    async def stream(self, path: str, *, params: Params, headers: Mapping[str, str]) -> AsyncIterator[Chunks]:
        """The bytes of an answer that does not end.    Raises: ApiError, Unreachable, also while they are read."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        try:
            answer = await self._session.get(
                self._base_url + path, params=params, headers={**self._headers, **headers},
                timeout=timeout, allow_redirects=False,
            )  # fmt: skip
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(type(error).__name__) from error
        try:
            if answer.status >= 300:
                raise from_answer(answer.status, answer.headers, await answer.read())
            yield Chunks(answer)
        finally:
            answer.close()  # not back to the pool: more of it may be on its way


class Chunks:
    """What arrives, as it arrives."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def next(self) -> bytes:
        """Some bytes; none at the end.    Raises: Unreachable."""
        try:
            return await self._answer.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(type(error).__name__) from error
