"""`posthouse incidents`: integrations that their provider refuses, and an operator's word that one is mended."""

from __future__ import annotations

import asyncio

import typer

app = typer.Typer(
    help="Integrations that their provider refuses: a wrong client secret, say.", invoke_without_command=True
)


@app.callback()
def list_incidents(context: typer.Context, json: bool = typer.Option(False, "--json", help="for programs")) -> None:
    """Incidents that are open; with `retry`: have one tried at once."""
    if context.invoked_subcommand is not None:
        return

    async def run() -> None:
        from gateway.breakers import incidents
        from gateway.cli import output
        from gateway.cli.opened import at_hand

        found = []
        async with at_hand() as it:
            for region in it.regions:
                for one in await incidents.all_of(region.database):
                    assert one.integration_id is not None
                    found.append(
                        {
                            "region": region.name, "integration": it.integration_name(one.integration_id),
                            "provider": one.provider, "kind": one.kind, "code": one.code, "since": one.since,
                            "retry_at": one.canary_at, "failures": one.failures,
                        }
                    )  # fmt: skip
        if json:
            output.as_json(found)
            return
        headers = ("integration", "provider", "kind", "code", "since", "retry_at", "failures")
        output.table(headers, [[one[name] for name in headers] for one in found], empty="no incidents")

    asyncio.run(run())


@app.command("retry")
def retry(name: str = typer.Argument(help="the integration's name")) -> None:
    """Have one call of it tried at once: its set-up at the provider was mended. (`apply` does so by itself.)"""

    async def run() -> None:
        from gateway.breakers import incidents
        from gateway.cli.opened import at_hand
        from gateway.errors import SetupError

        async with at_hand() as it:
            integration = it.catalog.integration(name)
            if integration is None:
                raise SetupError("there is no such integration")
            done = [r.name for r in it.regions if await incidents.retried(r.database, integration.id)]
        if not done:
            raise SetupError(f"{name} has no incident")
        print(f"{name} is tried again")

    asyncio.run(run())
