"""A burst of revocations behind a backlog: the follower is kept away until all of it is on the log, then it is let go.

Kept away as any consumer's worker is: the benchmark holds the leases of all its partitions. Each account is revoked
twice, in an order that shows: its person's token first, then the whole installation. Told the other way round, the
second would find nothing left to move.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import asyncpg

from gateway.database import Database
from gateway.follower.follower import NAME
from gateway.stream import consumers
from tests.benchmarks._accounts import Account
from tests.benchmarks._revoking import Kind, post, revocation

HOLDER, HELD_S = "bench", 3600.0
SENDERS = 32
PATIENCE_S = 600.0
LOOK_S = 0.02
SIGNALS: tuple[Kind, ...] = ("tokens_revoked", "app_uninstalled")
STORY = ["user tokens_revoked moved", "bot app_uninstalled moved", "user app_uninstalled stays"]

STORIES = """
SELECT h.connection_id, array_agg(h.access_profile || ' ' || h.cause || ' ' || h.outcome ORDER BY h.id) AS told,
       array_agg(e.seq ORDER BY h.id) AS seqs
  FROM gateway.history h JOIN gateway.events e ON e.id = h.evidence
 WHERE h.connection_id = ANY ($1::uuid[]) GROUP BY h.connection_id"""
EVENTS = """
SELECT connections[1] AS connection_id, array_agg(type ORDER BY seq) AS types FROM gateway.events
 WHERE connections && $1::uuid[] AND type LIKE 'posthouse.connection.%' GROUP BY 1"""
DONE = "SELECT count(*) >= $2 FROM gateway.history WHERE connection_id = ANY ($1::uuid[])"
TAKEN = "SELECT EXISTS (SELECT FROM gateway.consumer_partitions WHERE consumer = $1 AND worker <> $2 AND lease_until > gateway.now())"
REVOKED = "SELECT count(*) FROM gateway.connections WHERE id = ANY ($1::uuid[]) AND state = 'revoked'"


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of it."""

    signals: int
    seconds: float  # from the follower's first lease to the last transition

    @property
    def per_second(self) -> float:
        return self.signals / self.seconds


async def keep_away(database: Database) -> None:
    """Hold every partition of the follower's."""
    held = await consumers.lease(database, NAME, HOLDER, HELD_S)
    if len(held) != consumers.PARTITIONS:
        raise SystemExit(f"the follower was not gone: {len(held)} partitions are free")


async def send(http: aiohttp.ClientSession, public: str, accounts: Sequence[Account], seed: int = 4) -> None:
    """Every signal of every account, over real HTTP: shuffled, but those of one account in their order."""

    async def sender(share: Sequence[Account], chance: random.Random) -> None:
        turns = [account for account in share for _ in SIGNALS]
        chance.shuffle(turns)
        sent = dict.fromkeys(share, 0)
        for account in turns:
            kind = SIGNALS[sent[account]]
            sent[account] += 1
            await post(http, public, revocation(account, kind, f"{account.name}-{kind}"))

    await asyncio.gather(*(sender(accounts[n::SENDERS], random.Random(seed + n)) for n in range(SENDERS)))


async def applied(database: Database, db: asyncpg.Connection, accounts: Sequence[Account]) -> Burst:
    """Let the follower go, and wait for the last transition. Ends the benchmark if anything is missing or out of order."""
    connections, loop = [account.connection for account in accounts], asyncio.get_running_loop()
    if await db.fetchval(DONE, connections, 1):
        raise SystemExit("the follower was at work before it was let go")
    async with asyncio.timeout(PATIENCE_S):
        await consumers.leave(database, NAME, HOLDER)
        await _until(db, TAKEN, NAME, HOLDER)
        began = loop.time()
        await _until(db, DONE, connections, len(accounts) * len(STORY))
        burst = Burst(len(accounts) * len(SIGNALS), loop.time() - began)
    await check(db, accounts)
    return burst


async def check(db: asyncpg.Connection, accounts: Sequence[Account]) -> None:
    """Nothing lost, nothing twice, everything in the order in which it came."""
    connections = [account.connection for account in accounts]
    stories = await db.fetch(STORIES, connections)
    wrong = [row["told"] for row in stories if row["told"] != STORY or row["seqs"] != sorted(row["seqs"])]
    if wrong or len(stories) != len(accounts):
        raise SystemExit(f"{len(stories)} of {len(accounts)} stories, {len(wrong)} of them wrong: {wrong[:2]}")
    if (revoked := await db.fetchval(REVOKED, connections)) != len(accounts):
        raise SystemExit(f"{revoked} of {len(accounts)} connections are revoked")
    told = {tuple(row["types"]) for row in await db.fetch(EVENTS, connections)}
    # one transaction may hold both signals, and says then what it came to
    revoked_type, between = "posthouse.connection.revoked", "posthouse.connection.reauth_required"
    if not told or not told <= {(revoked_type,), (between, revoked_type)}:
        raise SystemExit(f"the stream tells another story: {told}")


async def _until(db: asyncpg.Connection, question: str, *arguments: object) -> None:
    """Ask until the answer is yes."""
    while True:
        if await db.fetchval(question, *arguments):
            return
        await asyncio.sleep(LOOK_S)
