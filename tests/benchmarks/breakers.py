"""`make bench-breakers`: what a provider that hangs costs the others.

One `posthouse serve`, PostgreSQL, the providers and the load share this machine. The same load is run in pairs: 1,000 callers
ask for Slack tokens, each again when it is told to; beside them come token reads and refreshes at Google, and GitHub's
deliveries. In the undisturbed run of a pair the callers' tokens are good; in the other all of them have expired, and Slack's
token endpoint takes connections and never answers. Some Slack tokens are good in both: they are served all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from aiohttp import web

from gateway import embedded
from gateway.access import keys
from gateway.database import Database
from gateway.integrations import store
from gateway.integrations.wanted import Wanted
from gateway.migrate import migrate_for_tests
from gateway.vault.keyring import generate
from tests.benchmarks import _accounts, ingest, report
from tests.benchmarks._accounts import Account
from tests.benchmarks._revoking import SIGNING_SECRET, paced, percentile
from tests.ops.processes import Command, environment

READS, REFRESHES, DELIVERIES, GOOD = 100.0, 10.0, 100.0, 20.0  # a second
AGAIN_S = 4.0  # a caller asks again after so long, or when it is told to
MEASURED = ("google read", "google refresh", "acknowledgement")
OVER = (
    "UPDATE gateway.tokens SET expires_at = gateway.now() - interval '1 second' WHERE connection_id = ANY ($1::uuid[])"
)
FRESH = "UPDATE gateway.tokens SET expires_at = gateway.now() + interval '1 day' WHERE connection_id = ANY ($1::uuid[])"
WELL = (
    "DELETE FROM gateway.breakers", "DELETE FROM gateway.refreshes", "DELETE FROM gateway.grant_checks",
    "UPDATE gateway.grants SET state = 'active', reason = NULL", "NOTIFY posthouse_breakers",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of it."""

    callers: int = 1000
    seconds: int = 20
    pairs: int = 3


SHORT = Sizes(callers=200, seconds=4, pairs=1)


