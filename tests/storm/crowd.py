"""Platform code that wants a token: it asks some process, and where that dies or says "later", it asks again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import aiohttp

AGAIN_S = 0.05  # a platform would heed Retry-After; here only the database's clock makes it wait
PATIENCE_S = 120  # then whatever was answered last is the answer
FINAL = frozenset({"reauth_required", "connection_revoked", "connection_closed", "connection_suspended"})


@dataclass(frozen=True, slots=True)
class Told:
    """The last answer that one caller had. `first_s`: how long it waited for its first one."""

    status: int
    version: int | None
    said: dict[str, Any] = field(repr=False)
    first_s: float
    asked: int  # how often

    @property
    def good(self) -> bool:
        return self.status == 200

    @property
    def code(self) -> str:
        return "" if self.good else str(self.said["type"]).rpartition("/")[2]


class Crowd:
    """Callers with one API key."""

    def __init__(self, key: str) -> None:
        self._http = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=60),
        )  # fmt: skip
        self.statuses: Counter[str] = Counter()  # of all answers

    async def close(self) -> None:
        await self._http.close()

    async def call(self, url: str, method: str, path: str, body: Any = None) -> Any:
        """Another call of the API, which must succeed."""
        async with self._http.request(method, url + path, json=body) as answer:
            text = await answer.text()
            assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
            return await answer.json() if text else None

    async def storm(
        self, urls: Sequence[str], path: str, callers: int, *, patient: bool = True, first: str | None = None,
        cut_off: asyncio.Event | None = None,
    ) -> list[Told]:  # fmt: skip
        """So many at once, in turn at each of these; their last answers.

        `patient`: they come again until they have a token or a final no. `first`: they begin there, all of them.
        `cut_off`: whose process dies waits for this before asking another one.
        """
        asking = cycle(urls)
        return await asyncio.gather(
            *(self._ask(first or next(asking), asking, path, patient, cut_off) for _ in range(callers))
        )

    async def _ask(
        self, url: str, others: Iterator[str], path: str, patient: bool, cut_off: asyncio.Event | None
    ) -> Told:
        loop = asyncio.get_running_loop()
        began, asked, first_s = loop.time(), 0, None
        while True:
            asked += 1
            try:
                async with self._http.get(f"{url}{path}/token") as answer:
                    said, status = await answer.json(content_type=None), answer.status
            except (aiohttp.ClientError, OSError):
                self.statuses["cut off"] += 1
                if cut_off is not None:
                    await cut_off.wait()
                url = next(others)
                continue
            first_s = loop.time() - began if first_s is None else first_s
            told = Told(status, said.get("token_version"), said, first_s, asked)
            self.statuses[told.code or "200"] += 1
            if told.good or told.code in FINAL or not patient or loop.time() - began > PATIENCE_S:
                return told
            await asyncio.sleep(AGAIN_S)
