"""Keys that providers publish: as fresh as the provider asks, one request however many wait, old ones while it is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.outbound import Outbound
from gateway.published_keys import MAX_BYTES, PublishedKeys, max_age_s, parse
from gateway.settings import Settings
from providers.contract import KeySource
from tests.clock import FakeClock

POSTY = KeySource("posty", "https://keys.example.com/jwks")


def jwks(*kids: str) -> bytes:
    return json.dumps({"keys": [{"kid": kid, "kty": "RSA", "n": "x", "e": "AQAB"} for kid in kids]}).encode()


@dataclass
class Provider:
    """Publishes keys over real HTTP, as the test says, and counts who asks."""

    body: bytes = jwks("one")
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Cache-Control": "public, max-age=3600"})
    asked: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event | None = None

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
async def published(provider: Provider, clock: FakeClock, tmp_path: Path) -> AsyncIterator[PublishedKeys]:
    """A process's published keys, told by the operator's setting to ask `provider`."""
    app = web.Application()
    app.router.add_get("/keys", provider.answer)
    server = TestServer(app)
    await server.start_server()
    settings = Settings(
        _env_file=None, home=tmp_path, keys_urls={"posty": str(server.make_url("/keys"))}, outbound_allow="127.0.0.0/8"
    )
    outbound = Outbound(settings, clock)
    made = PublishedKeys(clock, settings, outbound)
    yield made
    if provider.hold is not None:
        provider.hold.set()
    await made.close()
    await outbound.close()
    await server.close()


async def settled(published: PublishedKeys) -> None:
    """Until the fetch in the background, if there is one, has ended."""
    for task in asyncio.all_tasks():
        if task.get_name().startswith("keys:"):
            await task


async def test_the_first_unknown_key_fetches_and_memory_answers_from_then_on(
    published: PublishedKeys, provider: Provider
) -> None:
    """By key id, as published."""
    keys = await published.fetched(POSTY)
    assert keys["one"]["kty"] == "RSA"
    assert published.held(POSTY) == keys
    assert provider.asked == 1


async def test_memory_never_waits_and_sees_to_its_own_freshness(
    published: PublishedKeys, provider: Provider, clock: FakeClock
) -> None:
    """At first it is empty and a fetch starts; past max-age the old keys answer while the new ones come."""
    assert dict(published.held(POSTY)) == {}
    await settled(published)
    assert set(published.held(POSTY)) == {"one"}
    provider.body = jwks("two")
    clock.move(3599)
    assert set(published.held(POSTY)) == {"one"}
    await settled(published)
    assert provider.asked == 1
    clock.move(1)
    assert set(published.held(POSTY)) == {"one"}
    await settled(published)
    assert set(published.held(POSTY)) == {"two"}
    assert provider.asked == 2


async def test_many_deliveries_at_once_ask_once(published: PublishedKeys, provider: Provider) -> None:
    """And each gets the answer, though one of them gives up waiting."""
    provider.hold = asyncio.Event()
    published.held(POSTY)
    waiting = [asyncio.create_task(published.fetched(POSTY)) for _ in range(50)]
    await provider.arrived.wait()
    waiting.pop().cancel()
    provider.hold.set()
    assert all(set(keys) == {"one"} for keys in await asyncio.gather(*waiting))
    assert provider.asked == 1


async def test_forged_key_ids_do_not_make_us_call(
    published: PublishedKeys, provider: Provider, clock: FakeClock
) -> None:
    """Within a minute of a good answer an unknown id is simply unknown; after it we ask once more."""
    await published.fetched(POSTY)
    provider.body = jwks("one", "two")
    for _ in range(100):
        assert set(await published.fetched(POSTY)) == {"one"}
    assert provider.asked == 1
    clock.move(60)
    assert set(await published.fetched(POSTY)) == {"one", "two"}
    assert provider.asked == 2


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 500},
        {"status": 302, "headers": {"Location": "/elsewhere"}},
        {"body": b""},
        {"body": b"<html>"},
        {"body": b"[]"},
        {"body": b'{"keys": []}'},
        {"body": b'{"keys": "x"}'},
        {"body": b"[" * 100_000},
        {"body": b"\xff"},
        {"body": jwks("one") + b" " * MAX_BYTES},
    ],
)
async def test_while_the_provider_is_away_old_keys_go_on(
    published: PublishedKeys, provider: Provider, clock: FakeClock, trouble: dict[str, Any]
) -> None:
    """Known keys verify; of an unknown one nobody can tell, so its delivery comes again; soon we ask again."""
    await published.fetched(POSTY)
    for name, value in trouble.items():
        setattr(provider, name, value)
    clock.move(7200)
    assert set(published.held(POSTY)) == {"one"}
    await settled(published)
    assert set(published.held(POSTY)) == {"one"}
    for _ in range(10):
        with pytest.raises(Unavailable):
            await published.fetched(POSTY)
    assert provider.asked == 2
    provider.status, provider.headers, provider.body = 200, {}, jwks("two")
    clock.move(5)
    assert set(await published.fetched(POSTY)) == {"two"}


@pytest.mark.parametrize("allowed", ["127.0.0.0/8", ""])
async def test_a_provider_that_cannot_be_reached_is_unavailable(clock: FakeClock, tmp_path: Path, allowed: str) -> None:
    """Nothing listens there, or the operator does not let us go there."""
    settings = Settings(
        _env_file=None, home=tmp_path, keys_urls={"posty": "http://127.0.0.1:9/keys"}, outbound_allow=allowed
    )
    outbound = Outbound(settings, clock)
    published = PublishedKeys(clock, settings, outbound)
    with pytest.raises(Unavailable):
        await published.fetched(POSTY)
    assert dict(published.held(POSTY)) == {}
    await published.close()
    await outbound.close()


async def test_closing_cuts_what_is_under_way(published: PublishedKeys, provider: Provider) -> None:
    """A process that stops does not wait for a provider."""
    provider.hold = asyncio.Event()
    published.held(POSTY)
    await provider.arrived.wait()
    await published.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("keys:")]


async def test_sources_are_told_apart_by_their_url(clock: FakeClock, tmp_path: Path) -> None:
    """Two integrations of one provider trust two transmitters: neither gets the other's keys, nor pays for its trouble."""
    one, other = Provider(body=jwks("of-one")), Provider(body=jwks("of-other"))
    app = web.Application()
    app.router.add_get("/one", one.answer)
    app.router.add_get("/other", other.answer)
    server = TestServer(app)
    await server.start_server()
    settings = Settings(_env_file=None, home=tmp_path, outbound_allow="127.0.0.0/8")
    outbound = Outbound(settings, clock)
    published = PublishedKeys(clock, settings, outbound)
    here, there = (KeySource("ssf", str(server.make_url(path))) for path in ("/one", "/other"))
    assert set(await published.fetched(here)) == {"of-one"}
    other.status = 500
    with pytest.raises(Unavailable):
        await published.fetched(there)
    assert set(published.held(here)) == {"of-one"}
    assert (one.asked, other.asked) == (1, 1)
    await published.close()
    await outbound.close()
    await server.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"cache-control": "public, max-age=19754, must-revalidate"}, 19754),
        ({"cache-control": "MAX-AGE = 60"}, 60),
        ({"cache-control": "s-maxage=5"}, 0),
        ({"cache-control": "max-age=x"}, 0),
        ({"cache-control": "max-age=100", "age": "40"}, 60),
        ({"cache-control": "max-age=100", "age": "400"}, 0),
        ({"cache-control": "max-age=100", "age": "²"}, 100),
        ({"cache-control": "max-age=" + "9" * 5000}, 9999999999),
    ],
)
def test_freshness_is_what_the_answer_says(headers: dict[str, str], seconds: int) -> None:
    """Nonsense is no freshness; the bounds (a minute, a day) are put on later."""
    assert max_age_s(headers) == seconds


def test_a_map_of_certificates_is_read_too() -> None:
    """Google's /oauth2/v1/certs: key id to PEM; what is neither is left out."""
    pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    assert parse(json.dumps({"a": pem, "b": 5, "c": "x"}).encode(), "pem") == {"a": pem}
    with pytest.raises(ValueError, match="no keys"):
        parse(jwks("one"), "pem")


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_whatever_is_published_is_read_or_refused(body: bytes | str) -> None:
    """No body leads to anything but ValueError."""
    for form in ("jwks", "pem"):
        try:
            parse(body.encode() if isinstance(body, str) else body, form)
        except ValueError:
            continue