@dataclass
class Load:
    """One run: how long each answer took, in ms, and what Slack's callers were told."""

    http: aiohttp.ClientSession
    public: str
    private: str
    key: str
    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    told: Counter[int] = field(default_factory=Counter)
    good: Counter[int] = field(default_factory=Counter)

    async def token(self, account: Account, name: str | None) -> tuple[int, float]:
        """Ask for one; status and Retry-After."""
        began = asyncio.get_running_loop().time()
        url = f"{self.private}/v1/connections/{account.shown}/token"
        async with self.http.get(url, headers={"Authorization": f"Bearer {self.key}"}) as answer:
            body = await answer.read()
            if name is not None:
                if answer.status != 200:
                    raise SystemExit(f"a {name} was answered {answer.status}: {body[:300]!r}")
                self.took[name].append((asyncio.get_running_loop().time() - began) * 1000)
            return answer.status, float(answer.headers.get("retry-after", 0))

    async def read(self, account: Account, name: str) -> None:
        """Google's: each is served, or the benchmark ends."""
        await self.token(account, name)

    async def caller(self, account: Account, over: asyncio.Event, first_s: float) -> None:
        """One of Slack's, who comes again."""
        pause_s = first_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await over.wait()
                    return
            status, after_s = await self.token(account, None)
            self.told[status] += 1
            pause_s = max(after_s, AGAIN_S)

    async def deliver(self, number: int, signed: tuple[str, str]) -> None:
        """One delivery of GitHub's."""
        began = asyncio.get_running_loop().time()
        headers = {
            "content-type": "application/json", "x-github-event": "push", "x-github-delivery": f"d{id(self)}-{number}",
            "x-hub-signature-256": signed[0],
        }  # fmt: skip
        async with self.http.post(f"{self.public}/hooks/github", data=signed[1].encode(), headers=headers) as answer:
            if answer.status != 200:
                raise SystemExit(f"a delivery was answered {answer.status}")
        self.took["acknowledgement"].append((asyncio.get_running_loop().time() - began) * 1000)

    async def run(self, accounts: Mapping[str, Sequence[Account]], expired: Sequence[Account], seconds: int) -> None:
        """All of it at once. `expired`: as many of Google's as are refreshed."""
        signed = [tuple(line.split(" ", 1)) for line in ingest.bodies()]
        reads, good, over = accounts["google"], accounts["good"], asyncio.Event()

        async def served(number: int) -> None:
            status, _ = await self.token(good[number % len(good)], None)
            self.good[status] += 1

        callers = [
            asyncio.create_task(self.caller(account, over, number / len(accounts["slack"])))
            for number, account in enumerate(accounts["slack"])
        ]
        await asyncio.sleep(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(
                paced(READS, lambda n: self.read(reads[n % len(reads)], "google read"), until=int(READS * seconds))
            )
            group.create_task(paced(REFRESHES, lambda n: self.read(expired[n], "google refresh"), until=len(expired)))
            group.create_task(
                paced(DELIVERIES, lambda n: self.deliver(n, signed[n % len(signed)]), until=int(DELIVERIES * seconds))  # type: ignore[arg-type]  # two words
            )
            group.create_task(paced(GOOD, served, until=int(GOOD * seconds)))
        over.set()
        await asyncio.gather(*callers)


@contextlib.asynccontextmanager
async def endpoint(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    """A provider's token endpoint, at a host of its own."""
    app = web.Application()
    app.router.add_post("/token", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    finally:
        await runner.cleanup()


async def answers(request: web.Request) -> web.Response:
    """Google's."""
    return web.json_response({"access_token": "new", "expires_in": 3600, "token_type": "Bearer"})


async def hangs(request: web.Request) -> web.Response:
    """Slack's."""
    await asyncio.sleep(60)
    return web.Response(status=503)


@contextlib.asynccontextmanager
async def served(settings: Mapping[str, str]) -> AsyncIterator[tuple[str, str]]:
    """The gateway's two URLs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks._breaking_server", env=environment({}) | dict(settings),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    found = re.search(r"public=(\S+)\s+private=(\S+)", await Command(process).until("posthouse: ready"))
    assert found is not None
    try:
        yield found[1], found[2]
    finally:
        process.terminate()
        await process.communicate()


async def measure(dsn: str, folder: Path, sizes: Sizes) -> tuple[dict[str, Any], list[report.Goal]]:
    """The pairs, on an empty migrated database."""
    keyring, now, refreshed = generate(), datetime.now(UTC), int(REFRESHES * sizes.seconds)
    client = {"client_secrets": (b"a client's secret",)}
    wanted = [
        Wanted(name="github", provider="github", secrets={"signing_secrets": (ingest.SECRET,)}),
        Wanted(name="slack", provider="slack", client_id="A1", secrets={"signing_secrets": (SIGNING_SECRET,), **client}),
        Wanted(name="google", provider="google", client_id="us", secrets=client),
    ]  # fmt: skip
    database = Database(dsn)
    await database.open()
    async with database.transaction() as tx:
        made = {one.name: (await store.create(tx, keyring, one, now, by="file")).id for one in wanted}
        key = (await keys.create(tx, keyring, now, name="bench")).token
    await database.close()
    accounts = {
        part: await _accounts.fill(
            dsn, keyring, made[of], [f"{part}{number}" for number in range(count)], profiles=("reader",), slack=of == "slack"
        )
        for part, of, count in (
            ("slack", "slack", sizes.callers), ("good", "slack", 50), ("google", "google", 50), ("over", "google", refreshed),
        )
    }  # fmt: skip
    db = await asyncpg.connect(dsn)
    runs: dict[bool, list[Load]] = {False: [], True: []}
    async with endpoint(answers) as google, endpoint(hangs) as slack, aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as http:  # fmt: skip
        settings = {
            "POSTHOUSE_DATABASE_URL": dsn, "POSTHOUSE_KEYRING": keyring.to_json(), "POSTHOUSE_HOME": str(folder),
            "POSTHOUSE_PUBLIC_LISTEN": "127.0.0.1:0", "POSTHOUSE_PRIVATE_LISTEN": "127.0.0.1:0",
            "POSTHOUSE_OUTBOUND_ALLOW": "127.0.0.0/8", "POSTHOUSE_LOG_LEVEL": "error", "POSTHOUSE_DRAIN_PAUSE_S": "0",
            "BENCH_GOOGLE": google, "BENCH_SLACK": slack,
        }  # fmt: skip
        async with served(settings) as (public, private):
            for number in range(2 * sizes.pairs + 1):
                disturbed = number > 0 and number % 2 == 0
                await db.execute(OVER if disturbed else FRESH, [one.connection for one in accounts["slack"]])
                await db.execute(OVER, [one.connection for one in accounts["over"]])
                load = Load(http, public, private, key)
                await load.run(accounts, accounts["over"], sizes.seconds)
                for statement in WELL:
                    await db.execute(statement)
                if number > 0:  # the first one warms everything
                    runs[disturbed].append(load)
    await db.close()
    return figures_of(runs)


def figures_of(runs: Mapping[bool, Sequence[Load]]) -> tuple[dict[str, Any], list[report.Goal]]:
    """p99 of each in either kind of run, the median over the pairs, and how they compare."""
    figures: dict[str, Any] = {}
    goals = []
    for name in MEASURED:
        p99 = {
            disturbed: statistics.median(percentile(run.took[name], 0.99) for run in of)
            for disturbed, of in runs.items()
        }
        figures |= {f"{name}, p99 ms": p99[False], f"{name} while Slack hangs, p99 ms": p99[True]}
        goals.append(report.Goal(f"{name} p99, disturbed x undisturbed", p99[True] / p99[False], 1.2, "lower"))
    told = sum((run.told for run in runs[True]), Counter())
    good = sum((run.good for run in runs[True]), Counter())
    figures |= {f"Slack's callers told {status}": number for status, number in sorted(told.items())}
    figures["unexpired Slack tokens served"] = good[200]
    goals.append(report.Goal("unexpired Slack tokens served", good[200] / good.total(), 1.0, "higher"))
    return figures, goals


async def run(sizes: Sizes) -> None:
    """On a database of its own, as durable as it ships."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-") as folder:
        postgres = await embedded.start(Path(folder) / "postgres")
        try:
            await migrate_for_tests(postgres.dsn)
            figures, goals = await measure(postgres.dsn, Path(folder), sizes)
        finally:
            await postgres.stop()
    report.write("breakers", figures, goals)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a small part of it")
    asyncio.run(run(SHORT if parser.parse_args().short else Sizes()))


if __name__ == "__main__":
    main()
