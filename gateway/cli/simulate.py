"""`posthouse simulate`: the renewal policy at work on a described fleet, beside cron and lazy refreshing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    file: Annotated[
        Path | None, typer.Argument(help="the fleet, TOML; the one that `make simulate` runs if left out")
    ] = None,
    connections: Annotated[
        int | None, typer.Option(min=1, help="how many; rate limits shrink and grow with it")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="how long")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of chance: the same seed, the same result")] = None,
    out: Annotated[Path | None, typer.Option(help="a folder for the picture and the figures")] = None,
) -> None:
    """Run the renewal policy over a described fleet, and compare. Exit 1 when a goal is missed."""
    from gateway.cli.output import table
    from gateway.cli.progress import Progress
    from subscriptions.simulate import fleet as fleets
    from subscriptions.simulate import report, shards

    fleet = fleets.read(file or fleets.DEFAULT).sized(connections, days, seed)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # known before it takes minutes
    with Progress(f"{fleet.connections:,} connections, {fleet.days} days", fleet.connections) as progress:
        found = shards.run(fleet, progress.advance)
    table(("", *shards.STRATEGIES), report.compared(found), empty="")
    print()
    judged = report.judged(fleet, found)
    table(("goal", "value", "at most", "met"), judged, empty="")
    if out is not None:
        for path in report.write(fleet, found, out):
            print(f"wrote {path}")
    if not report.all_met(fleet, found):
        raise typer.Exit(1)
