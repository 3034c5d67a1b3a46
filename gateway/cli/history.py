"""`posthouse connections history`: what every signal about a connection led to."""

from __future__ import annotations

import asyncio

import typer


def history(
    connection: str = typer.Argument(help="conn_…"),
    limit: int = typer.Option(50, min=1, max=10_000, help="how many, newest first"),
    json: bool = typer.Option(False, "--json", help="for programs"),
) -> None:
    """What every signal about a connection led to, newest first; those that changed nothing too."""

    async def run() -> None:
        from dataclasses import asdict

        from gateway import ids
        from gateway.cli import output
        from gateway.cli.opened import at_hand, located
        from gateway.connections import history

        async with at_hand() as it:
            region, found = await located(it, connection)
            kept = await history.page(region.database, found.id, before=None, limit=limit)
        if json:
            output.as_json([{"at": one.at, **asdict(one.entry)} for one in kept])
            return
        output.table(
            ("at", "profile", "signal", "outcome", "state", "cause", "source", "generation", "evidence"),
            [
                (
                    at, one.access_profile, one.signal, one.outcome,
                    one.state_after if one.state_after == one.state_before else f"{one.state_before} -> {one.state_after}",
                    one.cause if one.code is None else f"{one.cause} ({one.code})", one.source, one.generation,
                    None if one.evidence is None else ids.show(ids.EVENT, one.evidence),
                )
                for at, one in ((kept_one.at, kept_one.entry) for kept_one in kept)
            ],
            empty="no signal was heard of it",
        )  # fmt: skip

    asyncio.run(run())
