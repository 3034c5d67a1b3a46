"""`make bench-ingest`: acknowledged deliveries per second, against bare uvicorn and against one INSERT a request.

One gateway process, PostgreSQL and the load (wrk, a process of its own: 64 keep-alive connections, signed
GitHub-like bodies of 1.5 KB, distinct delivery ids) share this machine; durability is on and shown. The servers take
turns in interleaved rounds, so that whatever else the machine does meets all of them; figures are medians. A lost or
a doubled event ends the benchmark: after each round the log is compared with what wrk saw acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from gateway import embedded
from gateway.integrations import store
from gateway.integrations.wanted import Wanted
from gateway.migrate import migrate_for_tests
from gateway.vault.keyring import Keyring, generate
from tests.benchmarks import report

CONNECTIONS = 64
BODY_BYTES = 1500
SECRET = b"bench-signing-secret-of-a-decent-length"
MODES = ("bare", "gateway", "single")
LOG_EVENTS = 5_000_000
BATCH = "posthouse_commit_batch_events"

# Events and their dedupe keys as ingest makes them; bodies of the same size. Written by the server itself.
FILL = """
WITH made AS (
  INSERT INTO gateway.dedupe (key, expires_at)
  SELECT gen_random_uuid(), gateway.now() + interval '3 days' FROM generate_series(1, $1) RETURNING key)
INSERT INTO gateway.events (seq, at, id, type, time, integration_id, connections, tenants, partitions, accounts, signal,
                            content_type, delivery, data)
SELECT nextval('gateway.events_seq'), gateway.now(), key, 'posthouse.delivery.github.push', gateway.now(), $2, '{}', '{}',
       ARRAY[(get_byte(uuid_send(key), 15) & 63)::smallint], ARRAY[key], false, 'application/json', $3::json, $4::bytea
  FROM made"""


@dataclass(frozen=True, slots=True)
class Round:
    """What wrk saw in one round."""

    requests: int
    refused: int
    broken: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def per_second(self) -> float:
        return (self.requests - self.refused) / self.seconds


def bodies() -> list[str]:
    """Lines of signature and body, as `ingest.lua` reads them."""
    lines = []
    for number in range(64):
        body = {"ref": "refs/heads/main", "before": "0" * 40, "after": hashlib.sha1(b"%d" % number).hexdigest(),  # noqa: S324
                "repository": {"id": 1000 + number, "full_name": "acme/posthouse", "private": True},
                "sender": {"id": 77, "login": "octo"}, "installation": {"id": 42}, "commits": []}  # fmt: skip
        text = json.dumps(body)
        body["filler"] = "x" * (BODY_BYTES - len(text) - 14)
        text = json.dumps(body)
        lines.append("sha256=" + hmac.new(SECRET, text.encode(), "sha256").hexdigest() + " " + text)
    return lines


@asynccontextmanager
async def server(
    mode: str, environment: dict[str, str], counted: list[tuple[int, int]]
) -> AsyncIterator[tuple[str, int]]:
    """A server process: its URL and pid. At its end `counted` gets its commits and the events in them."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks._ingest_server", mode, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise SystemExit(f"the {mode} server did not start")
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
        if words := out.split():
            counted.append((int(words[0]), int(words[1])))


