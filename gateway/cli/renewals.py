"""`posthouse renewals`: when connections are renewed, and why."""

from __future__ import annotations

import asyncio

import typer

app = typer.Typer(help="Renewals: when tokens are renewed ahead, and why.", no_args_is_help=True)
LABEL = 18  # columns of a provider's name
FIGURES = 34  # … and of the figures behind its bars


@app.command("explain")
def explain_one(
    connection: str = typer.Argument(help="conn_…"), json: bool = typer.Option(False, "--json", help="for programs")
) -> None:
    """What will happen to a connection's tokens when, and why: use, window, quiet hours, what is in the way."""

    async def run() -> None:
        from gateway.cli import output
        from gateway.cli.opened import at_hand, located
        from subscriptions.explain import explain

        async with at_hand() as it:
            told = await explain(it, *await located(it, connection))
        if json:
            output.as_json(told)
            return
        for sentence in told.sentences:
            print(sentence)

    asyncio.run(run())


@app.command("now")
def now(connection: str = typer.Argument(help="conn_…")) -> None:
    """Have a connection's tokens renewed now, whatever the plan says: by the next process that has a moment."""

    async def run() -> None:
        from gateway.cli.opened import at_hand, located
        from gateway.errors import SetupError
        from subscriptions import store

        async with at_hand() as it:
            region, found = await located(it, connection)
            if not await store.ask(region.database, found.id):
                raise SetupError("it has no tokens that could be renewed")
        print("asked: a running process renews it within seconds (see `posthouse renewals explain`)")

    asyncio.run(run())


@app.command("plan")
def plan(json: bool = typer.Option(False, "--json", help="for programs")) -> None:
    """The coming 24 hours by provider, as they are planned now: each connection's next renewal, once."""

    async def run() -> None:
        from rich.console import Console

        from gateway.cli import output
        from gateway.cli.opened import at_hand
        from subscriptions import outlook

        async with at_hand() as it:
            found = await outlook.outlook(it.regions, it.catalog)
        if json:
            output.as_json(found)
            return
        if not found.providers:
            print("nothing is planned")
            return
        console = Console(highlight=False)
        width = max(24, min(96, console.width - LABEL - FIGURES))
        for one in found.providers:
            most = outlook.highest(one.renewals, width)
            figures = f"{one.total:,} renewals, {one.looks:,} looks" + (f", {one.overdue:,} due" if one.overdue else "")
            console.print(f"{one.name[: LABEL - 2]:<{LABEL}}", end="")
            console.print(outlook.bars(one.renewals, width, most), style="cyan", end="  ")
            console.print(figures, soft_wrap=True)
        console.print(" " * LABEL + outlook.axis(found.begins, width) + " UTC", style="dim", soft_wrap=True)

    asyncio.run(run())
