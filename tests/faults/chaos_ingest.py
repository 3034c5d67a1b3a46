"""`make chaos-ingest`: SIGKILL at random moments, gateways and PostgreSQL alike, under load.

Every item that was acknowledged to the sender is on the stream exactly once (`ledger` says what that means where an
item has no id), nothing forged is, and everything comes back by itself. `--seed` repeats the choice of victims and
moments; what the processes were doing just then is theirs. `CHAOS_ROUNDS` is another way to say `--rounds`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import asyncpg

from tests.benchmarks import report
from tests.faults import fleet as fleets
from tests.faults.fleet import VICTIMS, Fleet, until
from tests.faults.ledger import Verdict, judge
from tests.faults.reader import Reader
from tests.faults.sender import CONNECTIONS, Sender

LOOK_EVERY = 5  # rounds
WELL = 20  # acknowledgements by each gateway since a kill: it is back


class Run:
    """Rounds of chaos, and what came of them."""

    def __init__(self, fleet: Fleet, seed: str, folder: Path) -> None:
        self._fleet, self._chance = fleet, random.Random(seed)
        self.folder = folder
        self.sender = Sender(fleet, seed, folder / "acknowledged.txt")
        self.reader = Reader(fleet, seed)
        self.kills: Counter[str] = Counter()
        self.recoveries_s: list[float] = []
        self.verdict = Verdict()
        self.log_size = 0
        self._judged = 0

    async def rounds(self, count: int) -> None:
        """All of it; the verdict stands in `verdict`."""
        self.sender.start()
        await self._well("the start")
        for number in range(1, count + 1):
            victim = self._chance.choice(VICTIMS)
            await asyncio.sleep(self._chance.uniform(0, 0.7))  # the random moment
            began, before = time.monotonic(), self.sender.tally.acknowledged
            self._fleet.kill(victim, self._chance)
            self.kills[victim] += 1
            if self._chance.random() < 0.8 or number == count:
                await self._well(victim)
                self.recoveries_s.append(time.monotonic() - began)
            print(
                f"  round {number:3}: {victim:24} {time.monotonic() - began:5.1f} s,"
                f" {self.sender.tally.acknowledged - before:6,} acknowledged since", flush=True,
            )  # fmt: skip
            if number % LOOK_EVERY == 0 and not await self._look():
                break
        await self.sender.stop()
        await self.reader.catch_up()
        await self.reader.stop()
        self.verdict = judge(self.sender.ledger.lines(), self.sender.given_up, self.reader.seen)
        self.log_size = await _log_size(self._fleet.postgres.dsn)

    async def _well(self, after: str) -> None:
        """Until each gateway acknowledges again."""
        before = self.sender.tally.by.copy()
        numbers = range(len(self._fleet.gateways))
        await until(lambda: all(self.sender.tally.by[n] >= before[n] + WELL for n in numbers), f"well after {after}")

    async def _look(self) -> bool:
        """Whether all that is acknowledged by now is there as it should; what is under way cannot be judged yet."""
        acknowledged = self.sender.ledger.lines()
        await self.reader.catch_up()
        found = judge(acknowledged[self._judged :], {}, self.reader.seen)
        if found.lost or found.doubled or found.split:
            return False
        self._judged = len(acknowledged)
        print(f"  {len(acknowledged):,} acknowledged deliveries: each is on the stream", flush=True)
        return True


async def run(rounds: int, seed: str, folder: Path) -> Run:
    """Run `rounds`, and stop everything."""
    async with fleets.running(folder) as fleet:
        made = Run(fleet, seed, folder)
        try:
            await made.rounds(rounds)
        except AssertionError as error:  # it did not come back: what the processes said tells why
            print(fleets.last_words(folder))
            raise error
        finally:
            await made.reader.stop()
        assert await fleet.stop() == [0, 0]
    return made


async def _log_size(dsn: str) -> int:
    db = await asyncpg.connect(dsn)
    try:
        return int(await db.fetchval("SELECT count(*) FROM gateway.events"))
    finally:
        await db.close()


def errors(folder: Path) -> Counter[str]:
    """What the gateways logged as errors, by event; a traceback counts as itself."""
    found: Counter[str] = Counter()
    for log in folder.glob("gateway-*.log"):
        for line in log.read_text().splitlines():
            if line.startswith("Traceback"):
                found["traceback"] += 1
            elif line.startswith("{") and (said := json.loads(line)).get("level") in ("error", "critical"):
                found[said["event"]] += 1
    return found


def conclude(made: Run, seed: str, seconds: float) -> bool:
    """Write and print; whether all is well."""
    tally, verdict = made.sender.tally, made.verdict
    logged = errors(made.folder)
    recoveries = made.recoveries_s or [float("nan")]
    report.write(
        "chaos-ingest",
        {
            "seed": seed, "rounds": sum(made.kills.values()), "seconds": seconds, "connections": CONNECTIONS,
            **{f"kills: {victim}": made.kills[victim] for victim in VICTIMS},
            "deliveries": tally.deliveries, "attempts": tally.attempts, "attempts without an answer": tally.unanswered,
            "attempts put off (5xx)": tally.put_off, "deliveries acknowledged": tally.acknowledged,
            "items acknowledged": tally.items, "given up (providers that never retry)": len(made.sender.given_up),
            "forgeries refused": tally.forged, "events on the stream": made.reader.events,
            "keyless items kept again after a lost answer": verdict.extra,
            "seconds until well, median": statistics.median(recoveries), "seconds until well, longest": max(recoveries),
            "errors logged": ", ".join(f"{name} x{n}" for name, n in logged.most_common()) or "none",
        },
        [
            report.Goal("lost", len(verdict.lost), 0, "lower"),
            report.Goal("doubled", len(verdict.doubled), 0, "lower"),
            report.Goal("split", len(verdict.split), 0, "lower"),
            report.Goal("forged or foreign on the stream", len(verdict.foreign), 0, "lower"),
            report.Goal("wrong answers", len(tally.faults), 0, "lower"),
            report.Goal("errors logged", logged.total(), 0, "lower"),
            report.Goal("log differs from what was read", abs(made.log_size - made.reader.events), 0, "lower"),
        ],
    )  # fmt: skip
    faults = [*verdict.faults(), *tally.faults]
    for fault in faults[:50]:
        print(fault)
    return not faults and not logged and made.log_size == made.reader.events


def main() -> int:
    """0 when nothing was lost, doubled, split or forged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("CHAOS_ROUNDS", "100")))
    parser.add_argument("--seed", default=os.environ.get("CHAOS_SEED") or str(random.randrange(1_000_000)))
    parser.add_argument("--folder", type=Path, help="where to work, and leave everything behind; else a temporary one")
    arguments = parser.parse_args()
    print(f"chaos-ingest: {arguments.rounds} rounds, seed {arguments.seed}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="posthouse-chaos-") as folder:
        made = asyncio.run(run(arguments.rounds, arguments.seed, arguments.folder or Path(folder)))
        return 0 if conclude(made, arguments.seed, time.monotonic() - began) else 1


if __name__ == "__main__":
    sys.exit(main())
