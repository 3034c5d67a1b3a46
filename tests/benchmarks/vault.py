"""`make bench-vault`: reading a valid access token, against bare uvicorn answering a constant of the same size.

One gateway process, PostgreSQL and the load (wrk, a process of its own: 64 keep-alive connections) share this machine;
10,000 connections of 1,000 tenants are asked for in a random order, with an API key of the admin role. Every read is
checked against the database and audited, durably: the audit rows are counted against what wrk saw answered. The servers
take turns in interleaved rounds, so that whatever else the machine does meets all of them; figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from gateway import embedded, ids
from gateway.access import keys
from gateway.clock import SystemClock
from gateway.database import Database
from gateway.integrations import store
from gateway.integrations.wanted import Wanted
from gateway.migrate import migrate_for_tests
from gateway.vault.backend import LocalKeys
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Keyring, generate
from gateway.vault.tokens import Place, TokenVault
from tests.benchmarks import _sealing, report
from tests.benchmarks._servers import Round, cpu_s, server, wrk

CONNECTIONS = 64
TENANTS, PER_TENANT = 1_000, 10
TOKEN = "ya29." + "t" * 200
SERVER = "tests.benchmarks._vault_server"
MODES = ("bare", "gateway", "cold")


async def fill(dsn: str, keyring: Keyring, integration: UUID) -> list[UUID]:
    """10,000 connections of 1,000 tenants, each with an active grant and its sealed token set."""
    database, now = Database(dsn), datetime.now(UTC)
    await database.open()
    vault = TokenVault(DataKeys("default", database, LocalKeys(keyring), SystemClock()))
    tenants = [f"tenant-{number}" for number in range(TENANTS)]
    await vault.keys.for_sealing_all(tenants)
    made = [(ids.uuid7(now), tenant) for tenant in tenants for _ in range(PER_TENANT)]
    scopes = ["openid", "https://www.example.com/auth/mail.readonly"]
    connections, grants, tokens = [], [], []
    for connection, tenant in made:
        sealed = await vault.seal(Place("default", tenant, connection, "reader", 1, 1), TOKEN, "1//" + "r" * 100)
        connections.append((connection, tenant, integration, "active", now, now))
        grants.append((connection, "reader", "active", 1, 1, scopes, scopes, now))
        tokens.append(
            (
                connection, "reader", tenant, 1, 1, sealed.data_key_version, sealed.access, sealed.refresh, True, now,
                now + timedelta(days=1),
            )
        )  # fmt: skip
    db = await asyncpg.connect(dsn)
    for table, columns, rows in (
        ("connections", "id tenant_id integration_id state created_at updated_at", connections),
        ("grants", "connection_id access_profile state generation token_version requested granted granted_at", grants),
        (
            "tokens",
            "connection_id access_profile tenant_id generation token_version data_key_version sealed_access"
            " sealed_refresh has_refresh issued_at expires_at",
            tokens,
        ),
    ):
        await db.copy_records_to_table(table, schema_name="gateway", records=rows, columns=columns.split())
    await db.execute("VACUUM (ANALYZE)")
    await db.execute("CHECKPOINT")
    await db.close()
    await database.close()
    return [connection for connection, _ in made]


@dataclass
class Bench:
    """What the rounds share."""

    environment: dict[str, str]
    db: asyncpg.Connection
    paths: Path
    key: str

    async def once(self, mode: str, seconds: int) -> tuple[Round, float, float]:
        """A round: what wrk saw, the server's CPU in us a request, reads a check. Ends the benchmark on a lost audit row."""
        counted: list[tuple[int, int]] = []
        async with server(SERVER, mode, self.environment, counted) as (url, pid):
            await self._load(url, 1)
            spent, audited = cpu_s(pid), await self.db.fetchval("SELECT count(*) FROM gateway.audit")
            seen = await self._load(url, seconds)
            cpu = (cpu_s(pid) - spent) / seen.requests * 1e6
        if seen.refused or seen.broken:
            raise SystemExit(f"{mode}: {seen.refused} refused, {seen.broken} broken")
        audited = await self.db.fetchval("SELECT count(*) FROM gateway.audit") - audited
        # wrk stops while requests are under way: those may be audited without having been counted
        if mode != "bare" and not seen.requests <= audited <= seen.requests + 2 * CONNECTIONS:
            raise SystemExit(f"{mode}: {seen.requests} tokens read, {audited} audited")
        return seen, cpu, counted[0][1] / max(counted[0][0], 1)

    async def _load(self, url: str, seconds: int) -> Round:
        return await wrk(url, "tests/benchmarks/vault.lua", CONNECTIONS, seconds, str(self.paths), self.key)


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Fill, learn the answer's size, then the rounds."""
    postgres = await embedded.start(folder / "postgres")
    try:
        await migrate_for_tests(postgres.dsn)
        db = await asyncpg.connect(postgres.dsn)
        for name in ("fsync", "synchronous_commit", "shared_buffers", "server_version"):
            print(f"SHOW {name}: {await db.fetchval(f'SHOW {name}')}")
        keyring, now = generate(), datetime.now(UTC)
        async with db.transaction():
            wanted = Wanted(name="bench", provider="github", secrets={"signing_secrets": (b"a-decent-secret",)})
            integration = (await store.create(db, keyring, wanted, now, by="file")).id
            key = (await keys.create(db, keyring, now, name="bench")).token
        made = await fill(postgres.dsn, keyring, integration)
        paths = [f"/v1/connections/{ids.show(ids.CONNECTION, one)}/token" for one in made]
        (folder / "paths.txt").write_text("\n".join(paths) + "\n")
        environment = os.environ | {
            "POSTHOUSE_DATABASE_URL": postgres.dsn, "POSTHOUSE_KEYRING": keyring.to_json(), "BENCH_SIZE": "0",
        }  # fmt: skip
        async with server(SERVER, "gateway", environment, []) as (url, _):
            size = await asyncio.to_thread(_size, url + paths[0], key)
        bench = Bench(environment | {"BENCH_SIZE": str(size)}, db, folder / "paths.txt", key)
        rounds: dict[str, list[Round]] = {mode: [] for mode in MODES}
        cpu: dict[str, list[float]] = {mode: [] for mode in MODES}
        batches: list[float] = []
        for _ in range(arguments.rounds):
            for mode in arguments.modes.split(","):
                seen, spent, batch = await bench.once(mode, arguments.seconds)
                rounds[mode].append(seen)
                cpu[mode].append(spent)
                batches += [batch] if mode == "gateway" else []
                print(
                    f"  {mode:8} {seen.per_second:10,.0f}/s   p50 {seen.p50_ms:6.2f} ms   p99 {seen.p99_ms:6.2f} ms   cpu {spent:5.1f} us"
                )
        await db.close()
        if set(arguments.modes.split(",")) == set(MODES):
            conclude(rounds, cpu, batches, size, arguments)
    finally:
        await postgres.stop()


