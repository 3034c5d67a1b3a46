"""Writers of every kind at once, and what they swear to have committed.

- *Movers* do what a state change will do: lock one to three connections in turn, think a while, count each up, and
  append as the last statement of the transaction; some then change their mind and roll back.
- *Plain* writers append one statement at a time.
- *Senders* go through an `Appender`, several to each, as requests do.

An event's data names its line and its place in it: `c3:17` is the seventeenth of connection 3, counted under the
lock of its row; `s5:2` the second of sender 5, sent when the first was known to be kept. So order can be judged from
the log alone.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any
from uuid import UUID

from gateway.database import Database
from gateway.stream.append import NewEvent, append
from gateway.stream.appender import Appender
from tests.stream.making import appender, connect, event, fresh

TENANTS = ("acme", "globex", "initech")
MOVERS, PLAIN, APPENDERS, SENDERS_EACH = 8, 4, 4, 6  # sixteen writers on the database
COUNT_UP = """UPDATE gateway.connections
                 SET labels = jsonb_build_object('n', coalesce((labels->>'n')::int, 0) + 1)
               WHERE id = $1 RETURNING (labels->>'n')::int"""


class Traffic:
    """`total` events, more or less, by `seed`."""

    def __init__(self, database: Database, total: int, seed: int) -> None:
        self._database, self._total = database, total
        self._chance = random.Random(seed)
        self.connections: list[UUID] = []
        self.accounts: list[UUID] = []
        self.committed: Counter[str] = Counter()
        self.rolled_back = 0
        self.over = False

    async def set_up(self) -> None:
        """A dozen connections of three tenants."""
        async with self._database.acquire() as db:
            for number in range(12):
                self.accounts.append(fresh())
                tenant = TENANTS[number % len(TENANTS)]
                self.connections.append(await connect(db, tenant=tenant, accounts=(self.accounts[-1],)))

    async def run(self) -> None:
        """All writers until the total is reached; then `over`."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(MOVERS):
                    group.create_task(self._move())
                for number in range(PLAIN):
                    group.create_task(self._plain(f"p{number}"))
                for number in range(APPENDERS):
                    group.create_task(self._send(number))
        finally:
            self.over = True

    @property
    def _enough(self) -> bool:
        return self.committed.total() >= self._total

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.random() ** 4 * 0.02)

    async def _move(self) -> None:
        db = await self._database.connect()
        try:
            while not self._enough:
                await self._one_move(db)
        finally:
            await db.close()

    async def _one_move(self, db: Any) -> None:
        mine = sorted(self._chance.sample(range(12), self._chance.choice((1, 1, 2, 3))))
        transaction = db.transaction()
        await transaction.start()
        events: list[NewEvent] = []
        for number in mine:
            for _ in range(self._chance.choice((1, 1, 4))):
                place = await db.fetchval(COUNT_UP, self.connections[number])
                events.append(event(b"c%d:%d" % (number, place), connection=self.connections[number], delivery=None))
            await self._pause()
        await append(db, events)
        if self._chance.random() < 0.3:
            await self._pause()  # holding the append lock
        if self._chance.random() < 0.15:
            await transaction.rollback()
            self.rolled_back += 1
        else:
            await transaction.commit()
            self._swear(events)

    async def _plain(self, line: str) -> None:
        db = await self._database.connect()
        place = 0
        try:
            while not self._enough:
                events = [self._delivery(line, place := place + 1) for _ in range(self._chance.randint(1, 12))]
                await append(db, events)
                self._swear(events)
                await self._pause()
        finally:
            await db.close()

    async def _send(self, number: int) -> None:
        async with appender(self._database.dsn) as log, asyncio.TaskGroup() as group:
            for sender in range(SENDERS_EACH):
                group.create_task(self._sender(log, f"s{number * SENDERS_EACH + sender}"))

    async def _sender(self, log: Appender, line: str) -> None:
        place = 0
        while not self._enough:
            events = [self._delivery(line, place := place + 1) for _ in range(self._chance.choice((1, 1, 1, 5, 30)))]
            kept = await log.keep(events)
            assert not any(one.duplicate for one in kept)
            self._swear(events)

    def _delivery(self, line: str, place: int) -> NewEvent:
        account = self._chance.choice((*self.accounts, fresh()))  # some belong to nobody
        return event(f"{line}:{place}".encode(), accounts=(account,))

    def _swear(self, events: list[NewEvent]) -> None:
        self.committed.update(one.data.decode() for one in events)