async def load(url: str, seconds: int, lines: Path, run: str) -> Round:
    """One round of wrk."""
    process = await asyncio.create_subprocess_exec(
        "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", "tests/benchmarks/ingest.lua", url + "/hooks/bench",
        "--", str(lines), run, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    words = next(line for line in out.decode().splitlines() if line.startswith("FIGURES")).split()[1:]
    return Round(int(words[0]), int(words[1]), int(words[2]) + int(words[3]), *map(float, words[4:]))


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has spent; nan where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def compare(db: asyncpg.Connection, run: str, seen: Round) -> None:
    """End the benchmark if an acknowledged delivery is missing or stands twice."""
    total, distinct = await db.fetchrow(
        """SELECT count(*), count(DISTINCT delivery->'headers'->>'x-github-delivery') FROM gateway.events
            WHERE delivery->'headers'->>'x-github-delivery' LIKE $1""",
        run + "-%",
    )
    acknowledged = seen.requests - seen.refused
    if total != distinct:
        raise SystemExit(f"{run}: {total - distinct} events stand twice")
    # wrk stops while requests are under way: those may be kept without having been counted
    if not acknowledged <= total <= acknowledged + CONNECTIONS:
        raise SystemExit(f"{run}: {acknowledged} acknowledged, {total} on the log")


async def fill(dsn: str, integration: object, count: int, lines: list[str]) -> None:
    """Bring the log to `count` events."""
    db = await asyncpg.connect(dsn, command_timeout=600)
    delivery = json.dumps(
        {"headers": {"x-github-delivery": "fill", "x-github-event": "push"}, "request": {"size": BODY_BYTES}}
    )
    body = lines[0].split(" ", 1)[1].encode()
    held = await db.fetchval("SELECT count(*) FROM gateway.events")
    while held < count:
        step = min(250_000, count - held)
        await db.execute(FILL, step, integration, delivery, body)
        held += step
        print(f"\r  log: {held:,} of {count:,} events", end="", flush=True)
    print()
    await db.execute("VACUUM (ANALYZE) gateway.dedupe")
    await db.execute("CHECKPOINT")
    await db.close()


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Everything: empty log first, then a full one."""
    postgres = await embedded.start(folder / "postgres")
    try:
        await migrate_for_tests(postgres.dsn)
        db = await asyncpg.connect(postgres.dsn)
        for name in ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "server_version"):
            print(f"SHOW {name}: {await db.fetchval(f'SHOW {name}')}")
        keyring = generate()
        integration = await declare(db, keyring)
        lines = bodies()
        (folder / "bodies.txt").write_text("\n".join(lines) + "\n")
        environment = os.environ | {
            "POSTHOUSE_DATABASE_URL": postgres.dsn, "POSTHOUSE_KEYRING": keyring.to_json(), "POSTHOUSE_LOG_LEVEL": "error",
        }  # fmt: skip
        rounds: dict[str, list[Round]] = {mode: [] for mode in (*MODES, "full")}
        cpu: dict[str, list[float]] = {mode: [] for mode in rounds}
        batches: list[float] = []

        async def once(mode: str, label: str) -> None:
            run = f"{label}{len(rounds[label])}"
            counted: list[tuple[int, int]] = []
            async with server(mode, environment, counted) as (url, pid):
                await load(url, 1, folder / "bodies.txt", f"warm-{run}")
                spent = cpu_s(pid)
                seen = await load(url, arguments.seconds, folder / "bodies.txt", run)
                cpu[label].append((cpu_s(pid) - spent) / seen.requests * 1e6)
            if seen.refused or seen.broken:
                raise SystemExit(f"{run}: {seen.refused} refused, {seen.broken} broken")
            if mode != "bare":
                await compare(db, run, seen)
            if mode == "gateway":
                batches.append(counted[0][1] / counted[0][0])
            rounds[label].append(seen)
            print(
                f"  {label:8} {seen.per_second:10,.0f}/s   p50 {seen.p50_ms:6.2f} ms   p99 {seen.p99_ms:6.2f} ms   cpu {cpu[label][-1]:5.1f} us"
            )

        for _ in range(arguments.rounds):
            for mode in MODES:
                await once(mode, mode)
        await fill(postgres.dsn, integration, arguments.log_events, lines)
        for _ in range(arguments.rounds):
            await once("gateway", "full")
        await db.close()
        conclude(rounds, cpu, batches, arguments)
    finally:
        await postgres.stop()


async def declare(db: asyncpg.Connection, keyring: Keyring) -> object:
    """One GitHub integration that knows the load's secret."""
    wanted = Wanted(name="bench", provider="github", secrets={"signing_secrets": (SECRET,)})
    async with db.transaction():
        return (await store.create(db, keyring, wanted, datetime.now(UTC), by="file")).id


def conclude(
    rounds: dict[str, list[Round]], cpu: dict[str, list[float]], batches: list[float], arguments: argparse.Namespace
) -> None:
    """Medians, ratios, goals."""
    rate = {label: statistics.median(r.per_second for r in of) for label, of in rounds.items()}
    p99 = {label: statistics.median(r.p99_ms for r in of) for label, of in rounds.items()}
    p50 = {label: statistics.median(r.p50_ms for r in of) for label, of in rounds.items()}
    batch = statistics.median(batches)
    report.write(
        "ingest",
        {
            "rounds": arguments.rounds, "seconds a round": arguments.seconds, "connections": CONNECTIONS, "body bytes": BODY_BYTES,
            "bare uvicorn/s": rate["bare"], "gateway/s": rate["gateway"], "one INSERT a request/s": rate["single"],
            f"gateway/s with {arguments.log_events:,} events": rate["full"],
            "commits/s": rate["gateway"] / batch, "mean batch": batch,
            "server cpu us, bare": statistics.median(cpu["bare"]), "server cpu us, gateway": statistics.median(cpu["gateway"]),
            "p50 ms": p50["gateway"], "p99 ms": p99["gateway"], "p99 ms full": p99["full"], "p99 ms bare": p99["bare"],
        },
        [
            report.Goal("x bare uvicorn", rate["gateway"] / rate["bare"], 0.45, "higher"),
            report.Goal("x one INSERT a request", rate["gateway"] / rate["single"], 2.0, "higher"),
            report.Goal("p99 ms", p99["gateway"], 30.0, "lower"),
            report.Goal("full log x empty log", rate["full"] / rate["gateway"], 0.8, "higher"),
        ],
    )  # fmt: skip


def main() -> None:
    """Parse, find wrk, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--log-events", type=int, default=LOG_EVENTS)
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("bench-ingest needs wrk (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-") as folder:
        asyncio.run(measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