def _size(url: str, key: str) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})) as answer:  # noqa: S310
        return len(answer.read())


def conclude(
    rounds: dict[str, list[Round]], cpu: dict[str, list[float]], batches: list[float], size: int,
    arguments: argparse.Namespace,
) -> None:  # fmt: skip
    """Medians, ratios, goals."""
    rate = {mode: statistics.median(r.per_second for r in of) for mode, of in rounds.items()}
    p99 = {mode: statistics.median(r.p99_ms for r in of) for mode, of in rounds.items()}
    p50 = {mode: statistics.median(r.p50_ms for r in of) for mode, of in rounds.items()}
    report.write(
        "vault",
        {
            "rounds": arguments.rounds, "seconds a round": arguments.seconds, "connections": CONNECTIONS,
            "grants": TENANTS * PER_TENANT, "tenants": TENANTS, "answer bytes": size,
            "bare uvicorn/s": rate["bare"], "token reads/s": rate["gateway"], "reads a check": statistics.median(batches),
            "reads/s, cold (a data key unwrapped each time)": rate["cold"],
            "server cpu us, bare": statistics.median(cpu["bare"]), "server cpu us, gateway": statistics.median(cpu["gateway"]),
            "p50 ms bare": p50["bare"], "p99 ms bare": p99["bare"], "p50 ms": p50["gateway"], "p99 ms": p99["gateway"],
            "p99 ms, cold": p99["cold"], **_sealing.measure(),
        },
        [
            report.Goal("x bare uvicorn", rate["gateway"] / rate["bare"], 0.4, "higher"),
            report.Goal("p99 ms", p99["gateway"], 15.0, "lower"),
        ],
    )  # fmt: skip


def main() -> None:
    """Parse, find wrk, run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--modes", default=",".join(MODES))
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("bench-vault needs wrk (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory(prefix="posthouse-bench-") as folder:
        asyncio.run(measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
