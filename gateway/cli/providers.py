"""`posthouse providers`: which there are, what they can tell, how they are."""

from __future__ import annotations

import asyncio
from typing import Any

import typer

WELL: dict[str, Any] = {"provider": None, "degraded_since": None, "failures": 0, "waiting": 0}

app = typer.Typer(help="Providers: what each can tell of grants, and how it is.", invoke_without_command=True)


@app.callback()
def list_providers(context: typer.Context, json: bool = typer.Option(False, "--json", help="for programs")) -> None:
    """Every provider, and what is known against it; with `release`: say that one is well again."""
    if context.invoked_subcommand is not None:
        return

    async def run() -> None:
        from dataclasses import asdict

        from gateway.breakers import store
        from gateway.cli import output
        from gateway.cli.opened import at_hand
        from gateway.connections import conditions
        from providers.registry import all_providers

        async with at_hand() as it:
            found = [
                {"region": region.name, **asdict(one)}
                for region in it.regions for one in await conditions.all_of(region.database)
            ]  # fmt: skip
            shut = [
                (region.name, one)
                for region in it.regions for one in await store.all_open(region.database) if one.why != "misconfigured"
            ]  # fmt: skip
        known = all_providers()
        how: dict[str, list[dict[str, Any]]] = {name: [] for name in known}
        for condition in found:
            how.setdefault(condition["provider"].partition(":")[0], []).append(condition)
        if json:
            output.as_json(
                [
                    {
                        "name": name, "title": one.facts.title, "abilities": one.abilities,
                        "tells": one.facts.signals, "conditions": how[name],
                        "breakers": [
                            {
                                "region": region, "kind": of.kind, "host": of.host, "why": of.why, "code": of.code,
                                "since": of.since, "canary_at": of.canary_at, "passed": of.passed,
                                "failures": of.failures,
                            }
                            for region, of in shut if of.provider == name
                        ],
                    }
                    for name, one in sorted(known.items())
                ]
            )  # fmt: skip
            return
        output.table(
            ("name", "tells", "probe", "condition", "since", "failures", "waiting"),
            [
                (
                    state["provider"] or name, len(one.facts.signals), "yes" if one.probe else "no",
                    "well" if state["degraded_since"] is None else f"degraded ({state['error_class']})",
                    state["degraded_since"], state["failures"], state["waiting"],
                )
                for name, one in sorted(known.items()) for state in (how[name] or [WELL])
            ],
            empty="no providers",
        )  # fmt: skip
        if shut:
            print()
            output.table(
                ("not called", "kind", "host", "why", "code", "since", "tried at", "failures"),
                [
                    (of.provider, of.kind, of.host, of.why, of.code, of.since, of.canary_at, of.failures)
                    for _, of in shut
                ],
                empty="",
            )  # fmt: skip

    asyncio.run(run())


@app.command("release")
def release(name: str = typer.Argument(help="the provider's name, or provider:integration, as listed")) -> None:
    """Say that a provider is well again: grants that waited for that are checked within five minutes."""

    async def run() -> None:
        from gateway.cli.opened import at_hand
        from gateway.connections import conditions
        from gateway.errors import SetupError
        from providers.registry import all_providers

        if name.partition(":")[0] not in all_providers():
            raise SetupError("there is no such provider (see `posthouse providers`)")
        async with at_hand() as it:
            done = [r.name for r in it.regions if await conditions.released(r.database, name, it.new_id())]
        if not done:
            raise SetupError(f"nothing is known against {name}: it is well")
        print(f"released {name} in {', '.join(done)}")

    asyncio.run(run())
