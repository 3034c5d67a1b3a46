"""`make bench-revocation`: from a signed revocation to its event at a consumer and to the token API refusing.

One `posthouse serve`, PostgreSQL and the load share this machine; durability is on.

idle      nobody calls: what the gateway's watching costs
latency   Slack's `app_uninstalled` beside 500 other deliveries a second. Beside it, of the same POSTs: when the delivery
          itself is at the consumer, which is what the stream costs without any machine.
contested the same where the signal names no time: the token is refused at once, the state moves when the provider has
          been asked (a fake one, over HTTP)
burst     10,000 revocations behind a backlog of 200,000 deliveries, against the plain ingest rate of the same run
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from gateway import embedded
from gateway.database import Database
from gateway.migrate import migrate_for_tests
from tests.benchmarks import _burst, ingest, report
from tests.benchmarks._revoking import Kind, Platform, Signed, Times, paced, percentile, post, timed
from tests.benchmarks._servers import cpu_s, wrk
from tests.benchmarks._stage import House, Served, dead_provider, declare

LOAD = 500  # deliveries a second
RATE = 10.0  # revocations a second among them
BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'posthouse'"
XACTS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each."""

    revocations: int = 500
    contested: int = 100
    burst: int = 10_000  # signals: two of each account
    backlog: int = 200_000
    idle_s: float = 15.0
    plain_s: int = 6


SHORT = Sizes(revocations=60, contested=20, burst=1_000, backlog=20_000, idle_s=3.0, plain_s=2)


async def idle(db: asyncpg.Connection, served: Served, seconds: float) -> dict[str, Any]:
    """What the gateway and the database spend while nobody calls."""
    await asyncio.sleep(2)  # the start's own work
    pids = [row["pid"] for row in await db.fetch(BACKENDS)]
    before = (cpu_s(served.pid), sum(map(cpu_s, pids)), await db.fetchval(XACTS))
    await asyncio.sleep(seconds)
    after = (cpu_s(served.pid), sum(map(cpu_s, pids)), await db.fetchval(XACTS))
    gateway, database, xacts = ((now - then) / seconds for then, now in zip(before, after, strict=True))
    return {
        "idle: gateway cpu ms/s": gateway * 1000, "idle: database cpu ms/s": database * 1000, "idle: transactions/s": xacts,
    }  # fmt: skip


async def latency(
    http: aiohttp.ClientSession, served: Served, house: House
) -> tuple[list[Times], list[Times], dict[str, Any]]:
    """Revocations, then contested ones, beside the load."""
    lines = [line.split(" ", 1) for line in ingest.bodies()]
    platform, over = Platform(http, served.private, house.key), asyncio.Event()

    async def other(number: int) -> None:
        signature, body = lines[number % len(lines)]
        headers = {
            "content-type": "application/json", "x-github-event": "push", "x-github-delivery": f"load-{number}",
            "x-hub-signature-256": signature,
        }  # fmt: skip
        await post(http, served.public, Signed("/hooks/bench", headers, body.encode()))

    async def part(name: str, kind: Kind) -> list[Times]:
        times: list[Times] = []

        async def one(number: int) -> None:
            times.append(await timed(http, served.public, platform, house.accounts[name][number], kind))

        await paced(RATE, one, until=len(house.accounts[name]))
        return times

    loop = asyncio.get_running_loop()
    async with platform.listening(), asyncio.TaskGroup() as group:
        loading = group.create_task(paced(LOAD, other, until=over))
        await asyncio.sleep(1)
        began, spent = loop.time(), cpu_s(served.pid)
        straight = await part("latency", "app_uninstalled")
        cpu = (cpu_s(served.pid) - spent) / (loop.time() - began)
        contested = await part("contested", "grant.revoked")
        over.set()
    rate = loading.result() / (loop.time() - began + 1)
    return straight, contested, {"load: deliveries/s": rate, "load: gateway cpu of one core": cpu}


