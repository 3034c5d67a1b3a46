"""`posthouse consumers`: named readers of the stream."""

from __future__ import annotations

import asyncio
from datetime import datetime

import typer

app = typer.Typer(help="Consumers: who reads the stream, and how far they are.", no_args_is_help=True)


@app.command("list")
def list_consumers(json: bool = typer.Option(False, "--json", help="for programs")) -> None:
    """Every consumer with its lag and its workers."""

    async def run() -> None:
        from gateway.cli import output
        from gateway.cli.opened import opened
        from gateway.stream import consumers

        async with opened() as it:
            found = await consumers.states(it.region)
        if json:
            output.as_json(found)
            return
        output.table(
            ("name", "lag_events", "lag_s", "leased", "workers", "made"),
            [
                (one.name, one.lag_events, round(one.lag_s, 1), f"{one.leased}/64", len(one.workers), one.created_at)
                for one in found
            ],
            empty="no consumers",
        )

    asyncio.run(run())


@app.command("reset")
def reset(
    name: str = typer.Argument(help="the consumer"),
    to: str = typer.Option(..., help="`earliest`, `latest`, or a time like 2026-01-31T12:00:00Z"),
) -> None:
    """Put a consumer at a place in the log. Its workers lose their leases and go on from there."""

    async def run() -> None:
        from gateway.cli.opened import opened
        from gateway.errors import SetupError
        from gateway.stream import consumers

        place = _place(to)
        if name.startswith(consumers.OURS):
            raise SetupError(f"consumers whose names begin with {consumers.OURS} are Posthouse's own")
        async with opened() as it:
            await consumers.reset(it.region, name, place)
        print(f"{name} goes on from {to}")

    asyncio.run(run())


def _place(to: str) -> datetime | str:
    from gateway.errors import SetupError

    if to in ("earliest", "latest"):
        return to
    try:
        at = datetime.fromisoformat(to)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise SetupError("--to is `earliest`, `latest`, or a time with its zone, like 2026-01-31T12:00:00Z")
    return at
