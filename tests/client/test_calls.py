"""Single calls: typed errors, when they are tried again, and what the package needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gateway import ids
from gateway.client import ApiError, Client, Conflict, Invalid, NotFound, Unavailable, Unreachable
from gateway.client.errors import PASSING
from gateway.client.http import Backoff, Pace
from tests.client.town import Town
from tests.signers import SIGNERS

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Slept:
    """A pause that takes no time and is written down; chance is always at its most."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @property
    def pace(self) -> Pace:
        return Pace(sleep=self.sleep, clock=lambda: sum(self.pauses), chance=lambda: 1.0)


@asynccontextmanager
async def something(*answers: web.Response) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Something between us and the gateway that gives these answers in turn; what it was asked."""
    asked: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        asked.append(request)
        return answers[len(asked) - 1]

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def test_a_platform_registers_a_customer(house: Town) -> None:
    """Tenant, integration, connection, endpoint; and what is wrong is told by class, with the request's id."""
    secret = SIGNERS["stripe"].secrets[0].decode()
    async with house.client() as posthouse:
        assert (await posthouse.create_tenant("acme", labels={"plan": "gold"}))["labels"] == {"plan": "gold"}
        body = {"name": "pay", "provider": "stripe", "signing_secrets": [secret]}
        await posthouse.request("POST", "/v1/integrations", json=body)
        made = await posthouse.create_connection("acme", "pay", ["account:acct_1"], external_id="x1")
        assert (made["tenant"], made["state"], made["external_id"]) == ("acme", "active", "x1")
        endpoint = await posthouse.create_endpoint("pay", connection=made["id"], secret=secret)
        assert "/hooks/pay/hook_" in endpoint["url"]
        assert await posthouse.request("DELETE", f"/v1/connections/{made['id']}") is None

        with pytest.raises(NotFound) as missing:
            await posthouse.create_connection("nobody", "pay", [])
        assert missing.value.code == "not_found"
        assert missing.value.request_id.startswith("req_")
        with pytest.raises(Invalid) as wrong:
            await posthouse.create_connection("acme", "pay", ["no colon"])
        assert wrong.value.extra["errors"][0]["where"].startswith("body.accounts")
        with pytest.raises(Conflict):
            await posthouse.request("POST", "/v1/integrations", json=body)


async def test_the_history_of_a_connection_is_read_page_by_page(house: Town) -> None:
    """All of it, newest first, however many pages that takes; and a connection that there is not is told."""
    secret = SIGNERS["stripe"].secrets[0].decode()
    async with house.client() as posthouse:
        await posthouse.create_tenant("acme")
        body = {"name": "pay", "provider": "stripe", "signing_secrets": [secret]}
        await posthouse.request("POST", "/v1/integrations", json=body)
        made = await posthouse.create_connection("acme", "pay", ["account:acct_1"])
        await house.database.execute(
            """INSERT INTO gateway.history (id, connection_id, at, signal, outcome, cause, source, generation, state_before, state_after)
               SELECT ('ffff' || lpad(to_hex(n), 4, '0') || substr(md5(n::text), 9))::uuid, $1, now(), 'revoked', 'stale',
                      'x', 'delivery', n, 'active', 'active' FROM generate_series(1, 401) AS n""",
            ids.parse(ids.CONNECTION, made["id"]),
        )
        entries = [entry async for entry in posthouse.history(made["id"])]
        assert [one["generation"] for one in entries[:401]] == list(range(401, 0, -1))
        assert [one["cause"] for one in entries[401:]] == ["registered"]
        with pytest.raises(NotFound):
            await anext(posthouse.history("conn_" + "0" * 32))


