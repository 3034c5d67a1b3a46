"""`posthouse migrate`: move the schemas forward."""

from __future__ import annotations

import asyncio

import typer


def migrate(
    check: bool = typer.Option(False, "--check", help="only look: exit 1 unless the schema is one we run on"),
) -> None:
    """Move the database's schema forward: control, then each region. Run it before you replace the processes."""
    from gateway import migrate
    from gateway.cli.opened import settings, with_database

    chosen = with_database(settings())
    if check:
        asyncio.run(migrate.check_all(chosen))
        print("the schema fits this version")
        return
    done = asyncio.run(migrate.migrate_all(chosen))
    print("\n".join(f"migrated: {name}" for name in done) or "nothing to do: the schema is up to date")
