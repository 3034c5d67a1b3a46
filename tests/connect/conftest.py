"""Connecting over real HTTP: both listeners of a gateway, a provider that can misbehave, browsers with cookies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway import ids, listen
from gateway.clock import Clock
from gateway.connections.grants import Grant, of
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault.tokens import Place
from gateway.web.hooks import public_door
from tests.connect.browser import Browser, query_of
from tests.fakes.provider import FakeProvider, fake_provider
from tests.serving import serving
from tests.web.conftest import Api, served

BACK = "https://app.example.com/connected"
PROFILES = {
    "reader": {"required": ["profile", "messages.read"], "optional": ["contacts.read"]},
    "writer": {"required": ["messages.write"], "optional": []},
}


@dataclass
class Town:
    """A platform, its gateway, its provider `sandbox`, and whoever sits at a browser."""

    gateway: Gateway
    api: Api
    provider: FakeProvider
    browsers: list[Browser] = field(default_factory=list)

    def browser(self) -> Browser:
        """A new one, without cookies."""
        self.browsers.append(Browser())
        return self.browsers[-1]

    async def ask(self, *, status: int = 201, **more: Any) -> Any:
        """A connect session for user u-1 of acme, asking for `reader`, unless told otherwise."""
        body: dict[str, Any] = {"return_url": BACK}
        if "connection" not in more:
            body |= {"tenant": "acme", "integration": "sandbox", "access_profiles": ["reader"], "end_user_id": "u-1"}
        answer = await self.api("POST", "/v1/connect/sessions", {**body, **more})
        assert answer.status_code == status, answer.text
        return answer.json()

    async def session(self, made: Any) -> Any:
        """How a session stands."""
        return (await self.api("GET", f"/v1/connect/sessions/{made['id']}")).json()

    async def complete(self, made: Any, code: str, *, status: int = 200) -> Any:
        """What the platform's backend does with the code."""
        answer = await self.api("POST", f"/v1/connect/sessions/{made['id']}/complete", {"code": code})
        assert answer.status_code == status, answer.text
        return answer.json()

    async def press(self, made: Any, browser: Browser) -> str:
        """The provider's authorization URL that the button leads to."""
        answer = await browser.press(await browser.get(made["url"]))
        assert answer.status_code == 303, answer.text
        url: str = answer.headers["location"]
        return url

    async def consent(self, made: Any, browser: Browser | None = None, **how: Any) -> httpx.Response:
        """The whole way to the end: what the browser sees last, or where it is sent back to."""
        browser = browser or self.browser()
        return await self.decide(await self.press(made, browser), browser, **how)

    async def decide(self, url: str, browser: Browser, **how: Any) -> httpx.Response:
        """Consent at the provider, as often as it asks, and come back."""
        answer = await browser.get(await self.provider.consent(url, **how))
        while answer.is_redirect and answer.headers["location"].startswith(self.provider.base_url):
            answer = await browser.get(await self.provider.consent(answer.headers["location"], **how))
        return answer

    async def connect(
        self, browser: Browser | None = None, *, consent: dict[str, Any] | None = None, **more: Any
    ) -> Any:
        """A completed session."""
        made = await self.ask(**more)
        told = query_of(await self.consent(made, browser, **(consent or {})))
        assert told["session"] == made["id"]
        return await self.complete(made, told["code"])

    async def grants(self, shown: Any) -> dict[str, Grant]:
        """The grants of a session's connection, by access profile."""
        connection = ids.parse(ids.CONNECTION, shown["connection"])
        assert connection is not None
        return {one.access_profile: one for one in await of(self.gateway.regions.home.database, [connection])}

    async def token(self, grant: Grant, column: str = "access") -> str:
        """The token in the vault."""
        region = self.gateway.regions.home
        row = await region.database.fetchrow(
            "SELECT * FROM gateway.tokens WHERE connection_id = $1 AND access_profile = $2",
            grant.connection_id,
            grant.access_profile,
        )
        assert row is not None
        place = Place(
            region.name, "acme", grant.connection_id, grant.access_profile, grant.generation, grant.token_version
        )
        purpose = "access_token" if column == "access" else "refresh_token"
        return await region.tokens.open(place, purpose, row["data_key_version"], row[f"sealed_{column}"])  # type: ignore[arg-type]

    async def events(self) -> list[Any]:
        """What the stream says of connections: (name, data)."""
        page = (await self.api("GET", "/v1/events?type=posthouse.connection&limit=200")).json()
        return [
            (entry["event"]["type"].removeprefix("posthouse.connection."), entry["event"]["data"])
            for entry in page["items"]
        ]

    async def count(self, table: str) -> int:
        """Rows of a table of the region."""
        return int(await self.gateway.regions.home.database.fetchval(f"SELECT count(*) FROM gateway.{table}"))  # noqa: S608

    async def pass_s(self, seconds: float) -> None:
        """Let the region's clock go forward."""
        await self.gateway.regions.home.database.execute(
            "UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)", seconds
        )


@asynccontextmanager
async def opening(settings: Settings, clock: Clock) -> AsyncIterator[Town]:
    """A gateway whose public URL is its public listener's, and a provider."""
    bound = listen.bind("127.0.0.1:0", "public")
    url = listen.url_of(bound)
    gateway = await Gateway.open(
        settings.model_copy(update={"public_url": url, "outbound_allow": ["127.0.0.0/8"]}), clock
    )
    redirects = [f"{url}/oauth/callback/{name}" for name in ("sandbox", "other")]
    try:
        async with (
            serving(listen.direct(public_door(gateway)), bound),
            served(gateway) as api,
            fake_provider(clock, redirect_uris=redirects, webhook_url=f"{url}/hooks/sandbox") as provider,
        ):
            town = Town(gateway, api, provider)
            await api("PUT", "/v1/tenants/acme", {})
            try:
                yield town
            finally:
                for browser in town.browsers:
                    await browser.close()
    finally:
        await gateway.close()


@pytest.fixture
async def bare_town(settings: Settings, clock: Clock) -> AsyncIterator[Town]:
    """A tenant, no integration."""
    async with opening(settings, clock) as made:
        yield made


@pytest.fixture
async def town(bare_town: Town) -> Town:
    """An integration too."""
    await declare(bare_town, "sandbox")
    return bare_town


async def declare(town: Town, name: str, **more: Any) -> None:
    """An integration at the sandbox."""
    client = town.provider.client
    body = {
        "name": name, "provider": "sandbox", "client_id": client.id, "client_secrets": [client.secret],
        "settings": {"base_url": town.provider.base_url}, "access_profiles": PROFILES, "return_urls": [BACK],
        "signing_secrets": [client.webhook_secret], **more,
    }  # fmt: skip
    answer = await town.api("POST", "/v1/integrations", body)
    assert answer.status_code == 201, answer.text
