"""The sandbox against a client that we did not write: Authlib, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import aiohttp
import pytest
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

from tests.clock import FakeClock
from tests.fakes import CALLBACK, FakeProvider

METHODS = ("client_secret_basic", "client_secret_post")
Platform = Callable[..., OAuth2Session]


@pytest.fixture
def platform(provider: FakeProvider) -> Iterator[Platform]:
    """Makes Authlib clients of the provider's one client."""
    with ExitStack() as stack:

        def make(method: str = METHODS[0], **more: Any) -> OAuth2Session:
            client = OAuth2Session(
                provider.client.id, more.pop("secret", provider.client.secret), token_endpoint_auth_method=method,
                redirect_uri=CALLBACK, scope="profile messages.read", code_challenge_method="S256", **more,
            )  # fmt: skip
            stack.callback(client.close)
            return client

        yield make


async def off(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """A call of Authlib's, which waits, in a thread: the provider runs in this one."""
    return await asyncio.to_thread(call, *given, **named)


async def connected(provider: FakeProvider, client: OAuth2Session, **how: Any) -> dict[str, Any]:
    """The token that a whole way through brings; the client has it too."""
    verifier = generate_token(48)
    url, state = client.create_authorization_url(f"{provider.base_url}/oauth/authorize", code_verifier=verifier)
    callback = await provider.consent(url, **how)
    assert parse_qs(urlsplit(callback).query)["iss"] == [provider.base_url]
    client.state = state
    token = await off(
        client.fetch_token, f"{provider.base_url}/oauth/token", authorization_response=callback, code_verifier=verifier
    )
    return dict(token)


async def refreshed(provider: FakeProvider, client: OAuth2Session, refresh_token: str) -> dict[str, Any]:
    return dict(await off(client.refresh_token, f"{provider.base_url}/oauth/token", refresh_token=refresh_token))


async def status(provider: FakeProvider, client: OAuth2Session, path: str = "/api/me") -> int:
    """Of an API call with what the client holds."""
    headers = {"Authorization": f"Bearer {client.token['access_token']}"}
    async with aiohttp.ClientSession() as http, http.get(provider.base_url + path, headers=headers) as answer:
        return answer.status


async def active(provider: FakeProvider, client: OAuth2Session, token: str) -> dict[str, Any]:
    answer = await off(client.introspect_token, f"{provider.base_url}/oauth/introspect", token=token)
    return dict(answer.json())


@pytest.mark.parametrize("method", METHODS)
async def test_the_whole_way_with_pkce_rotation_and_revocation(
    provider: FakeProvider, platform: Platform, method: str
) -> None:
    """Code, tokens, API, refresh, introspection, revocation; either way of client authentication."""
    client = platform(method)
    token = await connected(provider, client, user="user-2")
    assert token["scope"] == "messages.read profile"
    assert token["expires_in"] == 3600
    assert await status(provider, client) == 200
    assert await status(provider, client, "/api/messages") == 200
    assert await status(provider, client, "/api/contacts") == 403

    told = await active(provider, client, token["access_token"])
    assert (told["active"], told["sub"], told["scope"]) == (True, "user-2", "messages.read profile")
    newer = await refreshed(provider, client, token["refresh_token"])
    assert newer["refresh_token"] != token["refresh_token"]
    assert newer["access_token"] != token["access_token"]
    assert (await active(provider, client, token["refresh_token"]))["active"] is False

    url = f"{provider.base_url}/oauth/revoke"
    assert (await off(client.revoke_token, url, token=newer["refresh_token"])).status_code == 200
    assert (await off(client.revoke_token, url, token=newer["refresh_token"])).status_code == 200
    assert await status(provider, client) == 401
    with pytest.raises(OAuthError, match="invalid_grant"):
        await refreshed(provider, client, newer["refresh_token"])


async def test_a_reused_refresh_token_ends_its_family(provider: FakeProvider, platform: Platform) -> None:
    """Strict rotation: both the thief's and the owner's tokens are over; another consent's are not."""
    client, other = platform(), platform()
    first = await connected(provider, client)
    await connected(provider, other)
    second = await refreshed(provider, client, first["refresh_token"])
    with pytest.raises(OAuthError, match="invalid_grant"):
        await refreshed(provider, client, first["refresh_token"])
    with pytest.raises(OAuthError, match="invalid_grant"):
        await refreshed(provider, client, second["refresh_token"])
    assert await status(provider, client) == 401
    assert await status(provider, other) == 200


async def test_with_a_grace_the_old_one_works_a_while(
    provider: FakeProvider, platform: Platform, clock: FakeClock
) -> None:
    """Since its first use; then it ends its family too. Without rotation the same one works on."""
    client = platform()
    provider.rules(rotation="grace", grace_s=30)
    first = await connected(provider, client)
    await refreshed(provider, client, first["refresh_token"])
    clock.move(29)
    last = await refreshed(provider, client, first["refresh_token"])
    clock.move(1)
    with pytest.raises(OAuthError, match="invalid_grant"):
        await refreshed(provider, client, first["refresh_token"])
    with pytest.raises(OAuthError, match="invalid_grant"):
        await refreshed(provider, client, last["refresh_token"])
    provider.rules(rotation="none")
    kept = (await connected(provider, client))["refresh_token"]
    for _ in range(3):
        assert (await refreshed(provider, client, kept))["refresh_token"] == kept  # Authlib keeps the old one


async def test_a_code_works_once_and_its_replay_takes_the_tokens(provider: FakeProvider, platform: Platform) -> None:
    """RFC 6749 section 4.1.2."""
    client, verifier = platform(), generate_token(48)
    url, _ = client.create_authorization_url(f"{provider.base_url}/oauth/authorize", code_verifier=verifier)
    callback = await provider.consent(url)
    code = parse_qs(urlsplit(callback).query)["code"][0]
    endpoint = f"{provider.base_url}/oauth/token"
    await off(client.fetch_token, endpoint, code=code, code_verifier=verifier)
    assert await status(provider, client) == 200
    with pytest.raises(OAuthError, match="invalid_grant"):
        await off(client.fetch_token, endpoint, code=code, code_verifier=verifier)
    assert await status(provider, client) == 401


async def test_a_code_is_for_its_verifier_its_uri_its_client_and_its_minute(
    provider: FakeProvider, platform: Platform, clock: FakeClock
) -> None:
    """Each of them wrong: no tokens."""
    client, verifier = platform(), generate_token(48)
    stranger = provider.sandbox.register("Another", [CALLBACK, CALLBACK + "/2"])
    endpoint = f"{provider.base_url}/oauth/token"
    cases: tuple[dict[str, Any], ...] = (
        {"code_verifier": generate_token(48)}, {"code_verifier": None}, {"redirect_uri": CALLBACK + "/2"}, {"late": 60},
    )  # fmt: skip
    for wrong in cases:
        url, _ = client.create_authorization_url(f"{provider.base_url}/oauth/authorize", code_verifier=verifier)
        code = parse_qs(urlsplit(await provider.consent(url)).query)["code"][0]
        clock.move(wrong.pop("late", 0))
        asked = {"code": code, "code_verifier": verifier, **wrong}
        with pytest.raises(OAuthError, match="invalid_grant"):
            await off(
                client.fetch_token, endpoint, **{name: value for name, value in asked.items() if value is not None}
            )
    url, _ = client.create_authorization_url(f"{provider.base_url}/oauth/authorize", code_verifier=verifier)
    code = parse_qs(urlsplit(await provider.consent(url)).query)["code"][0]
    thief = OAuth2Session(stranger.id, stranger.secret, redirect_uri=CALLBACK)
    with thief, pytest.raises(OAuthError, match="invalid_grant"):
        await off(thief.fetch_token, endpoint, code=code, code_verifier=verifier)
    await off(client.fetch_token, endpoint, code=code, code_verifier=verifier)  # the thief did not use it up


async def test_denied_and_in_part(provider: FakeProvider, platform: Platform) -> None:
    """A denial is told by the redirect; what was unticked is missing from the answer and from the token."""
    client = platform()
    url, state = client.create_authorization_url(f"{provider.base_url}/oauth/authorize", code_verifier="v" * 43)
    told = dict(parse_qsl(urlsplit(await provider.consent(url, deny=True)).query))
    assert told.pop("error_description")
    assert told == {"error": "access_denied", "state": state, "iss": provider.base_url}
    assert provider.grants() == []
    token = await connected(provider, client, untick=["messages.read"])
    assert token["scope"] == "profile"
    assert await status(provider, client, "/api/messages") == 403
    token = await connected(provider, client, untick=["messages.read", "profile"])
    assert token["scope"] == ""
    assert await status(provider, client) == 200


@pytest.mark.parametrize("method", METHODS)
async def test_a_wrong_secret_is_invalid_client(provider: FakeProvider, platform: Platform, method: str) -> None:
    """At every endpoint of the client's."""
    client = platform(method, secret="wrong:% é")
    with pytest.raises(OAuthError, match="invalid_client"):
        await off(client.fetch_token, f"{provider.base_url}/oauth/token", grant_type="client_credentials")
    answer = await off(client.introspect_token, f"{provider.base_url}/oauth/introspect", token="x")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert ("www-authenticate" in answer.headers) == (method == METHODS[0])


async def test_client_credentials(provider: FakeProvider, platform: Platform) -> None:
    """A token without a user: it reaches no user's things, and is never refreshed."""
    client = platform()
    token = await off(client.fetch_token, f"{provider.base_url}/oauth/token", grant_type="client_credentials")
    assert "refresh_token" not in token
    assert await status(provider, client) == 200
    assert await status(provider, client, "/api/messages") == 403


async def test_tokens_end_by_the_clock(provider: FakeProvider, platform: Platform, clock: FakeClock) -> None:
    """Access tokens after their lifetime, refresh tokens after theirs; a refresh may end the older access token."""
    client = platform()
    provider.rules(access_ttl_s=60, refresh_ttl_s=1000)
    token = await connected(provider, client)
    clock.move(59)
    assert await status(provider, client) == 200
    clock.move(1)
    assert await status(provider, client) == 401
    token = await refreshed(provider, client, token["refresh_token"])
    assert await status(provider, client) == 200
    provider.rules(refresh_ends_access=True)
    await refreshed(provider, client, token["refresh_token"])
    assert (await active(provider, client, token["access_token"]))["active"] is False
    assert await status(provider, client) == 200
    clock.move(1000)
    with pytest.raises(OAuthError, match="invalid_grant"):
        await refreshed(provider, client, client.token["refresh_token"])
