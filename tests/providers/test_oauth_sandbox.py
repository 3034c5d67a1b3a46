"""The sandbox's module, and the generic one by configuration, the whole way through the sandbox over real HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from gateway import exchange
from providers import oauth
from providers.calls import Request, Response
from providers.errors import GrantEnded
from providers.oauth import App, Asked
from providers.registry import all_providers
from tests.clock import FakeClock
from tests.fakes import CALLBACK, fake_provider

VERIFIER = "v" * 64


class Plain:
    """An `Http` without the gateway's bounds."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(self, request: Request) -> Response:
        async with self._session.request(
            request.method, request.url, headers=request.headers, data=request.body, allow_redirects=False
        ) as said:
            return Response(
                said.status, {name.lower(): value for name, value in said.headers.items()}, await said.read()
            )


def settings_of(name: str, at: str) -> dict[str, Any]:
    if name == "sandbox":
        return {"base_url": at}
    urls = {f"{of}_url": f"{at}/oauth/{of}" for of in ("authorize", "token", "revoke")}
    return {**urls, "userinfo_url": f"{at}/api/me", "issuer": at, "issuer_always": True}


@pytest.mark.parametrize("name", ["sandbox", "generic-oauth2"])
async def test_the_whole_way(name: str, clock: FakeClock) -> None:
    """Consent, exchange, identity, probe, refresh, revocation (twice), and what is left then; and a machine's token."""
    of = all_providers()[name]
    async with fake_provider(clock) as provider, aiohttp.ClientSession() as session:
        settings = settings_of(name, provider.base_url)
        of.settings.model_validate(settings)
        facts = of.oauth_for(settings)
        assert facts is not None
        assert facts.authorize_url is not None
        app = App(
            client_id=provider.client.id,
            client_secret=provider.client.secret,
            settings=settings,
            redirect_uri=CALLBACK,
        )
        asked = Asked(
            scopes={"reader": ("profile", "messages.read")},
            state="s" * 20,
            code_challenge=create_s256_code_challenge(VERIFIER),
        )
        url = oauth.with_query(facts.authorize_url, oauth.authorize_parameters(facts, app, asked))
        back = parse_qs(urlsplit(await provider.consent(url)).query)
        assert back["iss"] == [facts.issuer]
        http = Plain(session)
        tokens = (await exchange.exchange(http, of, facts, app, asked, back["code"][0], VERIFIER))["reader"]
        assert tokens.scopes == {"profile", "messages.read"}
        assert of.identify and of.probe and of.revoke  # noqa: PT018
        assert (await of.identify(http, app, {"reader": tokens})).accounts == ("account:user-1",)
        await of.probe(http, app, tokens)
        newer = await exchange.refresh(http, of, facts, app, "reader", ("profile",), tokens.refresh_token or "")
        assert newer.refresh_token not in (None, tokens.refresh_token)
        for _ in range(2):
            await of.revoke(http, app, newer)
            with pytest.raises(GrantEnded):
                await of.probe(http, app, newer)
        with pytest.raises(GrantEnded):
            await exchange.refresh(http, of, facts, app, "reader", ("profile",), newer.refresh_token or "")
        machine = await exchange.client_credentials(http, of, facts, app, "reader", ("messages.read",))
        assert machine.refresh_token is None
