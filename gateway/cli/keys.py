"""`posthouse keys`: API keys."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import typer

app = typer.Typer(help="API keys of the management API and the stream.", no_args_is_help=True)


@app.command("create")
def create(
    name: str = typer.Argument(help="what it is for"),
    role: str = typer.Option("admin", help="admin, reader or consumer"),
    expires_in_days: int = typer.Option(0, min=0, max=3650, help="0: it does not expire"),
) -> None:
    """Make a key and print it, this once, alone on standard output."""

    async def run() -> None:
        from gateway import ids
        from gateway.access import keys
        from gateway.cli.opened import opened
        from gateway.clock import SystemClock

        async with opened() as it:
            now = SystemClock().now()
            until = now + timedelta(days=expires_in_days) if expires_in_days else None
            async with it.control.transaction() as tx:
                made = await keys.create(tx, it.keyring, now, name=name, role=role, expires_at=until)
        print(f"{ids.show(ids.KEY, made.key.id)} ({role}), shown this once:", file=sys.stderr, flush=True)
        print(made.token)

    asyncio.run(run())


@app.command("list")
def list_keys(json: bool = typer.Option(False, "--json", help="for programs")) -> None:
    """Every key: never the key itself, only its beginning."""

    async def run() -> None:
        from gateway import ids
        from gateway.access import keys
        from gateway.cli import output
        from gateway.cli.opened import opened

        async with opened() as it:
            found = await keys.page(it.control, limit=10_000)
        if json:
            output.as_json(found)
            return
        state = ["revoked" if key.revoked_at else "expires" if key.expires_at else "live" for key in found]
        output.table(
            ("id", "name", "role", "begins", "state", "made", "used"),
            [
                (ids.show(ids.KEY, key.id), key.name, key.role, key.prefix, said, key.created_at, key.last_used_at)
                for key, said in zip(found, state, strict=True)
            ],
            empty="no keys",
        )

    asyncio.run(run())


@app.command("revoke")
def revoke(key_id: str = typer.Argument(help="as `keys list` shows it: key_…")) -> None:
    """End a key. Processes refuse it within a second."""

    async def run() -> None:
        from gateway import ids
        from gateway.access import keys
        from gateway.cli.opened import opened
        from gateway.clock import SystemClock
        from gateway.errors import SetupError

        parsed = ids.parse(ids.KEY, key_id)
        if parsed is None:  # not repeated: it may be the key itself
            raise SetupError("that is not a key's id (key_ and 32 hex digits, see `posthouse keys list`)")
        async with opened() as it, it.control.transaction() as tx:
            key = await keys.revoke(tx, parsed, SystemClock().now())
        print(f"revoked {key_id} ({key.name})")

    asyncio.run(run())
