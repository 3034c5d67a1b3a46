"""`posthouse apply`: make the integrations what posthouse.toml declares."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer


def apply(
    file: Path = typer.Argument(Path("posthouse.toml"), help="the declaration"),
    dry_run: bool = typer.Option(False, "--dry-run", help="show what would change, and change nothing"),
    prune: bool = typer.Option(False, "--prune", help="remove integrations that a file declared and this one does not"),
) -> None:
    """Make the integrations be what the file says, whole or not at all. Secrets come from {env=}, {file=} and {vault=}."""
    from gateway.integrations import declare
    from providers.registry import all_providers

    wanted = declare.read(file, providers=all_providers(), vault=_from_vault)

    async def run() -> None:
        from gateway.cli.opened import opened
        from gateway.clock import SystemClock
        from gateway.endpoints import store as endpoints

        async with opened() as it:
            async with it.control.transaction() as tx:
                now = SystemClock().now()
                plan = await declare.apply(tx, wanted, it.keyring, now, prune=prune, dry_run=dry_run)
                if plan.gone:
                    await endpoints.retire_all(it.region, plan.gone)
            for change in plan.changes:
                print(change.line())
            if dry_run and not plan.empty:
                print("nothing was changed: this was a dry run")
            elif plan.empty:
                print("nothing to do: everything is as declared")
            for created in [] if dry_run else plan.of("created"):
                print(f"{created.name} is called at {it.settings.public_url}/hooks/{created.name}")

    asyncio.run(run())


def _from_vault(references: Sequence[str]) -> Mapping[str, bytes | str]:
    from gateway.cli.opened import settings
    from gateway.clock import SystemClock
    from gateway.vault import openbao
    from gateway.vault import references as reading

    chosen = settings()
    if chosen.vault_addr is None:
        return {}

    async def run() -> Mapping[str, bytes | str]:
        async with openbao.connected(chosen, SystemClock()) as bao:
            return await reading.read(bao, references)

    return asyncio.run(run())
