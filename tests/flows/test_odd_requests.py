"""Requests that are no delivery of this provider's: each ends in a clear 4xx, is counted, and leaves nothing behind."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from gateway.service import Gateway
from providers.registry import all_providers
from tests import signers_d
from tests.flows import raw
from tests.flows.house import House, declare, metric, opened
from tests.flows.raw import connected
from tests.signers import SIGNERS
from tests.web.conftest import Api

LIMIT = 64 * 1024


@pytest.fixture
async def house(gateway: Gateway) -> AsyncIterator[House]:
    """One with GitHub and Slack declared, and a small limit for bodies."""
    gateway.settings = gateway.settings.model_copy(update={"max_body_bytes": LIMIT})
    async with opened(gateway) as made:
        await declare(made, "github")
        await declare(made, "slack")
        yield made


async def refused(house: House, data: bytes, status: int, reason: str) -> raw.Answer:
    """The answer to `data`, which must be this refusal: counted under its reason, nothing kept."""
    labels = {"provider": "github", "integration": "github", "reason": reason}
    before = metric("posthouse_refused_total", **labels)
    answer = await house.ask(data)
    assert (answer.status, answer.body.decode()) == (status, reason)
    assert metric("posthouse_refused_total", **labels) == before + 1
    assert await house.kept() == []
    return answer


@pytest.mark.parametrize(
    "target",
    ["/hooks/nobody", "/hooks/", "/hooks/github/", "/hooks/github/hook_" + "0" * 32, "/hooks/github/x", "/hooks//github",
     "/hooks/github/a/b", "/hooks/GitHub", "/hooks/github%00", "/hooks/%67ithub", "/hooks/github;x"],
)  # fmt: skip
async def test_what_names_no_integration_or_endpoint_of_ours_is_404(house: House, target: str) -> None:
    """Never 410, which deletes subscriptions at several providers; validly signed or not."""
    before = metric("posthouse_unknown_integration_total")
    _, headers, body = house.signed("github")
    answer = await house.ask(raw.request(target, headers, body))
    assert answer.status == 404
    assert metric("posthouse_unknown_integration_total") == before + 1
    assert await house.kept() == []


@pytest.mark.parametrize(
    "target", ["/", "/v1/events", "/healthz", "/metrics", "/openapi.json", "/hooks", "//hooks/github"]
)
async def test_the_public_listener_has_nothing_else(house: House, target: str) -> None:
    """The management API, health and metrics are on the private one."""
    assert (await house.ask(raw.request(target, method="GET"))).status == 404


async def test_a_doubled_signature_id_or_timestamp_is_refused(house: House) -> None:
    """Proxies disagree on which one counts; the same value twice is refused too, a doubled other header is not."""
    for name, signer in SIGNERS.items():
        if name not in ("github", "slack"):
            await declare(house, name)
        target, headers, body = house.signed(name)
        facts = all_providers()[signer.provider].facts
        guarded = [header for header in headers if header in (*facts.signature_headers, *facts.identity_headers)]
        assert bool(guarded) == (signer.provider != "microsoft" and name not in signers_d.SIGNERS)
        for header in guarded:
            for value in (headers[header], "x", ""):
                twice = [*headers.items(), (header.title(), value)]
                answer = await house.ask(raw.request(target, twice, body))
                assert (name, header, answer.status, answer.body) == (name, header, 400, b"duplicate_header")
    assert await house.kept() == []
    target, headers, body = house.signed("github")
    assert (await house.ask(raw.request(target, [*headers.items(), ("user-agent", "twice")], body))).status == 200


async def test_more_than_a_hundred_headers_are_431(house: House) -> None:
    """Also a few that are very long."""
    target, headers, body = house.signed("github")
    many = [*headers.items(), *((f"x-{n}", "") for n in range(100))]
    await refused(house, raw.request(target, many, body), 431, "too_many_headers")
    long = [*headers.items(), *((f"x-{n}", "v" * 7000) for n in range(5))]
    await refused(house, raw.request(target, long, body), 431, "too_many_headers")
    as_many_as_may_be = [*headers.items(), *((f"x-{n}", "") for n in range(100 - len(headers) - 2))]
    assert (await house.ask(raw.request(target, as_many_as_may_be, body))).status == 200


async def test_a_compressed_body_is_415(house: House) -> None:
    """What was signed are the bytes before any coding; guessing opens a door for bombs."""
    target, headers, body = house.signed("github")
    for coding in ("gzip", "br", "GZIP", "identity, gzip"):
        packed = raw.request(target, {**headers, "content-encoding": coding}, gzip.compress(body))
        await refused(house, packed, 415, "content_encoding")
    assert (await house.ask(raw.request(target, {**headers, "content-encoding": "identity"}, body))).status == 200


async def test_another_method_is_405_and_says_which_there_are(house: House) -> None:
    """PUT, PATCH, DELETE; a validly signed body makes no difference."""
    target, headers, body = house.signed("github")
    for method in ("PUT", "PATCH", "DELETE", "PROPFIND"):
        answer = await refused(house, raw.request(target, headers, body, method=method), 405, "method_not_allowed")
        assert answer.header("allow") == "GET, HEAD, OPTIONS, POST"


async def test_get_head_and_options_are_handshakes_that_this_provider_does_not_make(house: House) -> None:
    """403 by each; HEAD without a body, and the connection goes on."""
    target, headers, body = house.signed("github")
    for method in ("GET", "OPTIONS"):
        await refused(house, raw.request(target, headers, body, method=method), 403, "handshake_refused")
    async with connected(house.url) as connection:
        head = await connection.ask(raw.request(target, method="HEAD", length=False), head=True)
        assert (head.status, head.header("content-length"), head.body) == (403, "17", b"")
        assert (await connection.ask(raw.request(target, headers, body))).status == 200


@pytest.mark.parametrize("chunked", [0, 1000])
async def test_a_body_over_the_limit_is_413_while_it_still_comes(house: House, chunked: int) -> None:
    """Announced or in chunks; one byte under the limit is taken."""
    target, headers, body = house.signed("github", b'{"a":"%b"}' % (b"x" * (LIMIT - 8)))
    assert len(body) == LIMIT
    assert (await house.ask(raw.request(target, headers, body, chunked=chunked))).status == 200
    assert len(await house.kept()) == 1
    target, headers, body = house.signed("github", b'{"a":"%b"}' % (b"x" * (LIMIT + 100)))
    before = metric("posthouse_refused_total", provider="github", integration="github", reason="too_large")
    whole = raw.request(target, headers, body, chunked=chunked)
    async with connected(house.url) as connection:
        connection.send(whole[:-10])  # the end never comes
        answer = await connection.answer()
        assert (answer.status, answer.body) == (413, b"too_large")
    assert metric("posthouse_refused_total", provider="github", integration="github", reason="too_large") == before + 1
    assert len(await house.kept()) == 1


async def test_a_connection_goes_on_after_a_body_that_was_too_large(house: House) -> None:
    """What is left of the body is read past, not taken for a request."""
    target, headers, body = house.signed("github")
    inner = raw.request(target, headers, body)
    async with connected(house.url) as connection:
        assert (await connection.ask(raw.request(target, headers, inner * (2 * LIMIT // len(inner))))).status == 413
        assert (await connection.ask(inner)).status == 200
    assert len(await house.kept()) == 1


@pytest.mark.parametrize(
    "head",
    [b"content-length: 5\r\ncontent-length: 6", b"content-length: -1", b"content-length: 0x10", b"content-length: 1e3",
     b"content-length: 5\r\ntransfer-encoding: chunked", b"transfer-encoding: chunked, chunked", b"transfer-encoding: gzip",
     b"content-length: 99999999999999999999999999", b"bad header: 1", b"x: a\0b", b": no name"],
)  # fmt: skip
async def test_an_ambiguous_length_or_a_broken_header_is_no_request(house: House, head: bytes) -> None:
    """Nothing that two readers could cut differently is taken: 400, and the connection ends."""
    data = b"POST /hooks/github HTTP/1.1\r\nhost: h\r\n" + head + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    async with connected(house.url) as connection:
        answer = await connection.ask(data)
        assert answer.status in (400, 413)
        if answer.status == 400:
            assert await connection.ended() == b""
    assert await house.kept() == []


async def test_a_client_that_offers_http2_is_simply_served(house: House) -> None:
    """`Upgrade: h2c` is an offer (Java's client makes it by default), to be passed over; the body is the body."""
    offer = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
    }
    async with connected(house.url) as connection:
        for number, chunked in enumerate((0, 100, 0, 7), 1):
            target, headers, body = house.signed("github")
            whole = raw.request(target, {**headers, **offer}, body, chunked=chunked)
            cut = whole.index(b"\r\n\r\n") + number  # in the middle of the end of the head, just behind it, in the body
            connection.send(whole[:cut])
            await connection.sent()
            await house.gateway.regions.home.database.fetchval("SELECT 1")  # so the rest comes by itself
            assert (await connection.ask(whole[cut:])).status == 200
            assert (await connection.ask(raw.request(target, {**headers, **offer}, body))).status == 200
        target, headers, body = house.signed("github")
        assert (await connection.ask(raw.request("/hooks/none", offer, method="GET", length=False))).status == 404
        assert (await connection.ask(raw.request(target, headers, body))).status == 200
    assert [event.data for event in await house.kept()] == [body] * 5


