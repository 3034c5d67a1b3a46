"""`posthouse restored`: the database was put back to an earlier point. What that means for tokens, step by step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from gateway.catalog import Integration
    from gateway.service import Gateway

HELP = """Say that the database was put back to an earlier point, and take up its tokens again with care.

Without an option: every cursor of before is told so, and grants whose refresh token may have been superseded are set
aside: not refreshed, their access tokens handed out until they expire. (A start does it by itself where the database can
tell; where its files were copied it cannot.) Then, one integration after the other: --probe tries access tokens at the
provider, --release lets grants be refreshed again. --status shows what is set aside, and changes nothing."""


def restored(
    probe: str = typer.Option("", help="try the unexpired access tokens of this integration, and decide by that"),
    release: str = typer.Option("", help="let grants of this integration be refreshed again"),
    release_all: bool = typer.Option(
        False,
        "--release-all",
        help="of every integration: after a failover that lost nothing (synchronous replication)",
    ),
    status: bool = typer.Option(False, "--status", help="only show what is set aside"),
) -> None:
    async def run() -> None:
        from gateway import restored
        from gateway.cli import output
        from gateway.cli.opened import at_hand
        from gateway.errors import SetupError
        from providers.errors import Misconfigured

        if sum(map(bool, (probe, release, release_all, status))) > 1:
            raise SetupError("one thing at a time: --probe, --release, --release-all or --status")
        async with at_hand() as it:
            for region in it.regions:
                if probe:
                    url = it.settings.public_url
                    named = _named(it, probe)
                    try:
                        found = await restored.probe(region, it.outbound, url, named, it.new_id, it.clock)
                    except Misconfigured as error:
                        raise SetupError(f"{probe} cannot make calls: {error.code}") from None
                    print(
                        f"{probe}: {found['works']} works, {found['refused']} refused, {found['undecided']} undecided"
                    )
                elif release:
                    print(
                        f"{release}: {await restored.release(region, _named(it, release).id, it.new_id)} grants released"
                    )
                elif release_all:
                    print(f"{await restored.release(region, None, it.new_id)} grants released")
                elif not status:
                    connections = await restored.declare(region, it.catalog, it.new_id)
                    print(
                        f"set aside the grants of {connections} connections; cursors of before are told to begin anew"
                    )
                left = await restored.left(region.database)
                names = {one.id: one.name for one in it.catalog.integrations()}
                output.table(
                    ("integration", "set aside", "of them suspect"),
                    [(names.get(id, "(removed)"), *counts) for id, counts in left.items()],
                    empty="nothing is set aside",
                )

    asyncio.run(run())


def _named(it: Gateway, name: str) -> Integration:
    from gateway.errors import SetupError

    found = it.catalog.integration(name)
    if found is None:
        raise SetupError("there is no integration of that name (see `posthouse integrations list`)")
    return found
