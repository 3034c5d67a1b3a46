"""`posthouse sandbox`: a provider to try everything on, on this machine."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from gateway.sandbox import Client, Rules, Sandbox


class Rotation(StrEnum):
    """Of refresh tokens."""

    none = "none"
    strict = "strict"
    grace = "grace"


def sandbox(
    listen: str = typer.Option("127.0.0.1:8090", help="host:port to listen on"),
    url: str = typer.Option("", help="its URL as browsers and the gateway see it; default: where it listens"),
    gateway: str = typer.Option("", help="public URL of the gateway; default: POSTHOUSE_PUBLIC_URL"),
    integration: str = typer.Option("sandbox", help="name of the integration in posthouse.toml"),
    seed: str = typer.Option("", help="makes the same secrets at each start, so that an integration stays valid"),
    access_ttl_s: int = typer.Option(3600, min=1, help="lifetime of access tokens"),
    refresh_ttl_s: int = typer.Option(30 * 24 * 3600, min=1, help="lifetime of unused refresh tokens"),
    rotation: Rotation = typer.Option(Rotation.strict, help="of refresh tokens: what an old one that comes again does"),
    grace_s: int = typer.Option(30, min=0, help="with --rotation grace: how long the old one still works"),
) -> None:
    """Run an OAuth provider with a consent page, an API and webhooks, to try connecting on. Ctrl-C forgets all of it."""
    import asyncio

    from gateway.cli.opened import settings
    from gateway.errors import SetupError
    from gateway.integrations.wanted import NAME
    from gateway.sandbox import Rules

    for what, given in (("--url", url), ("--gateway", gateway)):
        if given and (not given.startswith(("http://", "https://")) or "?" in given or "#" in given):
            raise SetupError(f"{what} must be an http(s) URL without query or fragment")
    if not NAME.fullmatch(integration):
        raise SetupError("--integration must be 1 to 63 of a-z, 0-9 and -, and not begin with -")
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise SetupError("--listen must be host:port")
    rules = Rules(
        access_ttl_s=access_ttl_s, refresh_ttl_s=refresh_ttl_s, rotation=rotation.value, grace_s=grace_s
    )  # fmt: skip
    home = (gateway or settings().public_url).rstrip("/")
    asyncio.run(_run(listen, url.rstrip("/"), home, integration, seed, rules))


async def _run(listen: str, url: str, home: str, integration: str, seed: str, rules: Rules) -> None:
    """Serve until SIGINT or SIGTERM."""
    import asyncio
    import signal

    from gateway import listen as listening
    from gateway import logs
    from gateway.clock import SystemClock
    from gateway.loop import every
    from gateway.sandbox import Sandbox, sandbox_app

    logs.configure("console", "warning")
    bound = listening.bind(listen, "--listen")
    made = Sandbox(url or listening.url_of(bound), SystemClock(), rules)
    client = _register(made, home, integration, seed)
    server = listening.server(sandbox_app(made))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
    again = asyncio.create_task(every(1.0, made.webhooks.run_once, name="sandbox"))
    _tell(made, client, integration)
    try:
        await server.serve([bound])
    finally:
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        await made.webhooks.close()


def _register(made: Sandbox, home: str, integration: str, seed: str) -> Client:
    import base64
    import hashlib

    def seeded(purpose: str) -> bytes | None:
        return hashlib.sha256(f"posthouse sandbox\0{purpose}\0{seed}".encode()).digest() if seed else None

    secret, webhook_secret = seeded("client"), seeded("webhooks")
    return made.register(
        "Your platform",
        [f"{home}/oauth/callback/{integration}"],
        id="sandbox-app",
        secret=None if secret is None else secret.hex(),
        webhook_url=f"{home}/hooks/{integration}",
        webhook_secret=None if webhook_secret is None else "whsec_" + base64.b64encode(webhook_secret).decode(),
    )


def _tell(made: Sandbox, client: Client, integration: str) -> None:
    at, name = made.issuer, integration.upper().replace("-", "_")
    print(f"""posthouse sandbox is ready
  authorize     {at}/oauth/authorize
  token         {at}/oauth/token    revoke: {at}/oauth/revoke    introspect: {at}/oauth/introspect
  API           {at}/api/me    {at}/api/messages
  users' apps   {at}/account    (users: user-1, user-2; revoking there sends a webhook)
  admin         {at}/admin/clients, /admin/grants, /admin/rules, /admin/messages, /admin/ping: JSON, without a key
  client id     {client.id}
  redirect URI  {client.redirect_uris[0]}
  webhooks to   {client.webhook_url}

posthouse.toml:

[integrations.{integration}]
provider = "sandbox"
client_id = "{client.id}"
client_secrets = [{{ env = "{name}_CLIENT_SECRET" }}]
signing_secrets = [{{ env = "{name}_WEBHOOK_SECRET" }}]
return_urls = ["http://127.0.0.1:3000/connected"]    # your platform's page where a browser ends; sessions may do without
[integrations.{integration}.settings]
base_url = "{at}"
[integrations.{integration}.access_profiles.reader]
required = ["profile", "messages.read"]
optional = ["contacts.read"]

environment of the gateway and of `posthouse apply`:

export {name}_CLIENT_SECRET='{client.secret}'
export {name}_WEBHOOK_SECRET='{client.webhook_secret}'
export POSTHOUSE_OUTBOUND_ALLOW=127.0.0.0/8    # the sandbox is on this machine""")
    sys.stdout.flush()