async def measure(dsn: str, folder: Path, sizes: Sizes) -> tuple[dict[str, Any], list[report.Goal]]:
    """All parts, one after the other, on an empty migrated database."""
    async with dead_provider() as provider_url, aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as http:  # fmt: skip
        house = await declare(
            dsn, folder, provider_url, latency=sizes.revocations, contested=sizes.contested,
            burst=sizes.burst // len(_burst.SIGNALS),
        )  # fmt: skip
        db, database = await asyncpg.connect(dsn, command_timeout=600), Database(dsn)
        await database.open()
        try:
            async with house.served() as served:
                figures = await idle(db, served, sizes.idle_s)
                straight, contested, more = await latency(http, served, house)
                (folder / "bodies.txt").write_text("\n".join(ingest.bodies()) + "\n")
                plain = await wrk(
                    served.public + "/hooks/bench", "tests/benchmarks/ingest.lua", ingest.CONNECTIONS, sizes.plain_s,
                    str(folder / "bodies.txt"), "plain",
                )  # fmt: skip
            await _burst.keep_away(database)
            held = await db.fetchval("SELECT count(*) FROM gateway.events")
            await ingest.fill(dsn, house.github, held + sizes.backlog, ingest.bodies())
            async with house.served() as served:
                await _burst.send(http, served.public, house.accounts["burst"])
                spent = cpu_s(served.pid)
                burst = await _burst.applied(database, db, house.accounts["burst"])
                spent = cpu_s(served.pid) - spent
        finally:
            await database.close()
            await db.close()
    figures |= more | {
        **shown("", straight), **shown("contested: ", contested),
        "burst: signals": burst.signals, "burst: backlog": sizes.backlog, "burst: seconds": burst.seconds,
        "burst: transitions/s": burst.per_second, "burst: gateway cpu us a transition": spent / burst.signals * 1e6,
        "plain ingest/s": plain.per_second,
    }  # fmt: skip
    return figures, [
        report.Goal("event p99 ms", percentile([one.told for one in straight], 0.99), 100, "lower"),
        report.Goal("event max ms", max(one.told for one in straight), 1000, "lower"),
        report.Goal("refusal p99 ms", percentile([one.refused for one in straight], 0.99), 100, "lower"),
        report.Goal("refusal max ms", max(one.refused for one in straight), 1000, "lower"),
        report.Goal("contested refusal p99 ms", percentile([one.refused for one in contested], 0.99), 100, "lower"),
        report.Goal("burst x plain ingest", burst.per_second / plain.per_second, 0.25, "higher"),
    ]


def shown(part: str, times: Sequence[Times]) -> dict[str, float]:
    """p50, p99 and the longest of each."""
    names = {"acknowledged": "POST answered", "delivered": "delivery at the consumer", "told": "transition at the consumer",
             "refused": "token refused"}  # fmt: skip
    figures = {}
    for field, name in names.items():
        values = [getattr(one, field) for one in times]
        for label, value in (("p50", percentile(values, 0.5)), ("p99", percentile(values, 0.99)), ("max", max(values))):
            figures[f"{part}{name}, {label} ms"] = value
    added = [one.told - one.refused for one in times] if part else [one.told - one.delivered for one in times]
    figures[f"{part}added by the {'check' if part else 'machine'}, p50 ms"] = percentile(added, 0.5)
    return figures


async def run(sizes: Sizes) -> None:
    """On a database of its own, as durable as it ships."""
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-") as folder:
        postgres = await embedded.start(Path(folder) / "postgres")
        try:
            await migrate_for_tests(postgres.dsn)
            figures, goals = await measure(postgres.dsn, Path(folder), sizes)
        finally:
            await postgres.stop()
    report.write("revocation", figures, goals)


def main() -> None:
    """Parse, find wrk, run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tenth of it")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("bench-revocation needs wrk (Debian: apt-get install wrk)")
    asyncio.run(run(SHORT if arguments.short else Sizes()))


if __name__ == "__main__":
    main()
