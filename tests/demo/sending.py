"""Sending as providers do: signed afresh for every try, again after a cut connection or a 503, until it is acknowledged.

GitHub does not try again by itself; here it does, as its "redeliver" button would: under the same delivery id.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import aiohttp

from tests.demo.cast import Player, fates
from tests.demo.ledger import Fate, Ledger, Sending

ANSWER_S = 10.0  # how long a provider waits for one
LANES = 6  # requests that one provider has under way
PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0  # between tries; real ones take minutes
BETWEEN_S = 0.08  # deliveries of one lane, on average


class Post:
    """Takes deliveries to the gateway's public listener at `url`, and writes down what it answers."""

    def __init__(self, url: str, ledger: Ledger, chance: random.Random) -> None:
        self._url, self._ledger, self._chance = url, ledger, chance
        self.under_way = 0

    async def deliver(self, players: list[Player], each: int) -> None:
        """`each` deliveries of every player, mixed."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            asyncio.TaskGroup() as group,
        ):
            for player in players:
                for lane in range(LANES):
                    group.create_task(self._lane(http, player, range(lane, each, LANES)))

    async def _lane(self, http: aiohttp.ClientSession, player: Player, numbers: range) -> None:
        for number in numbers:
            await asyncio.sleep(self._chance.random() * 2 * BETWEEN_S)
            id = f"demo-{player.integration}-{number:05}"
            body, items = player.make(player, id, self._chance)
            sending = Sending(player.integration, id, body, items, fates(player, self._chance))
            self._ledger.sendings.append(sending)
            await self._until_answered(http, player, sending)
            if sending.fate is Fate.REPEATED:
                for _ in range(self._chance.randint(1, 2)):
                    await self._until_answered(http, player, sending)

    async def _until_answered(self, http: aiohttp.ClientSession, player: Player, sending: Sending) -> None:
        pause_s = PAUSE_S
        while True:
            sending.sent += 1
            self.under_way += 1
            began = asyncio.get_running_loop().time()
            try:
                status, said = await self._once(http, player, sending)
            except (aiohttp.ClientError, TimeoutError, OSError):
                sending.unanswered += 1
            else:
                if 200 <= status < 300:
                    sending.acknowledged += 1
                    self._ledger.ack_s.append(asyncio.get_running_loop().time() - began)
                    return
                if status < 500:
                    sending.refused[said] += 1
                    return
                sending.busy += 1
            finally:
                self.under_way -= 1
            await asyncio.sleep(pause_s * (0.5 + self._chance.random()))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _once(self, http: aiohttp.ClientSession, player: Player, sending: Sending) -> tuple[int, str]:
        fate, now, body = sending.fate, datetime.now(UTC), sending.body
        secret = self._chance.choice((player.secret, player.secret, player.secret, player.old_secret))
        if fate is Fate.FORGED:
            secret = player.forged
        if fate is Fate.STALE:
            now -= timedelta(hours=1)
        headers = player.headers(body, secret, now, sending.id, self._url)
        if fate is Fate.UNSIGNED:
            headers = {name: value for name, value in headers.items() if "signature" not in name}
        if fate is Fate.ALTERED:
            place = body.index(sending.id.encode())
            body = body[:place] + b"D" + body[place + 1 :]
        name = "nobodys" if fate is Fate.STRANGER else player.integration
        async with http.post(f"{self._url}/hooks/{name}", data=body, headers=headers) as answer:
            return answer.status, (await answer.text())[:60]
