"""`posthouse integrations`: app registrations at providers. Secrets come from a variable, a file or standard input."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gateway.cli.security_events import security_events

if TYPE_CHECKING:
    from gateway.integrations.wanted import Purpose

app = typer.Typer(help="Integrations: what is registered at which provider.", no_args_is_help=True)

ENV = typer.Option("", "--env", help="the environment variable that holds the secret")
FILE = typer.Option(None, "--file", help="the file that holds it; - or nothing: standard input")
PURPOSE = typer.Option(
    "", "--purpose", help="signing_secrets or client_secrets (default: what the provider signs with)"
)
NAME = typer.Argument(help="the integration's name, as it stands in its URL")

app.command("security-events")(security_events)


@app.command("list")
def list_integrations(json: bool = typer.Option(False, "--json", help="for programs")) -> None:
    """Every integration, and where its provider calls."""

    async def run() -> None:
        from gateway.cli import output
        from gateway.cli.opened import opened
        from gateway.integrations import store

        async with opened() as it:
            found = await store.page(it.control, limit=10_000)
        if json:
            output.as_json(found)
            return
        output.table(
            ("name", "provider", "secrets", "declared by", "url"),
            [
                (one.name, one.provider, sum(map(len, one.secrets.values())), one.declared_by,
                 f"{it.settings.public_url}/hooks/{one.name}")
                for one in found
            ],
            empty="no integrations: declare them in posthouse.toml and `posthouse apply`",
        )  # fmt: skip

    asyncio.run(run())


@app.command("show")
def show(name: str = NAME) -> None:
    """One integration, as JSON. Of its secrets only when each was added."""

    async def run() -> None:
        from gateway.cli import output
        from gateway.cli.opened import opened
        from gateway.integrations import store

        async with opened() as it:
            output.as_json(await store.get(it.control, name))

    asyncio.run(run())


@app.command("add")
def add(
    name: str = NAME,
    provider: str = typer.Option(..., help="slack, github, stripe …"),
    client_id: str = typer.Option("", help="the app's client id"),
    setting: list[str] = typer.Option([], "--setting", help="KEY=VALUE of the provider's own settings"),
    env: str = ENV,
    file: Path | None = FILE,
    no_secret: bool = typer.Option(False, "--no-secret", help="add secrets later"),
) -> None:
    """Make an integration with one signing secret."""
    secret = b"" if no_secret else _secret(env, file)

    async def run() -> None:
        from gateway.cli.opened import opened
        from gateway.clock import SystemClock
        from gateway.errors import SetupError
        from gateway.integrations import store
        from gateway.integrations.wanted import Wanted, checked, signing_purpose
        from providers.registry import all_providers

        known = all_providers()
        if any("=" not in pair for pair in setting):
            raise SetupError("--setting is KEY=VALUE")
        settings = dict(pair.split("=", 1) for pair in setting)
        purpose: Purpose = signing_purpose(known[provider]) if provider in known else "signing_secrets"
        secrets = {purpose: (secret,)} if secret else {}
        wanted = Wanted(name=name, provider=provider, client_id=client_id or None, settings=settings, secrets=secrets)
        wanted = checked(wanted, known, ("default",))
        async with opened() as it:
            async with it.control.transaction() as tx:
                await store.create(tx, it.keyring, wanted, SystemClock().now(), by="api")
            print(f"made {name}; its provider calls {it.settings.public_url}/hooks/{name}")

    asyncio.run(run())


@app.command("add-secret")
def add_secret(name: str = NAME, purpose: str = PURPOSE, env: str = ENV, file: Path | None = FILE) -> None:
    """Put a new secret in front; the older ones go on to be accepted. The first step of a rotation."""
    secret = _secret(env, file)

    async def run() -> None:
        from gateway.cli.opened import opened
        from gateway.clock import SystemClock
        from gateway.errors import SetupError
        from gateway.integrations import secrets, store
        from gateway.integrations.wanted import secret_fault, signing_purpose
        from providers.registry import all_providers

        async with opened() as it:
            async with it.control.transaction() as tx:
                await store.lock(tx)
                current = await store.get(tx, name)
                store.refuse_others(current, "api")
                provider = all_providers().get(current.provider)
                signing = signing_purpose(provider) if provider is not None else "signing_secrets"
                chosen = _purpose(purpose) or signing
                if fault := secret_fault(secret, provider if chosen == signing else None):
                    raise SetupError(f"the secret {fault}")
                moved = await secrets.rotate_secret(tx, it.keyring, current.id, chosen, secret, SystemClock().now())
            print(f"{name} has {moved.total} {chosen}, the new one first")

    asyncio.run(run())


@app.command("drop-secrets")
def drop_secrets(
    name: str = NAME,
    purpose: str = PURPOSE,
    keep: int = typer.Option(1, min=0, help="how many of the newest stay"),
) -> None:
    """Remove the oldest secrets. The last step of a rotation."""

    async def run() -> None:
        from gateway.cli.opened import opened
        from gateway.integrations import secrets, store
        from gateway.integrations.wanted import signing_purpose
        from providers.registry import all_providers

        async with opened() as it:
            async with it.control.transaction() as tx:
                await store.lock(tx)
                current = await store.get(tx, name)
                store.refuse_others(current, "api")
                provider = all_providers().get(current.provider)
                chosen = _purpose(purpose) or (signing_purpose(provider) if provider else "signing_secrets")
                moved = await secrets.retire(tx, current.id, chosen, keep=keep)
            print(f"{name} has {moved.total} {chosen}; {moved.removed} removed")

    asyncio.run(run())


@app.command("remove")
def remove(name: str = NAME) -> None:
    """Remove an integration, its secrets and those of its hook endpoints; its deliveries are 404 within a second.

    Connections of it stay as they are.
    """

    async def run() -> None:
        from gateway.cli.opened import opened
        from gateway.endpoints import store as endpoints
        from gateway.integrations import store

        async with opened() as it, it.control.transaction() as tx:
            gone = await store.delete(tx, name, by="api")
            await endpoints.retire_all(it.region, [gone.id])
        print(f"removed {name}")

    asyncio.run(run())


def _purpose(said: str) -> Purpose | None:
    from gateway.errors import SetupError
    from gateway.integrations.wanted import PURPOSES

    for purpose in PURPOSES:
        if said == purpose:
            return purpose
    if said:
        raise SetupError(f"--purpose is {' or '.join(PURPOSES)}")
    return None


def _secret(env: str, file: Path | None) -> bytes:
    """A secret from where it is kept; never from the command line, which every user of the machine can read."""
    from gateway.errors import SetupError

    if env and file is not None:
        raise SetupError("say --env or --file, not both")
    if env:
        found = os.fsencode(os.environ.get(env, ""))
        if not found:
            raise SetupError("--env names a variable that is not set")
        return found
    if file is None or str(file) == "-":
        if sys.stdin.isatty():
            print("secret, then Enter and Ctrl-D:", file=sys.stderr)
        data = sys.stdin.buffer.read(64 * 1024)
    else:
        data = file.read_bytes()[: 64 * 1024]
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if not data:
        raise SetupError("the secret is empty (give --env, --file, or standard input)")
    return data
