"""The fake provider can go wrong in every way that its users rely on: seen from our own way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.outbound import Outbound, ProviderHttp
from gateway.settings import Settings
from providers.calls import bearer, form
from providers.errors import OddAnswer, Unreachable
from tests.clock import FakeClock
from tests.fakes import CALLBACK, FakeProvider
from tests.fakes.misbehaving import BY_NAME, GONE, changed, error, rate_limited, redirect, status
from tests.sandbox.test_pages import connect


@pytest.fixture
async def way(provider: FakeProvider, clock: FakeClock) -> AsyncIterator[ProviderHttp]:
    outbound = Outbound(Settings(_env_file=None, outbound_allow=("127.0.0.0/8",)), clock)
    yield outbound.for_provider("sandbox", operator_hosts=[provider.base_url.partition("://")[2]], deadline_s=0.5)
    await outbound.close()


async def refresh(provider: FakeProvider, way: ProviderHttp, token: dict[str, Any]) -> Any:
    fields = {
        "grant_type": "refresh_token", "refresh_token": token["refresh_token"],
        "client_id": provider.client.id, "client_secret": provider.client.secret or "",
    }  # fmt: skip
    return await way.send(form(f"{provider.base_url}/oauth/token", fields, carries_client_secret=True))


@pytest.fixture
async def token(provider: FakeProvider, http: aiohttp.ClientSession) -> dict[str, Any]:
    return await connect(provider, http)


@pytest.mark.parametrize(
    ("how", "code", "acted"),
    [("hang", "timed_out", False), ("close", "cut_off", False), ("answer_lost", "cut_off", True), ("answer_hangs", "timed_out", True)],
)  # fmt: skip
async def test_no_answer_and_whether_the_provider_acted(
    provider: FakeProvider, way: ProviderHttp, token: dict[str, Any], how: str, code: str, acted: bool
) -> None:
    """The caller cannot tell; the test can: a second try with the same refresh token works only if it did not."""
    provider.misbehave("refresh_token", how)
    with pytest.raises(Unreachable) as raised:
        await refresh(provider, way, token)
    assert raised.value.code == code
    assert (await refresh(provider, way, token)).status == (400 if acted else 200)
    assert (provider.calls["token"], provider.calls["refresh_token"]) == (3, 2)


async def test_odd_answers(provider: FakeProvider, way: ProviderHttp, token: dict[str, Any]) -> None:
    """What the answers are; each only as often as it was asked for, and in that order."""
    for how in ("html", "server_error", "empty", "error_in_200", "invalid_client"):
        provider.misbehave("token", how)
    provider.misbehave("token", rate_limited(9))
    provider.misbehave("token", redirect("https://evil.example/"))
    provider.misbehave("token", status(418, b"x"))
    provider.misbehave("token", error("invalid_scope", 400), times=2)
    got = [await refresh(provider, way, token) for _ in range(10)]
    assert [answer.status for answer in got] == [200, 500, 200, 200, 401, 429, 307, 418, 400, 400]
    assert got[3].json()["error"] == "invalid_grant"
    assert got[5].headers["retry-after"] == "9"
    for answer in (got[0], got[1], got[2]):
        with pytest.raises(OddAnswer):
            answer.json()
    assert (await refresh(provider, way, token)).status == 200
    provider.misbehave("token", "huge")
    with pytest.raises(OddAnswer, match="too_large"):
        await refresh(provider, way, token)


@pytest.mark.parametrize(
    ("how", "name", "value"),
    [
        ("no_expires_in", "expires_in", GONE), ("text_expires_in", "expires_in", "3600"), ("odd_expires_in", "expires_in", "soon"),
        ("no_refresh_token", "refresh_token", GONE), ("no_access_token", "access_token", GONE), ("fewer_scopes", "scope", "profile"),
        ("number_for_token", "access_token", 42), ("no_scope", "scope", GONE),
        ("more_scopes", "scope", "profile messages.read messages.write contacts.read admin"),
    ],
)  # fmt: skip
async def test_members_that_are_other_ones(
    provider: FakeProvider, way: ProviderHttp, token: dict[str, Any], how: str, name: str, value: object
) -> None:
    """The provider acts; its answer says something else."""
    provider.misbehave("token", how, times=None)
    answer = (await refresh(provider, way, token)).json()
    assert answer.get(name, GONE) == value
    provider.behave()
    provider.misbehave("refresh_token", changed(token_type="mac"))
    kept = token if how == "no_refresh_token" else answer
    assert (await refresh(provider, way, kept)).status == (400 if how == "no_refresh_token" else 200)


async def test_calls_are_held_until_the_test_lets_them_go(
    provider: FakeProvider, way: ProviderHttp, token: dict[str, Any]
) -> None:
    """No time is involved: so many are held, then all go on."""
    way.deadline_s = 60.0
    provider.misbehave("me", "slow", times=None)
    provider.misbehave("refresh_token", "slow_answer")
    request = bearer("GET", f"{provider.base_url}/api/me", token["access_token"])
    calls = [asyncio.create_task(way.send(request)) for _ in range(3)]
    calls.append(asyncio.create_task(refresh(provider, way, token)))
    await provider.gate.until(4)
    assert not any(call.done() for call in calls)
    assert sum(token.used_at is not None for token in provider.sandbox.tokens.values()) == 1  # it has acted already
    await provider.gate.open()
    assert [answer.status for answer in await asyncio.gather(*calls)] == [200] * 4
    assert provider.calls["me"] == 3


def test_every_way_is_tried_here() -> None:
    """A new one gets its line above."""
    tried = {
        "hang", "close", "answer_lost", "answer_hangs", "html", "server_error", "empty", "error_in_200", "invalid_client", "huge",
        "no_expires_in", "text_expires_in", "odd_expires_in", "no_refresh_token", "no_access_token", "fewer_scopes",
        "number_for_token", "no_scope", "more_scopes", "slow", "slow_answer",
    }  # fmt: skip
    assert set(BY_NAME) == tried | {"invalid_grant", "rate_limited"}


async def test_a_seed_makes_it_repeat_itself(clock: FakeClock) -> None:
    """Client, secrets, and everything after."""
    from tests.fakes import fake_provider

    made = []
    for _ in range(2):
        async with fake_provider(clock, seed=7, redirect_uris=[CALLBACK]) as provider:
            made.append((provider.client.id, provider.client.secret, provider.sandbox.new("code")))
    assert made[0] == made[1]