async def test_the_body_of_such_a_request_is_no_request(house: House) -> None:
    """A request inside a body stays there, whatever stands in the head."""
    target, headers, body = house.signed("github")
    inner = raw.request(target, headers, body)
    for offer in ({"connection": "upgrade", "upgrade": "websocket"}, {"connection": "upgrade", "upgrade": "h2c"}):
        async with connected(house.url) as connection:
            whole = raw.request(target, {**headers, **offer}, inner)
            connection.send(whole[: -len(inner)])
            await connection.sent()
            await house.gateway.regions.home.database.fetchval("SELECT 1")
            assert (await connection.ask(inner)).body == b"signature_mismatch"
            assert (await connection.ask(raw.request("/hooks/none", method="GET"))).status == 404
    assert await house.kept() == []


async def test_broken_json_and_wrong_encodings_are_400(house: House) -> None:
    """Validly signed, and not what this provider sends: the sender should know."""
    for body in (b"", b"{", b"[]", b"null", b'{"a":NaN}', b'{"a":"\xff"}', b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"),
                 b"[" * 100_000, b'{"a":' * 10_000):  # fmt: skip
        target, headers, body = house.signed("github", body[:LIMIT])
        headers["content-type"] = "application/json"
        await refused(house, raw.request(target, headers, body), 400, "malformed")


