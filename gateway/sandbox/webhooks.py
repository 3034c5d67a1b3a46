"""What the sandbox tells unasked: signed by Standard Webhooks 1.0.0, tried again a few times, then given up.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from gateway.clock import Clock
from gateway.sandbox.records import Client

AGAIN_S = (5, 30, 120, 600, 3600)  # after the first, second … failure
TIMEOUT_S = 15.0
MOST_KEPT = 1000


@dataclass(slots=True)
class Notice:
    """One webhook, and how far it came."""

    id: str
    client: Client
    type: str
    body: bytes = field(repr=False)
    due_at: datetime | None  # None: it arrived, or was given up
    attempts: int = 0
    status: int | None = None  # the last answer's; None: none

    def as_json(self) -> dict[str, Any]:
        due_at = None if self.due_at is None else self.due_at.isoformat()
        return {"id": self.id, "client_id": self.client.id, "type": self.type, "attempts": self.attempts,
                "status": self.status, "due_at": due_at}  # fmt: skip


class Webhooks:
    """The notices of one sandbox. `tell` sends at once, behind whoever calls; `run_once` tries again what is due."""

    def __init__(self, clock: Clock, new: Callable[[str], str]) -> None:
        self._clock, self._new = clock, new
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self.notices: list[Notice] = []

    def tell(self, client: Client, type: str, data: dict[str, Any], account: str | None = None) -> Notice | None:
        """A notice to `client`, if it has a webhook URL, about the account of a user. Only inside the event loop."""
        if client.webhook_url is None:
            return None
        now = self._clock.now()
        told: dict[str, Any] = {"type": type, "timestamp": now.isoformat().replace("+00:00", "Z"), "data": data}
        if account is not None:
            told["account"] = account
        notice = Notice(self._new("evt"), client, type, json.dumps(told).encode(), now)
        self.notices.append(notice)
        del self.notices[:-MOST_KEPT]
        task = asyncio.create_task(self._send(notice), name="sandbox:webhook")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return notice

    async def settled(self) -> None:
        """Until everything that is under way has its answer."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run_once(self) -> int:
        """Send what is due again; how many there were."""
        await self.settled()
        now = self._clock.now()
        due = [notice for notice in self.notices if notice.due_at is not None and notice.due_at <= now]
        await asyncio.gather(*(self._send(notice) for notice in due))
        return len(due)

    async def close(self) -> None:
        """Cut what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(self, notice: Notice) -> None:
        url = notice.client.webhook_url
        now = self._clock.now()
        notice.status = None if url is None else await self._post(url, notice, int(now.timestamp()))
        notice.attempts += 1
        arrived = notice.status is not None and 200 <= notice.status < 300
        over = arrived or notice.attempts > len(AGAIN_S) or url is None
        notice.due_at = None if over else now + timedelta(seconds=AGAIN_S[notice.attempts - 1])

    async def _post(self, url: str, notice: Notice, timestamp: int) -> int | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        headers = {
            "content-type": "application/json",
            "webhook-id": notice.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(notice.client.webhook_secret, notice.id, timestamp, notice.body),
        }
        try:
            async with self._session.post(url, data=notice.body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64; `secret` is `whsec_` and base64."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
