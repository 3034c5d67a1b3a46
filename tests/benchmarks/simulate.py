"""`make simulate`: the renewal policy over 1,000,000 connections and a week, beside cron and lazy refreshing.

The described fleet with its own seed, then with three that nobody has seen (`--seeds` names others). `build/simulate/` gets the
picture and the figures of the first. Chance is the seed's, so it measures the policy, not this machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.cli.progress import Progress
from subscriptions.simulate import fleet as fleets
from subscriptions.simulate import goals, shards
from subscriptions.simulate import report as results
from subscriptions.simulate.tally import Tally
from tests.benchmarks import report

UNSEEN = (1009, 20_261_125, 77_777_777)
FOLDER = Path("build/simulate")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when it ran; with `--strict`, when every goal was met with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=None)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(UNSEEN), help="beside the fleet's own")
    parser.add_argument("--strict", action="store_true", help="a missed goal is a failure")
    asked = parser.parse_args(arguments)
    described = fleets.read(fleets.DEFAULT).sized(asked.connections)
    figures: dict[str, object] = {"connections": described.connections, "days": described.days}
    judged: list[report.Goal] = []
    for number, fleet in enumerate([described, *(described.sized(seed=seed) for seed in asked.seeds)]):
        began = time.monotonic()
        with Progress(
            f"seed {fleet.seed}: {fleet.connections:,} connections, {fleet.days} days", fleet.connections
        ) as bar:
            found = shards.run(fleet, bar.advance)
        took_s = figures[f"seed {fleet.seed}: took s"] = time.monotonic() - began
        judged += [
            report.Goal(f"seed {fleet.seed}: {one.name}", one.value, one.most, "lower")
            for one in goals.goals(fleet, found)
        ]
        verdict = "every goal met" if results.all_met(fleet, found) else "a goal is missed"
        print(f"seed {fleet.seed}: {fleet.connections:,} connections in {took_s:.0f} s, {verdict}", flush=True)
        if number == 0:
            figures |= _figures(found)
            FOLDER.mkdir(parents=True, exist_ok=True)
            results.write(fleet, found, FOLDER)
    report.write("simulate", figures, judged)
    print(f"picture: {FOLDER / 'simulate.svg'}")
    return int(asked.strict and not all(goal.met for goal in judged))


def _figures(found: dict[str, Tally]) -> dict[str, object]:
    return {f"{name}: {what}": value for name, tally in found.items() for what, value in goals.figures(tally).items()}


if __name__ == "__main__":
    sys.exit(main())
