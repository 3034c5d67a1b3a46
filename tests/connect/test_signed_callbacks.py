"""A provider that signs what it sends the browser back with: what it did not sign is refused before anything is exchanged."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from providers import shopify
from providers.oauth import App
from providers.registry import all_providers
from tests.connect.browser import query_of
from tests.connect.conftest import Town, declare
from tests.connect.test_attacks import changed, refused

SHOP = "shop-1.myshopify.com"
OLD = "the client secret before"


def as_shopify(parameters: Mapping[str, str], app: App) -> None:
    """Shopify's check, at the sandbox: of the shop that a session there would be about."""
    shopify.check_callback(parameters, replace(app, parts={**app.parts, "shop": "shop-1"}))


@pytest.fixture
def signing() -> Iterator[str]:
    """The sandbox as a provider that signs its callbacks the way Shopify does."""
    sandbox = all_providers()["sandbox"]
    all_providers()["signing"] = replace(
        sandbox, facts=replace(sandbox.facts, name="signing"), check_callback=as_shopify
    )
    yield "signing"
    del all_providers()["signing"]


def with_hmac(
    town: Town, said: dict[str, str], *, secret: str | None = None, late_s: int = 0, **more: str
) -> dict[str, str]:
    """The callback's parameters, signed."""
    at = town.gateway.clock.now() - timedelta(seconds=late_s)
    sent = {**said, "shop": SHOP, "timestamp": str(int(at.timestamp())), **more}
    message = "&".join(
        f"{name}={value.replace(':', '%3A').replace('/', '%2F')}" for name, value in sorted(sent.items())
    )
    key = (secret or town.provider.client.secret).encode()
    return {**sent, "hmac": hmac.new(key, message.encode(), hashlib.sha256).hexdigest()}


async def test_only_what_the_provider_signed_is_taken(town: Town, signing: str) -> None:
    """All of it, code and state too, for this shop, just now. The session stands, and the true answer still counts."""
    await declare(town, "other", provider=signing)
    made, mine = await town.ask(integration="other"), town.browser()
    callback = await town.provider.consent(await town.press(made, mine))
    true = changed(callback, lambda said: with_hmac(town, said))
    forged = [
        callback,
        changed(callback, lambda said: with_hmac(town, said, secret="another app's")),
        changed(callback, lambda said: with_hmac(town, said, late_s=91)),
        changed(callback, lambda said: with_hmac(town, said, shop="other.myshopify.com")),
        changed(true, lambda said: {**said, "code": said["code"][:-1] + "_"}),
        changed(true, lambda said: {**said, "error": "access_denied"}),
        changed(true, lambda said: {name: value for name, value in said.items() if name != "code"}),
        true + "&shop=other.myshopify.com",
    ]
    for url in forged:
        await refused(town, await mine.get(url), made, "This step cannot be taken")
    assert query_of(await mine.get(true))["code"]
    assert town.provider.calls["authorization_code"] == 1


async def test_while_the_client_secret_is_changed_the_old_one_may_have_signed(town: Town, signing: str) -> None:
    secrets = [town.provider.client.secret, OLD]
    await declare(town, "other", provider=signing, client_secrets=secrets)
    made, mine = await town.ask(integration="other"), town.browser()
    callback = await town.provider.consent(await town.press(made, mine))
    assert query_of(await mine.get(changed(callback, lambda said: with_hmac(town, said, secret=OLD))))["code"]
