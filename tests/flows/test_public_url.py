"""Providers that sign the URL sign the public one, which comes from configuration and from no header."""

from __future__ import annotations

import pytest

from tests.flows import raw
from tests.flows.house import House, declare
from tests.signers import SIGNERS

FORWARDED = {
    "forwarded": "host=evil.example.com;proto=http",
    "x-forwarded-host": "evil.example.com",
    "x-forwarded-proto": "http",
    "x-forwarded-port": "8080",
    "x-forwarded-prefix": "/evil",
    "x-original-url": "/hooks/evil",
    "x-rewrite-url": "/hooks/evil",
}


@pytest.fixture
async def hubspot(house: House) -> House:
    """HubSpot signs method, URL, body and time."""
    await declare(house, "hubspot")
    return house


async def test_no_header_changes_what_must_have_been_signed(hubspot: House) -> None:
    """Whatever Host and X-Forwarded-* say: the configured URL verifies, and the one they name does not."""
    target, headers, body = hubspot.signed("hubspot")
    request = raw.request(target, {**headers, **FORWARDED}, body).replace(b"hooks.example.com", b"evil.example.com", 1)
    assert request.startswith(b"POST /hooks/hubspot HTTP/1.1\r\nhost: evil.example.com\r\n")
    assert (await hubspot.ask(request)).status == 200

    signer = SIGNERS["hubspot"]
    for url in (
        "http://evil.example.com/hooks/hubspot",
        "https://evil.example.com/evil/hooks/hubspot",
        hubspot.url + target,
    ):
        signed = signer.headers(body, signer.secrets[0], hubspot.gateway.clock.now(), delivery_id="1", url=url)
        forged = raw.request(target, {**signed, **FORWARDED}, body).replace(
            b"hooks.example.com", b"evil.example.com", 1
        )
        answer = await hubspot.ask(forged)
        assert (answer.status, answer.body) == (401, b"signature_mismatch")
    assert len(await hubspot.kept()) == 1


async def test_the_query_is_part_of_it_as_it_was_sent(hubspot: House) -> None:
    """Escapes as they came, the order too; a query that was not signed is a forgery."""
    for query in ("?b=2&a=1", "?a=%7E%2F%3A+x", "?a=b?c"):
        target, headers, body = hubspot.signed("hubspot", target="/hooks/hubspot" + query)
        answer = await hubspot.ask(raw.request(target, headers, body))
        assert (query, answer.status) == (query, 200)
    target, headers, body = hubspot.signed("hubspot")
    for odd in ("?x=1", "#x", "?a=%7E"):
        answer = await hubspot.ask(raw.request(target + odd, headers, body))
        assert (odd, answer.status) == (odd, 401 if odd != "#x" else 200)


async def test_an_absolute_target_is_read_by_its_path(hubspot: House) -> None:
    """`POST http://evil/hooks/hubspot`, as a client of a proxy writes: the host in it means nothing either."""
    target, headers, body = hubspot.signed("hubspot")
    answer = await hubspot.ask(raw.request("http://evil.example.com" + target, headers, body))
    assert answer.status == 200
