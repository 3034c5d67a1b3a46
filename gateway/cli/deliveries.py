"""`posthouse deliveries`: what came in, and what was not taken."""

from __future__ import annotations

import asyncio

import typer

app = typer.Typer(help="Inbound deliveries.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """A group also while it has one command."""


@app.command("refused")
def refused(
    integration: str = typer.Option("", help="only this integration's"),
    limit: int = typer.Option(20, min=1, max=1000, help="how many, newest first"),
    json: bool = typer.Option(False, "--json", help="for programs"),
) -> None:
    """Why deliveries were not taken: reason, clock skew, header names, digest. No body is stored."""

    async def run() -> None:
        from gateway import refusals
        from gateway.cli import output
        from gateway.cli.opened import opened
        from gateway.integrations import store

        async with opened() as it:
            wanted = (await store.get(it.control, integration)).id if integration else None
            names = {row.id: row.name for row in await store.all_rows(it.control)}
            found = await refusals.latest(it.region, integration_id=wanted, limit=limit)
        if json:
            output.as_json(found)
            return
        output.table(
            ("at", "integration", "status", "reason", "skew_s", "bytes", "sha256", "headers"),
            [
                (
                    one.at,
                    names.get(one.integration_id, "(removed)"),
                    one.status,
                    one.reason,
                    None if one.skew_s is None else round(one.skew_s, 1),
                    one.size,
                    one.digest.hex()[:16],
                    ",".join(one.header_names),
                )
                for one in found
            ],
            empty="no delivery was refused",
        )

    asyncio.run(run())
