"""An outage of GitHub's token endpoint, met by two processes with all that they are made of: readers, checks, schedulers.

Time is a test's: both processes' clocks and the database's are moved together, step by step.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import parse_qs

from gateway import listen, metrics
from gateway.connections import renewals
from gateway.errors import Problem
from gateway.service import Gateway
from gateway.tokens.check import Read
from providers import github
from subscriptions.hours import QuietHours
from subscriptions.renewal import Renewal
from subscriptions.scheduler import Scheduler
from tests.checking.crowd import Crowd
from tests.clock import FakeClock
from tests.follower.services import moved

Failure = Literal["refused", "hangs", "503", "page", "invalid_grant"]
FAILURES: tuple[Failure, ...] = ("refused", "hangs", "503", "page", "invalid_grant")
JSON, HTML = "application/json", "text/html"
PAGE = "<!doctype html><h1>Please log in to the network</h1>"
DEAD = '{"error": "bad_refresh_token"}'  # with status 200, as GitHub says it
LIFE_S = 3600

# Tokens of an hour that are in use: all of them run out within so long.
EXPIRING = f"""UPDATE gateway.tokens SET issued_at = s.over_at - interval '{LIFE_S} seconds', expires_at = s.over_at
                 FROM (SELECT connection_id, gateway.now() + get_byte(uuid_send(connection_id), 15) / 256.0 * make_interval(secs => $1)
                              AS over_at FROM gateway.tokens) AS s
                WHERE s.connection_id = tokens.connection_id"""  # noqa: S608 - a constant
USED = "UPDATE gateway.renewals SET used_at = gateway.now()"
ILL = """SELECT count(*) FILTER (WHERE g.state <> 'active') AS moved, count(*) FILTER (WHERE t.expires_at <= gateway.now()) AS over,
                (SELECT count(*) FROM gateway.grant_checks) AS checks, (SELECT count(*) FROM gateway.breakers) AS shut,
                (SELECT count(*) FROM gateway.provider_conditions WHERE degraded_since IS NOT NULL) AS degraded
           FROM gateway.grants g JOIN gateway.tokens t USING (connection_id, access_profile)"""


@dataclass
class Endpoint:
    """A token endpoint that rotates strictly: a refresh token that is spent twice is the end of its grant."""

    port: int = 0
    failure: Failure | None = None
    current: dict[str, int] = field(
        default_factory=dict
    )  # by the grant's first refresh token: which one of its is alive
    spent_twice: int = 0
    _server: asyncio.Server | None = None

    async def open(self) -> None:
        bound = listen.bind(f"127.0.0.1:{self.port}", "endpoint")
        self.port = bound.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=bound)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def fails(self, failure: Failure | None) -> None:
        """From now on; None: it is back."""
        self.failure = failure
        if failure == "refused":
            await self.close()
        elif self._server is None:
            await self.open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if self.failure == "hangs":
                await reader.read()  # until whoever waits has had enough
                return
            status, kind, text = self._answer(parse_qs(body.decode())["refresh_token"][0])
            writer.write(
                f"HTTP/1.1 {status} _\r\ncontent-type: {kind}\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode()
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # whoever asked has gone
        finally:
            writer.close()

    def _answer(self, refresh: str) -> tuple[int, str, str]:
        match self.failure:
            case "503":
                return 503, HTML, PAGE
            case "page":
                return 200, HTML, PAGE
            case "invalid_grant":
                return 200, JSON, DEAD
        grant, _, number = refresh.partition(".")
        if self.current.get(grant, 0) != int(number or 0):
            self.spent_twice += 1
            return 200, JSON, DEAD
        self.current[grant] = int(number or 0) + 1
        new = f'{{"access_token": "new {grant}", "refresh_token": "{grant}.{self.current[grant]}", "expires_in": {LIFE_S * 8}}}'
        return 200, JSON, new


@dataclass
class Outage:
    """Two processes, a crowd of connections, and an endpoint that fails."""

    many: Crowd
    endpoint: Endpoint
    clock: FakeClock
    processes: list[tuple[Gateway, Scheduler]]
    told: set[str] = field(default_factory=set)  # what readers were told
    _chance: random.Random = field(default_factory=lambda: random.Random(5))

    @property
    def database(self) -> Any:
        return self.processes[0][0].regions.home.database

    @property
    def calls(self) -> int:
        """Of the token endpoint, whatever became of them."""
        found = 0.0
        for family in metrics.OUTBOUND_CALLS.collect():
            for sample in family.samples:
                if sample.name.endswith("_total") and sample.labels["kind"] == "token":
                    found += sample.value
        return int(found)

    async def step(self, seconds: float, reads: int = 2) -> int:
        """So long later: both processes do whatever they have to, and some users read; how many calls that took."""
        before = self.calls
        self.clock.move(seconds)
        await self.database.execute(
            "UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)", seconds
        )
        for gateway, _ in self.processes:
            await gateway.catalog.run_once()
            await gateway.processes["default"].run_once()
            await gateway.breakers["default"].run_once()
        work = [self._work(gateway, scheduler) for gateway, scheduler in self.processes]
        await asyncio.gather(*work, *(self._read() for _ in range(reads)))
        return self.calls - before

    async def used(self) -> None:
        """Everybody's tokens are asked for; that is known by now."""
        await self.database.execute(USED)

    async def ill(self) -> dict[str, int]:
        """What is not as it should be."""
        return {name: number for name, number in dict(await self.database.fetchrow(ILL)).items() if number}

    async def _work(self, gateway: Gateway, scheduler: Scheduler) -> None:
        while await gateway.checkers["default"].run_once():
            pass
        await scheduler.run_once()

    async def _read(self) -> None:
        gateway, _ = self._chance.choice(self.processes)
        connection = self._chance.choice(self.many.ids)
        try:
            await gateway.tokens.read(Read(connection, "user", 0, connection))
        except Problem as problem:
            self.told.add(problem.code)
        else:
            self.told.add("served")


@asynccontextmanager
async def outage(
    many: Crowd, clock: FakeClock, second: Gateway, chance: Callable[[], float], within_s: float
) -> AsyncIterator[Outage]:
    """Everything of the crowd is in use and runs out within so long, and the endpoint answers still."""
    endpoint = Endpoint()
    await endpoint.open()
    gateways = [many.street.gateway, second]
    processes = []
    for gateway in gateways:
        region = gateway.regions.home
        renewal = Renewal(region, gateway.refresher, QuietHours(clock), chance, gateway.draining)
        processes.append(
            (gateway, Scheduler(region, gateway.catalog, renewal, gateway.breakers["default"], 256, gateway.draining))
        )
    made = Outage(many, endpoint, clock, processes)
    await made.database.execute(EXPIRING, within_s)
    async with made.database.transaction() as tx:
        await renewals.touch(tx, many.ids)
    await made.used()
    await made.database.execute("ANALYZE gateway.renewals, gateway.tokens, gateway.renewal_queues")
    try:
        with moved(github, replace(github.OAUTH, token_url=f"http://127.0.0.1:{endpoint.port}/token")):
            for gateway in gateways:
                await gateway.catalog.refresh()  # reads the providers anew
            for _, scheduler in processes:
                await scheduler.start()
            yield made
    finally:
        for _, scheduler in processes:
            await scheduler.close()
        await endpoint.close()
