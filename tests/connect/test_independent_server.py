"""The whole way against an authorization server that we did not write (Authlib's), over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway import exchange
from gateway.connect import parties
from providers.errors import GrantEnded
from providers.oauth import TokenSet
from tests.connect.browser import heading, query_of
from tests.connect.conftest import BACK, Town
from tests.fakes import authlib_server
from tests.fakes.authlib_server import Server

PROFILES = {"reader": {"required": ["read"], "optional": ["extra"]}}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    with authlib_server.running() as state:
        yield state


@pytest.fixture
async def town(bare_town: Town, server: Server) -> Town:
    """Provider `generic-oauth2`, set up for that server."""
    made = bare_town
    server.redirect_uri = f"{made.gateway.settings.public_url}/oauth/callback/theirs"
    body = {
        "name": "theirs", "provider": "generic-oauth2", "client_id": authlib_server.CLIENT_ID,
        "client_secrets": [authlib_server.CLIENT_SECRET], "settings": server.settings, "access_profiles": PROFILES,
        "return_urls": [BACK],
    }  # fmt: skip
    answer = await made.api("POST", "/v1/integrations", body)
    assert answer.status_code == 201, answer.text
    return made


async def ask(town: Town, **more: Any) -> Any:
    return await town.ask(integration="theirs", **more)


async def way(town: Town, made: Any) -> httpx.Response:
    """Press, consent (their server asks nobody), come back."""
    return await town.browser().through(made["url"], until=BACK)


async def connected(town: Town) -> Any:
    made = await ask(town)
    return await town.complete(made, query_of(await way(town, made))["code"])


async def test_an_account_is_connected_refreshed_and_revoked(town: Town, server: Server) -> None:
    """PKCE, `iss` and Basic authentication as their server wants them; rotation, reuse, revocation as it does them."""
    done = await connected(town)
    assert done["connection_state"] == "active"
    grant = (await town.grants(done))["reader"]
    access, refresh = await asyncio.gather(town.token(grant), town.token(grant, "refresh"))
    [theirs] = server.tokens
    assert (theirs.access_token, theirs.refresh_token, theirs.user) == (access, refresh, "user-1")
    assert grant.ledger.granted == ("extra", "read")

    integration = town.gateway.catalog.integration("theirs")
    assert integration is not None
    party = parties.party(town.gateway, integration, {})
    new = await exchange.refresh(
        party.http, party.provider, party.facts, party.app, "reader", ("read", "extra"), refresh
    )
    assert new.refresh_token not in (None, refresh)
    with pytest.raises(GrantEnded):
        await exchange.refresh(party.http, party.provider, party.facts, party.app, "reader", ("read",), refresh)
    probe, revoke = party.provider.probe, party.provider.revoke
    assert probe is not None
    assert revoke is not None
    tokens = TokenSet(access_token=new.access_token, refresh_token=new.refresh_token)
    await probe(party.http, party.app, tokens)
    await revoke(party.http, party.app, tokens)
    with pytest.raises(GrantEnded):
        await probe(party.http, party.app, tokens)


async def test_a_person_declines(town: Town, server: Server) -> None:
    """`access_denied`, with `iss`."""
    server.user = None
    made = await ask(town)
    answer = await way(town, made)
    assert heading(answer) == "The account was not connected"
    assert (await town.session(made))["outcome"] == "denied"
    assert server.token_calls == []


async def test_a_person_unticks_a_scope(town: Town, server: Server) -> None:
    """The token answer names fewer scopes than were asked for."""
    server.narrowed = {"read"}
    made = await ask(town)
    assert heading(await way(town, made)) == "Some permissions are missing"
    server.narrowed = {"extra"}
    done = await connected(town)
    assert (done["connection_state"], done["grants"]["reader"]["scopes"]["optional_missing"]) == ("active", ["extra"])


async def test_their_server_checks_our_pkce(town: Town, server: Server) -> None:
    """A code that was made for another session's challenge is refused by them, too."""
    mine, theirs = town.browser(), town.browser()
    a = await mine.get((await mine.press(await mine.get((await ask(town))["url"]))).headers["location"])
    b = await theirs.get((await theirs.press(await theirs.get((await ask(town))["url"]))).headers["location"])
    ours, stolen = query_of(a), query_of(b)
    callback = a.headers["location"].replace(ours["code"], stolen["code"])
    assert urlsplit(callback).path == "/oauth/callback/theirs"
    assert heading(await mine.get(callback)) == "Generic OAuth 2.0 did not answer as it should"
    assert await town.count("staged_tokens") == 0


async def test_the_app_mints_its_own_tokens(town: Town, server: Server) -> None:
    """Client credentials: nobody consents, and the connection is active at once."""
    settings = {name: value for name, value in server.settings.items() if name in ("token_url", "client_auth")}
    body = {
        "name": "machine", "provider": "generic-oauth2", "client_id": authlib_server.CLIENT_ID,
        "client_secrets": [authlib_server.CLIENT_SECRET], "settings": {**settings, "grant": "client_credentials"},
        "access_profiles": {"app": {"required": ["read"], "optional": []}},
    }  # fmt: skip
    assert (await town.api("POST", "/v1/integrations", body)).status_code == 201
    asked = {"tenant": "acme", "integration": "machine", "access_profiles": ["app"], "external_id": "m-1"}
    answer = await town.api("POST", "/v1/connections", asked)
    assert answer.status_code == 201, answer.text
    assert answer.json()["state"] == "active"
    grant = (await town.grants({"connection": answer.json()["id"]}))["app"]
    assert (grant.kind, grant.has_refresh, grant.ledger.granted) == ("client_credentials", False, ("read",))
    assert await town.token(grant) == server.tokens[-1].access_token
    assert (await town.ask(integration="machine", access_profiles=["app"], return_url=None, status=422))["errors"]
