"""Four workers of one consumer, in processes of their own, killed at random while events flow."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from gateway.stream import consumers
from tests.client.town import PATIENCE_S, Town, take, texts, until
from tests.signers import SIGNERS
from tests.signers_a import stripe_event

CONSUMER, CONNECTIONS, WORKERS = "billing", 40, 4
MOST_AHEAD = 400  # events that the sender may be ahead of the workers: the kills are to fall into the flow
STRIPE = SIGNERS["stripe"]


class Workshop:
    """The workers, and the file in which each writes what it has done."""

    def __init__(self, house: Town, folder: Path) -> None:
        self._house, self.file = house, folder / "done"
        self.file.touch()
        self._seen, self._lines = self.file.open("rb"), 0
        self.alive: dict[str, asyncio.subprocess.Process] = {}
        self.killed: set[str] = set()

    async def hire(self) -> None:
        name = f"w{len(self.alive) + len(self.killed) + 1}"
        environment = {**os.environ, "POSTHOUSE_API_KEY": self._house.key}
        self.alive[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.client.worker", self._house.url, CONSUMER, name, str(self.file),
            env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def kill(self, name: str) -> None:
        process = self.alive.pop(name)
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL
        self.killed.add(name)

    async def leases_of_the_dead_end(self) -> None:
        """Time passes for them, and only for them: those alive renew in time."""
        for name in self.killed:
            await self._house.database.execute(
                "UPDATE gateway.consumer_partitions SET lease_until = '-infinity' WHERE worker = $1", name
            )
            await self._house.database.execute("DELETE FROM gateway.consumer_workers WHERE worker = $1", name)

    async def end(self) -> None:
        """SIGTERM for all, who give everything back."""
        self._seen.close()
        async with asyncio.timeout(PATIENCE_S):
            for process in self.alive.values():
                assert process.stdout is not None
                assert await process.stdout.readline()  # one that was hired a moment ago has no ear for signals yet
                process.terminate()
            for process in self.alive.values():
                assert await process.wait() == 0

    def count(self) -> int:
        """How many lines there are: asked often, so only what is new is read."""
        self._lines += self._seen.read().count(b"\n")
        return self._lines

    def did(self) -> list[tuple[str, int, str]]:
        """Connection, number, worker: in the order in which it was done."""
        lines = [line.split() for line in self.file.read_text().splitlines()]
        return [(connection, int(number), worker) for connection, number, worker in lines]


class Sender:
    """Stripe, with a counter for each account; the next is sent when the last was acknowledged."""

    def __init__(self, house: Town, workshop: Workshop) -> None:
        self._house, self._workshop = house, workshop
        self.sent: dict[str, int] = {}  # by connection
        self.enough = False

    async def run(self, connections: Mapping[str, str]) -> None:
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            for connection, account in connections.items():
                group.create_task(self._send(http, connection, account))

    async def _send(self, http: aiohttp.ClientSession, connection: str, account: str) -> None:
        number = 0
        while not self.enough:
            number += 1
            body = stripe_event(f"evt_{account}_{number}", account=account, n=number)
            url = f"{self._house.hooks}/pay"
            headers = STRIPE.headers(body, STRIPE.secrets[0], datetime.now(UTC), delivery_id="", url=url)
            async with http.post(url, data=body, headers=headers) as answer:
                assert answer.status == 200
            self.sent[connection] = number
            while not self.enough and sum(self.sent.values()) - self._workshop.count() > MOST_AHEAD:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def register(house: Town) -> dict[str, str]:
    """Connections by id, with their accounts."""
    async with house.client() as posthouse:
        secrets = [STRIPE.secrets[0].decode()]
        body = {"name": "pay", "provider": "stripe", "signing_secrets": secrets}
        await posthouse.request("POST", "/v1/integrations", json=body)
        await posthouse.create_tenant("acme")
        found = {}
        for number in range(CONNECTIONS):
            made = await posthouse.create_connection("acme", "pay", [f"account:acct_{number}"])
            found[made["id"]] = f"acct_{number}"
        return found


def judge(did: list[tuple[str, int, str]], sent: Mapping[str, int], killed: set[str]) -> int:
    """Nothing missed, order kept, repeats only directly behind one who was killed; how many repeats there were."""
    lines: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for connection, number, worker in did:
        lines[connection].append((number, worker))
    assert lines.keys() == sent.keys()
    repeats = 0
    for connection, steps in lines.items():
        first_times = list(dict.fromkeys(number for number, _ in steps))
        assert first_times == list(range(1, sent[connection] + 1))
        before, by = 0, ""
        for number, worker in steps:
            if worker == by or by not in killed:
                assert number == before + 1, f"{connection}: {number} by {worker} after {before} by {by}"
            else:
                assert number <= before + 1, (
                    f"{connection}: {number} by {worker} after {before} by {by}, who was killed"
                )
            before, by = number, worker
        repeats += len(steps) - len(first_times)
    return repeats


@pytest.mark.parametrize("kills", [6, pytest.param(40, marks=pytest.mark.long)])
async def test_killed_at_random_nothing_is_missed_and_order_is_kept(house: Town, tmp_path: Path, kills: int) -> None:
    """SIGKILL at a random moment, a new worker in its place: every connection's events are done in order, all of them."""
    chance = random.Random(kills)
    connections = await register(house)
    workshop = Workshop(house, tmp_path)
    sender = Sender(house, workshop)
    for _ in range(WORKERS):
        await workshop.hire()
    sending = asyncio.create_task(sender.run(connections))
    try:
        for _ in range(kills):
            goal = workshop.count() + chance.randint(50, 500)
            await until(partial(_done, workshop, goal))
            await workshop.kill(chance.choice([*workshop.alive]))
            await workshop.hire()
        sender.enough = True
        await sending
        await until(lambda: _all(workshop, sender))
        await workshop.end()
    finally:
        sender.enough = True
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        for name in [*workshop.alive]:
            if workshop.alive[name].returncode is None:
                await workshop.kill(name)
    repeats = judge(workshop.did(), sender.sent, workshop.killed)
    async with house.database.acquire() as db:
        [state] = await consumers.states(db, CONSUMER)
    assert state.leased == 0, "all is given back"
    await house.say("the end", type="posthouse.delivery.stripe.end")
    async with house.client() as posthouse:
        [entry] = await take(posthouse.events(CONSUMER, types=["posthouse.delivery.stripe"]), 1)
    assert texts([entry]) == ["the end"], "all is committed"
    print(f"{sum(sender.sent.values())} events, {kills} kills, {repeats} repeats")


async def _done(workshop: Workshop, goal: int) -> bool:
    await workshop.leases_of_the_dead_end()
    return workshop.count() >= goal


async def _all(workshop: Workshop, sender: Sender) -> bool:
    await workshop.leases_of_the_dead_end()
    total = sum(sender.sent.values())
    return workshop.count() >= total and total == len(
        {(connection, number) for connection, number, _ in workshop.did()}
    )