async def test_odd_text_in_signature_headers_is_a_mismatch(house: House) -> None:
    """Beyond ASCII, empty, very long: 401 by its reason, no traceback."""
    for name in ("github", "slack"):
        target, headers, body = house.signed(name)
        header = {"github": "x-hub-signature-256", "slack": "x-slack-signature"}[name]
        for value in ("ü" * 64, "sha256=", "v0=" + "é" * 64, "a" * 9000, "\xa0", "sha256=" + "0" * 63 + "\xb2"):
            answer = await house.ask(raw.request(target, {**headers, header: value}, body))
            assert (answer.status, answer.body) == (401, b"signature_mismatch")
        for odd in ({}, {header: ""}):
            missing = {**{k: v for k, v in headers.items() if k != header}, **odd}
            answer = await house.ask(raw.request(target, missing, body))
            assert (answer.status, answer.body) == (401, b"signature_missing")
    assert await house.kept() == []


async def test_refusals_can_be_read_by_api_and_hold_no_value_and_no_body(house: House, api: Api) -> None:
    """Time, reason, status, header names, skew, size and digest; the newest first; the metric has the reason."""
    target, headers, body = house.signed("slack")
    await house.ask(raw.request(target, {**headers, "x-slack-signature": "v0=" + "0" * 64}, body))
    old = house.gateway.clock.now() - timedelta(seconds=400)
    stale, stale_headers, stale_body = house.signed("slack", at=old)
    await house.ask(raw.request(stale, stale_headers, stale_body))
    await house.gateway.write_refusals()
    found = (await api("GET", "/v1/refusals", params={"integration": "slack"})).json()["items"]
    assert [one["reason"] for one in found] == ["timestamp_out_of_range", "signature_mismatch"]
    assert found[0]["skew_s"] == pytest.approx(400, abs=1)
    assert found[0]["digest"] == "sha256:" + hashlib.sha256(stale_body).hexdigest()
    assert {"x-slack-signature", "x-slack-request-timestamp", "content-type"} <= set(found[1]["header_names"])
    assert (found[1]["status"], found[1]["size"]) == (401, len(body))
    assert "v0=0000" not in str(found)
    said = (await api("GET", "/metrics")).text
    assert 'posthouse_refused_total{integration="slack",provider="slack",reason="signature_mismatch"}' in said
