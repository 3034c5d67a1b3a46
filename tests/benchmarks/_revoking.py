"""The provider's and the platform's sides of bench-revocation, over real HTTP: post a revocation, hear of it, be refused."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import aiohttp

from gateway.client.following import Frames
from tests.benchmarks._accounts import Account
from tests.signers_a import slack, standard

SIGNING_SECRET = b"8f742231b10e8888abcd99yyyzzz85a5"
WEBHOOK_SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PATIENCE_S = 30.0
LOOK_S = 0.005  # between two reads of a token: what `refused` is exact to, and a load beside the other
Kind = Literal["tokens_revoked", "app_uninstalled", "grant.revoked"]

TOLD = "posthouse.connection.revoked"
ALSO = ("posthouse.delivery.slack", "posthouse.delivery.sandbox")


@dataclass(frozen=True, slots=True)
class Signed:
    """A delivery, ready to be posted."""

    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


def revocation(account: Account, kind: Kind, id: str) -> Signed:
    """What the provider sends. Slack's ends the person's token, or everything; the sandbox's names no time."""
    now = datetime.now(UTC)
    if kind == "grant.revoked":
        body = _json({"type": kind, "account": account.name, "timestamp": now.isoformat(), "data": {}})
        return Signed("/hooks/contested", standard(body, WEBHOOK_SECRET, now, delivery_id=id, url=""), body)
    tokens = {"tokens": {"oauth": [f"U{account.name}"], "bot": []}} if kind == "tokens_revoked" else {}
    body = _json({
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "team_id": account.name, "api_app_id": "A1", "type": "event_callback",
        "event": {"type": kind, **tokens}, "event_id": f"Ev{id}", "event_time": int(now.timestamp()),
    })  # fmt: skip
    return Signed("/hooks/slack", slack(body, SIGNING_SECRET, now, delivery_id="", url=""), body)


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds from the POST of a revocation."""

    acknowledged: float
    delivered: float  # the delivery itself is at the consumer: what the stream costs without any machine
    told: float  # so is the transition
    refused: float  # the token API has answered 409


class Platform:
    """Whoever runs Posthouse: follows the stream, asks for tokens."""

    def __init__(self, http: aiohttp.ClientSession, private: str, key: str) -> None:
        self._http, self._private, self._headers = http, private, {"Authorization": f"Bearer {key}"}
        self._heard: dict[tuple[str, bool], float] = {}  # when, by connection and whether it is the transition
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """The stream is open, from its end on, for as long as the block."""
        query = [("after", "latest"), *(("type", one) for one in (TOLD, *ALSO))]
        async with self._http.get(f"{self._private}/v1/events/stream", params=query, headers=self._headers) as answer:
            task = asyncio.create_task(self._follow(answer))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def heard(self, account: Account, *, transition: bool) -> float:
        """When the consumer had it."""
        name = (account.shown, transition)
        async with self._news:
            await self._news.wait_for(lambda: name in self._heard)
        return self._heard[name]

    async def refused(self, account: Account, why: str | None = None) -> float:
        """When the token API first refused: any reason, or this one. Ends the benchmark if it handed one out too late."""
        loop = asyncio.get_running_loop()
        url = f"{self._private}/v1/connections/{account.shown}/token?access_profile={account.profile}"
        while True:
            too_late = (account.shown, True) in self._heard
            async with self._http.get(url, headers=self._headers) as answer:
                status, body = answer.status, await answer.read()
            if status == 409 and why in (None, json.loads(body)["type"].rpartition("/")[2]):
                return loop.time()
            if status not in (200, 409) or (status == 200 and too_late):
                raise SystemExit(f"a token of a revoked connection: {status} {body[:200]!r}")
            await asyncio.sleep(LOOK_S)

    async def _follow(self, answer: aiohttp.ClientResponse) -> None:
        frames, loop = Frames(), asyncio.get_running_loop()
        async for chunk in answer.content.iter_any():
            now = loop.time()
            for frame in frames.feed(chunk):
                if frame.data:
                    for connection in json.loads(frame.data)["connections"]:
                        self._heard.setdefault((connection, frame.event == TOLD), now)
            async with self._news:
                self._news.notify_all()


async def post(http: aiohttp.ClientSession, public: str, signed: Signed) -> None:
    """Send it, and be acknowledged, or end the benchmark."""
    async with http.post(public + signed.path, data=signed.body, headers=signed.headers) as answer:
        if answer.status != 200:
            raise SystemExit(f"{signed.path}: {answer.status} {(await answer.read())[:200]!r}")


async def timed(http: aiohttp.ClientSession, public: str, platform: Platform, account: Account, kind: Kind) -> Times:
    """One revocation, watched from its POST until everybody knows."""
    signed, loop = revocation(account, kind, account.name), asyncio.get_running_loop()
    began = loop.time()

    async def sent() -> float:
        await post(http, public, signed)
        return loop.time()

    async with asyncio.timeout(PATIENCE_S):
        moments = await asyncio.gather(
            sent(), platform.heard(account, transition=False), platform.heard(account, transition=True),
            platform.refused(account),
        )  # fmt: skip
        await platform.refused(account, "connection_revoked")
    return Times(*((moment - began) * 1000 for moment in moments))


async def paced(rate: float, work: Callable[[int], Awaitable[None]], *, until: asyncio.Event | int) -> int:
    """Begin `work` so many times a second, whether or not what was begun before is done; how many times in all."""
    loop, number = asyncio.get_running_loop(), 0
    began = loop.time()

    async def one(number: int) -> None:
        await work(number)

    async with asyncio.TaskGroup() as group:
        while not (until.is_set() if isinstance(until, asyncio.Event) else number == until):
            await asyncio.sleep(max(began + number / rate - loop.time(), 0))
            group.create_task(one(number))
            number += 1
    return number


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so many are not above: p99 of 100 is the last but one."""
    return sorted(values)[math.ceil(len(values) * share) - 1]


def _json(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
