"""A provider under chaos: 32 keep-alive connections that send, try again, and write down what was acknowledged."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.fleet import PUBLIC_URL, Fleet
from tests.faults.ledger import Ledger
from tests.faults.mail import Mail, mail
from tests.flows import raw
from tests.flows.raw import Connection, NoAnswer

CONNECTIONS = 32


@dataclass
class Tally:
    """What the sender saw."""

    deliveries: int = 0
    attempts: int = 0
    unanswered: int = 0
    put_off: int = 0  # answered 5xx
    acknowledged: int = 0  # deliveries whose line is on disk
    items: int = 0  # of those
    forged: int = 0  # refused, as they should
    by: Counter[int] = field(default_factory=Counter)  # acknowledgements by gateway
    faults: list[str] = field(default_factory=list)  # answers that should not have been


class Sender:
    """`start`, then `stop`; both sides of it are in `tally`, `ledger` and `given_up`."""

    def __init__(self, fleet: Fleet, seed: str, path: Path) -> None:
        self._fleet, self._seed = fleet, seed
        self.ledger, self.tally = Ledger(path), Tally()
        self.given_up: dict[int, str] = {}
        self._stopping = False
        self._workers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._workers = [asyncio.create_task(self._work(number)) for number in range(CONNECTIONS)]

    async def stop(self) -> None:
        """Finish what is under way; every patient delivery is acknowledged in the end."""
        self._stopping = True
        try:
            await asyncio.wait_for(asyncio.gather(*self._workers), 60)
        finally:
            for worker in self._workers:
                worker.cancel()
            self.ledger.close()

    async def _work(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        line = Line(self._fleet, chance)
        while not self._stopping:
            self.tally.deliveries += 1
            await self._deliver(mail(self.tally.deliveries, chance), line, chance)
            if chance.random() < 0.02:
                line.hang_up()  # the next may go to the other gateway: it may have come back meanwhile
        line.hang_up()

    async def _deliver(self, one: Mail, line: Line, chance: random.Random) -> None:
        """Until it is acknowledged, refused, or given up."""
        unknown = 0
        while True:
            self.tally.attempts += 1
            status = await line.attempt(one)
            if status is None:
                self.tally.unanswered += 1
                unknown += line.sent
            elif status >= 500:
                self.tally.put_off += 1
                unknown += 1
            else:
                await self._answered(one, status, unknown, line.gateway)
                return
            if not one.patient and not one.forged:
                self.given_up[one.number] = one.items
                return
            await asyncio.sleep(chance.uniform(0.02, 0.2))

    async def _answered(self, one: Mail, status: int, unknown: int, gateway: int) -> None:
        if one.forged != (400 <= status < 500) or one.forged == (status < 300):
            self.tally.faults.append(f"{one.name} {one.number}, forged: {one.forged}, got {status}")
        elif one.forged:
            self.tally.forged += 1
        else:
            await self.ledger.note(one.number, one.items, unknown)
            self.tally.acknowledged += 1
            self.tally.items += len(one.items)
            self.tally.by[gateway] += 1


class Line:
    """One of the connections: to whichever gateway takes it."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self._fleet, self._chance = fleet, chance
        self._connection: Connection | None = None
        self.gateway = 0  # the number of the one at the other end
        self.sent = False  # whether the last attempt left this machine's hands

    async def attempt(self, one: Mail) -> int | None:
        """The status, or None where no answer came."""
        target = f"/hooks/{one.name}"
        headers, body = one.request(target, PUBLIC_URL, datetime.now(UTC))
        self.sent = False
        try:
            if self._connection is None:
                self.gateway = self._chance.randrange(len(self._fleet.gateways))
                self._connection = await Connection.open(self._fleet.gateways[self.gateway].public)
            self.sent = True
            return (await self._connection.ask(raw.request(target, headers, body))).status
        except (NoAnswer, OSError):
            self.hang_up()
            return None

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.hang_up()
            self._connection = None
