"""`posthouse deliveries`: what came in, and what was not taken."""

from __future__ import annotations

import asyncio

import typer

app = typer.Typer(help="Inbound deliveries.", no_args_is_help=True)


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


@app.command("set-aside")
def set_aside(
    limit: int = typer.Option(100, min=1, max=100_000, help="how many, oldest first"),
    json: bool = typer.Option(False, "--json", help="for programs"),
) -> None:
    """Deliveries that could not be digested. They stay on the stream, and are tried again on command."""

    async def run() -> None:
        from gateway import ids
        from gateway.cli import output
        from gateway.cli.opened import at_hand
        from gateway.follower import store

        async with at_hand() as it:
            found = []
            for region in it.regions:
                found += await store.listed(region.database, after=None, limit=limit)
            names = {one.id: one.name for one in it.catalog.integrations()}
        if json:
            output.as_json(found[:limit])
            return
        output.table(
            ("event", "at", "integration", "type", "error", "tries", "redrive"),
            [
                (
                    ids.show(ids.EVENT, one.event_id), one.at,
                    None if one.integration_id is None else names.get(one.integration_id, "(removed)"),
                    one.type, one.error, one.tries, "asked for" if one.redrive else None,
                )
                for one in found[:limit]
            ],
            empty="nothing is set aside",
        )  # fmt: skip

    asyncio.run(run())


@app.command("redrive")
def redrive(
    event: str = typer.Argument("", help="evt_…"),
    everything: bool = typer.Option(False, "--all", help="everything that is set aside"),
) -> None:
    """Have what was set aside tried again by a serving process. Its original time passes the fences."""

    async def run() -> None:
        from gateway import ids
        from gateway.cli.opened import at_hand
        from gateway.errors import SetupError
        from gateway.follower import store

        if bool(event) == everything:
            raise SetupError("say which: an event (evt_ and 32 hex digits), or --all")
        id = ids.parse(ids.EVENT, event) if event else None
        if event and id is None:
            raise SetupError("that is no event (evt_ and 32 hex digits)")
        async with at_hand() as it:
            asked = sum([await store.redrive(region.database, id) for region in it.regions])
        if event and not asked:
            raise SetupError("no such event is set aside (see `posthouse deliveries set-aside`)")
        print(f"{asked} to be tried again")

    asyncio.run(run())