async def test_what_is_safe_to_repeat_waits_for_the_gateway(house: Town) -> None:
    """A call made while nobody listens goes through when somebody does."""
    await house.stop()
    slept = Slept()
    starts = iter([False, False, True])

    async def sleep(seconds: float) -> None:
        await slept.sleep(seconds)
        if next(starts):
            await house.start()

    async with house.client(pace=Pace(sleep=sleep)) as posthouse:
        assert (await posthouse.create_tenant("acme"))["id"] == "acme"
    assert len(slept.pauses) == 3


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_retry_after_is_heeded(status: int) -> None:
    """Never sooner than asked for, with a little chance on top; the same Idempotency-Key each time."""
    slept = Slept()
    busy = [web.Response(status=status, headers={"Retry-After": "7"}), web.Response(status=status, text="<html>")]
    async with (
        something(*busy, web.json_response({"id": "c"}, status=201)) as (url, asked),
        Client(url, "key", pace=slept.pace) as posthouse,
    ):
        assert await posthouse.create_connection("acme", "pay", []) == {"id": "c"}
    assert slept.pauses == [7.2, 0.4]
    assert len({request.headers["Idempotency-Key"] for request in asked}) == 1
    assert {request.headers["Authorization"] for request in asked} == {"Bearer key"}


async def test_what_is_not_safe_to_repeat_is_not_repeated() -> None:
    """A POST without a key of its own might have been done."""
    slept = Slept()
    async with (
        something(web.Response(status=503, headers={"Retry-After": "soon"})) as (url, asked),
        Client(url, "key", pace=slept.pace) as posthouse,
    ):
        with pytest.raises(Unavailable) as refused:
            await posthouse.request("POST", "/v1/integrations", json={})
    assert (refused.value.retry_after_s, len(asked), slept.pauses) == (None, 1, [])


async def test_patience_ends() -> None:
    """After `patience_s` the last trouble is raised; nobody listens on that port."""
    slept = Slept()
    async with something() as (url, _):
        pass
    async with Client(url, "key", pace=slept.pace, patience_s=20) as posthouse:
        with pytest.raises(Unreachable):
            await posthouse.request("GET", "/v1/tenants")
    assert 20 <= sum(slept.pauses) < 40


def test_pauses_grow_and_are_bounded() -> None:
    """Doubled each time up to ten seconds, all of it chance; success begins anew."""
    backoff = Backoff(Pace(chance=lambda: 1.0))
    assert [backoff.pause_s(None) for _ in range(8)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    backoff.reset()
    assert backoff.pause_s(None) == 0.2
    assert Backoff(Pace(chance=lambda: 0.0)).pause_s(None) == 0


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=302, headers={"Location": "http://127.0.0.1:1/elsewhere"}),
        web.Response(status=404, text="<html>not here</html>", content_type="text/html"),
        web.Response(status=500, body=b"\xff\xfe"),
        web.Response(status=418, text='["a list"]', content_type="application/problem+json"),
    ],
)
async def test_an_answer_that_is_not_the_gateways(answer: web.Response) -> None:
    """An ApiError with its status; no redirect takes the key elsewhere, and the key is in no error."""
    async with something(answer) as (url, _), Client(url, "the-key-itself") as posthouse:
        with pytest.raises(ApiError) as refused:
            await posthouse.request("GET", "/v1/tenants")
    assert refused.value.status == answer.status
    assert not isinstance(refused.value, PASSING)
    assert "the-key" not in repr(refused.value) + str(refused.value) + repr(posthouse)


async def test_a_success_that_is_no_json() -> None:
    """A captive portal says 200 with a page."""
    async with something(web.Response(text="<html>")) as (url, _), Client(url, "key", patience_s=0) as posthouse:
        with pytest.raises(Unreachable, match="not JSON"):
            await posthouse.request("GET", "/v1/tenants")


def test_it_must_be_entered() -> None:
    """One clear line instead of a session that nobody closes."""
    with pytest.raises(RuntimeError, match="async with"):
        Client("http://127.0.0.1:1", "key").events()


def test_it_needs_nothing_of_posthouse_but_itself() -> None:
    """Platform code that imports it gets aiohttp, and no other part of the gateway or what that needs."""
    code = "import sys, gateway.client; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in out if name.partition(".")[0] in ("gateway", "providers", "subscriptions", "migrations")}
    assert {name for name in ours if not name.startswith("gateway.client")} == {"gateway"}
    assert not {"pydantic", "asyncpg", "starlette", "structlog", "orjson"} & set(out)
