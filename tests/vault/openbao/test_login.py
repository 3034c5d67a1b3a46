"""Our login at a real OpenBao: kept alive, made anew, refused in one line; and nothing secret in what is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from gateway import redaction
from gateway.errors import SetupError, Unavailable
from gateway.settings import Settings
from gateway.vault.openbao import FOREVER, OpenBao, Refused, connected
from gateway.vault.transport import MAX_BYTES
from tests import openbao
from tests.clock import FakeClock
from tests.flows.house import metric
from tests.vault.test_keyring import assert_without


def token_of(bao: OpenBao) -> str:
    assert bao._lease is not None
    return bao._lease.token


async def test_a_login_is_renewed_in_the_last_third_and_made_anew_at_its_maximum(
    bao_server: openbao.Server, clock: FakeClock
) -> None:
    """The token stays the same over renewals, until its maximum life leaves no time; then there is another."""
    tenancy = bao_server.tenancy(token_ttl="600s", token_max_ttl="900s")
    async with connected(tenancy.settings(), clock) as bao:
        first = token_of(bao)
        assert (bao.seconds_left, bao.renewable) == (600, True)
        clock.move(390)
        await bao.run_once()
        assert bao.seconds_left == 210  # more than a third: left alone
        clock.move(20)
        await bao.run_once()
        assert (token_of(bao), bao.seconds_left) == (first, 600)
        assert metric("posthouse_vault_token_seconds_left", server=bao.host) == 600
        assert metric("posthouse_vault_up", server=bao.host) == 1
        tenancy.ask("POST", "auth/token/revoke", {"token": first})  # as if its maximum had come: renewal is refused
        clock.move(410)
        await bao.run_once()
        assert token_of(bao) != first
        assert bao.seconds_left == 600
        await bao.call("key", "GET", "transit/keys/posthouse")


async def test_a_maximum_life_that_leaves_no_time_means_a_new_login(
    bao_server: openbao.Server, clock: FakeClock
) -> None:
    """A renewal that brings less than a third of the life is not worth keeping."""
    tenancy = bao_server.tenancy(token_ttl="600s", token_max_ttl="600s")
    async with connected(tenancy.settings(vault_token=None), clock) as bao:
        first = token_of(bao)
        tenancy.ask("POST", "auth/approle/role/posthouse", {"token_ttl": "100s", "token_max_ttl": "100s"})
        await bao.renew()
        assert token_of(bao) != first


async def test_a_lost_token_is_replaced_within_the_call_that_finds_out(
    bao: OpenBao, tenancy: openbao.Tenancy, clock: FakeClock
) -> None:
    """Revoked there, or ended here: forty callers at once, one new login, and each has its answer."""
    first = token_of(bao)
    tenancy.ask("POST", "auth/token/revoke", {"token": first})
    logins = metric("posthouse_vault_calls_total", kind="login", outcome="ok")
    await asyncio.gather(*(bao.call("key", "GET", "transit/keys/posthouse") for _ in range(40)))
    second = token_of(bao)
    assert second != first
    clock.move(3600)
    await asyncio.gather(*(bao.call("key", "GET", "transit/keys/posthouse") for _ in range(40)))
    assert token_of(bao) != second
    assert metric("posthouse_vault_calls_total", kind="login", outcome="ok") == logins + 2


async def test_a_policys_no_is_not_taken_for_a_lost_token(bao: OpenBao) -> None:
    """Refused, and still the same login."""
    first = token_of(bao)
    with pytest.raises(Refused, match="permission denied"):
        await bao.call("key", "GET", "transit/keys/other")
    assert token_of(bao) == first


async def test_batch_tokens_and_static_tokens(bao_server: openbao.Server, clock: FakeClock) -> None:
    """A batch token cannot be renewed, so we log in again; a static one is renewed, and never replaced."""
    batch = bao_server.tenancy(token_type="batch", token_ttl="600s")
    async with connected(batch.settings(), clock) as bao:
        first = token_of(bao)
        assert not bao.renewable
        clock.move(500)
        await bao.run_once()
        assert token_of(bao) != first
    tenancy = bao_server.tenancy()
    made = tenancy.ask("POST", "auth/token/create", {"policies": ["posthouse"], "ttl": "600s"})["auth"]["client_token"]
    static = tenancy.settings(vault_role_id=None, vault_secret_id=None, vault_token=SecretStr(made))
    async with connected(static, clock) as bao:
        clock.move(500)
        await bao.run_once()
        assert token_of(bao) == made
        assert bao.seconds_left > 500
        tenancy.ask("POST", "auth/token/revoke", {"token": made})
        with pytest.raises(Refused, match="POSTHOUSE_VAULT_TOKEN"):
            await bao.renew()
    async with connected(
        static.model_copy(update={"vault_token": SecretStr(bao_server.root), "vault_namespace": None}), clock
    ) as bao:
        await bao.run_once()
        assert bao.seconds_left == FOREVER
    assert bao_server.ask("GET", "auth/token/lookup-self")["data"]["id"] == bao_server.root  # not handed back


async def test_closing_hands_the_login_back(tenancy: openbao.Tenancy, clock: FakeClock) -> None:
    """Commands come and go: their tokens do not pile up there."""
    async with connected(tenancy.settings(), clock) as bao:
        token = token_of(bao)
        tenancy.ask("POST", "auth/token/lookup", {"token": token})
    with pytest.raises(AssertionError, match="403"):
        tenancy.ask("POST", "auth/token/lookup", {"token": token})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"vault_secret_id": SecretStr("wrong-secret-id")}, "refuses our AppRole login"),
    ({"vault_approle_mount": "elsewhere"}, "refuses our AppRole login"),
    (
        {"vault_role_id": None, "vault_secret_id": None, "vault_token": SecretStr("wrong-token")},
        "refuses POSTHOUSE_VAULT_TOKEN",
    ),
    ({"vault_namespace": "nowhere"}, "refuses our AppRole login"),
    ({"vault_role_id": None}, "one of the two"),
    ({"vault_token": SecretStr("both")}, "one of the two"),
    ({"vault_addr": None}, "POSTHOUSE_VAULT_ADDR is not set"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG)
async def test_a_start_that_is_refused_says_so_in_one_line(
    tenancy: openbao.Tenancy, clock: FakeClock, wrong: dict[str, Any], says: str
) -> None:
    """Never a secret in it."""
    with pytest.raises(SetupError) as caught:
        async with connected(tenancy.settings(**wrong), clock):
            pass
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_without(caught.value, tenancy.secret_id, "wrong-secret-id", "wrong-token")


async def test_a_login_that_was_refused_is_not_tried_at_every_call(
    bao: OpenBao, tenancy: openbao.Tenancy, clock: FakeClock
) -> None:
    """The secret id was revoked: 503 for a while, without a storm; a new one works again without a restart of theirs."""
    tenancy.ask("POST", "auth/approle/role/posthouse/secret-id/destroy", {"secret_id": tenancy.secret_id})
    clock.move(3600)
    refused = metric("posthouse_vault_calls_total", kind="login", outcome="refused")
    for _ in range(5):
        with pytest.raises(Unavailable) as caught:
            await bao.call("key", "GET", "transit/keys/posthouse")
        assert caught.value.retry_after_s
        assert_without(caught.value, tenancy.secret_id)
    assert metric("posthouse_vault_calls_total", kind="login", outcome="refused") == refused + 1


async def test_nothing_shows_a_secret(bao: OpenBao, tenancy: openbao.Tenancy) -> None:
    """Neither the client, its login, an answer nor a refusal."""
    answer = await bao.call("encrypt", "POST", "transit/encrypt/posthouse", {"plaintext": "c2VjcmV0"})
    shown = f"{bao!r} {bao._lease!r} {bao._server!r} {answer!r} {tenancy.settings()!r}"
    for secret in (token_of(bao), tenancy.secret_id, answer.body["data"]["ciphertext"]):
        assert secret not in shown


@asynccontextmanager
async def answering(head: bytes, body: bytes = b"") -> AsyncIterator[str]:
    """A server that answers everything so."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("head", "body", "says"),
    [
        (b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/v1/stolen\r\nContent-Length: 0", b"", "standby"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6", b"<html>", "not Vault"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2", b"[]", "not Vault"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2", b"{}", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 23", b'{"auth":{"ttl":"much"}}', "cannot be read"),
        (b"HTTP/1.1 200 OK", b" " * (MAX_BYTES + 1), "too long"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 3", b"bad", "fails"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 30", b'{"errors": ["Vault is sealed"]}'[:30], "fails"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 31", b'{"errors": ["Vault is sealed"]}', "sealed"),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0", b"", "rate"),
        (b"nonsense", b"", "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50", b"{", "cannot be reached"),
    ],
)
async def test_odd_answers_are_the_server_being_away(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, head: bytes, body: bytes, says: str
) -> None:
    """No redirect is followed, no proxy of the environment asked, nothing endless read; each is 503 with Retry-After."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with answering(head, body) as url:
        bao = OpenBao(
            Settings(_env_file=None, vault_addr=url, vault_role_id="r", vault_secret_id=SecretStr("s")), clock
        )
        with pytest.raises(SetupError if says == "not Vault" else Unavailable, match=says):
            await bao.open()
        with pytest.raises(Unavailable, match=says) as caught:
            await bao.call("key", "GET", "transit/keys/posthouse")
        await bao.close()
    assert caught.value.retry_after_s == (7 if says == "rate" else 10 if says == "sealed" else 2)


async def test_a_kept_connection_that_was_closed_is_no_outage(clock: FakeClock) -> None:
    """The server closes a connection just when the next call goes out on it: sent once more, on a new one."""
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"auth": {"client_token": "t", "lease_duration": 60, "renewable": true}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await reader.readuntil(b"POST")  # the next one (the first one's body comes before it)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    settings = Settings(_env_file=None, vault_addr=f"http://{host}:{port}", vault_role_id="r")
    async with server, connected(settings, clock) as bao:
        await bao.call("encrypt", "POST", "transit/encrypt/posthouse", {})
        await bao.call("encrypt", "POST", "transit/encrypt/posthouse", {})
    assert connections >= 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vault_addr", "https://user:pw@vault"), ("vault_addr", "ftp://vault"), ("vault_addr", "https://"),
        ("vault_addr", "https://vault?x"), ("vault_addr", "https://vault:port"), ("vault_kv_prefix", "../other"),
        ("vault_kv_mount", ""), ("vault_transit_key", "a key"), ("vault_namespace", "a\nb"), ("key_backend", "hsm"),
    ],
)  # fmt: skip
def test_settings_that_lead_astray_are_refused(name: str, value: str) -> None:
    """At once, and not by a call that goes elsewhere."""
    with pytest.raises(ValueError, match=name):
        Settings(_env_file=None, **{name: value})  # type: ignore[arg-type]  # what is tried


async def test_a_start_while_the_server_is_away_goes_on_and_says_so(clock: FakeClock) -> None:
    """Deliveries need no key; the log's line says why and holds no secret."""
    settings = Settings(
        _env_file=None, vault_addr="http://127.0.0.1:1", vault_role_id="r", vault_secret_id=SecretStr("sid-of-ours")
    )
    bao = OpenBao(settings, clock)
    with structlog.testing.capture_logs() as logs:
        await bao.enter()
    await bao.close()
    told = str([redaction.fields(line) for line in logs])
    assert "cannot be reached" in told
    assert "of-ours" not in told
