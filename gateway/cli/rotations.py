"""`posthouse connections rotations`: the token sets of a connection, when each came and how."""

from __future__ import annotations

import asyncio

import typer


def rotations(
    connection: str = typer.Argument(help="conn_…"),
    limit: int = typer.Option(50, min=1, max=10_000, help="how many, newest first"),
    json: bool = typer.Option(False, "--json", help="for programs"),
) -> None:
    """When each token set of a connection came, newest first: with another refresh token or not. No token, and no hash."""

    async def run() -> None:
        from dataclasses import asdict

        from gateway.cli import output
        from gateway.cli.opened import at_hand, located
        from gateway.connections import rotations

        async with at_hand() as it:
            region, found = await located(it, connection)
            kept = await rotations.page(region.database, found.id, before=None, limit=limit)
        if json:
            output.as_json([asdict(one) for one in kept])
            return
        output.table(
            ("at", "profile", "generation", "version", "source", "refresh token", "reuse"),
            [
                (
                    one.at, one.access_profile, one.generation, one.token_version, one.source,
                    "another one" if one.rotated else "the same", one.reuse,
                )
                for one in kept
            ],
            empty="no token set of it has come since the record is kept",
        )  # fmt: skip

    asyncio.run(run())
