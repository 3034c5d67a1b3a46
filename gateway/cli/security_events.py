"""`posthouse integrations security-events`: have the provider push security events to an integration, and see one come."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import typer

from gateway.errors import SetupError

if TYPE_CHECKING:
    from gateway.catalog import Integration
    from gateway.outbound import ProviderHttp
    from gateway.service import Gateway
    from providers.errors import ProviderError
    from providers.oauth import App

WAIT_S = 30.0

# What to do about it, by the code of the error.
ADVICE = {
    "client_id_missing": "set its client_id",
    "client_secret_missing": "add its client secret",
    "risc_service_account_missing": "set risc_service_account to the service account's address",
    "risc_key_id_missing": "set risc_key_id to the id of the service account's key",
    "private_key_missing": "add the service account's key (PEM) with `integrations add-secret --purpose client_secrets`",
    "private_key_invalid": "the service account's key is no RSA key in PEM",
    "service_account_rejected": "the provider does not know the service account, its key, or our clock",
    "scope_lacking": "give the service account the role roles/riscconfigs.admin, and enable the RISC API in its project",
}


def security_events(
    name: str = typer.Argument(help="the integration's name, as it stands in its URL"),
    verify: bool = typer.Option(
        False, "--verify", help="ask for a verification event, and wait until it is on the stream"
    ),
    wait: float = typer.Option(WAIT_S, min=0, max=600, help="for how many seconds"),
) -> None:
    """Have the provider push security events (revoked tokens, disabled accounts …) to this integration."""

    async def run() -> None:
        from gateway.cli.opened import at_hand

        async with at_hand() as gateway:
            print(await (verified(gateway, name, wait) if verify else set_up(gateway, name)))

    asyncio.run(run())


async def set_up(gateway: Gateway, name: str) -> str:
    """Tell the provider our URL.    Raises: SetupError."""
    integration, http, app = _ready(gateway, name)
    url = f"{gateway.settings.public_url}/hooks/{integration.name}"
    assert integration.provider.stream_set_up is not None
    await _called(integration, integration.provider.stream_set_up(http, app, url))
    title = integration.provider.facts.title
    return (
        f"{title} sends security events to {url}; `posthouse integrations security-events {name} --verify` has one sent"
    )


async def verified(gateway: Gateway, name: str, wait_s: float) -> str:
    """Have an event sent that says a word of ours, and wait for that word on the log.    Raises: SetupError."""
    from gateway.stream import read

    integration, http, app = _ready(gateway, name)
    assert integration.provider.stream_verify is not None
    state, db = secrets.token_urlsafe(24), gateway.regions.get(integration.region).database
    cursor = await read.latest(db)
    until = gateway.clock.monotonic() + wait_s
    await _called(integration, integration.provider.stream_verify(http, app, state))
    wanted = read.Filter(
        types=(f"posthouse.delivery.{integration.provider.facts.name}.security.verification",),
        integration=integration.id,
    )
    while True:
        page = await read.read(db, cursor, wanted, read.MAX_EVENTS)
        if any(_says(event.data, state) for event in page.events):
            return f"the verification event came: security events reach {name}"
        cursor = page.next
        if not page.at_end:
            continue
        if gateway.clock.monotonic() >= until:
            raise SetupError(
                f"no verification event within {wait_s:g} s: is the gateway serving, and did it refuse one "
                f"(`posthouse deliveries refused --integration {name}`)?"
            )
        await asyncio.sleep(gateway.settings.poll_s)


def _ready(gateway: Gateway, name: str) -> tuple[Integration, ProviderHttp, App]:
    from gateway import exchange
    from providers.errors import ProviderError

    integration = gateway.catalog.integration(name)
    if integration is None:
        raise SetupError(f"there is no integration {name!r}")
    provider = integration.provider
    if provider.stream_set_up is None or provider.stream_verify is None:
        raise SetupError(f"{provider.facts.title} has no security events that can be set up from here")
    try:
        app = exchange.app_of(integration, gateway.settings.public_url, now=gateway.clock.now())
        return integration, gateway.outbound.for_app(provider.facts.name, exchange.facts_of(integration), app), app
    except ProviderError as error:
        raise _line(integration, error) from None


async def _called(integration: Integration, call: Any) -> None:
    from providers.errors import ProviderError

    try:
        await call
    except ProviderError as error:
        raise _line(integration, error) from None


def _line(integration: Integration, error: ProviderError) -> SetupError:
    status = "" if error.status is None else f", status {error.status}"
    advice = f": {ADVICE[error.code]}" if error.code in ADVICE else ""
    return SetupError(f"security events of {integration.name}: {error.code}{status}{advice}")


def _says(data: bytes, state: str) -> bool:
    """Is this the event that was asked for? It is verified: only the provider's come onto the log under that type."""
    from providers.errors import Malformed
    from providers.reading import at, loads

    try:
        events = at(loads(data), "events")
    except Malformed:
        return False
    return isinstance(events, dict) and any(at(said, "state") == state for said in events.values())
