"""The sandbox's API and admin API, and the webhooks that they cause."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from gateway.sandbox.webhooks import AGAIN_S
from tests.clock import FakeClock
from tests.fakes import CALLBACK, FakeProvider, fake_provider
from tests.sandbox.test_pages import connect


@dataclass
class Receiver:
    """Takes webhooks; answers as the test says."""

    url: str = ""
    status: int = 200
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((headers, await request.read()))
        return web.Response(status=self.status)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made, app = Receiver(), web.Application()
    app.router.add_post("/hooks/sandbox", made.take)
    server = TestServer(app)
    await server.start_server()
    made.url = str(server.make_url("/hooks/sandbox"))
    yield made
    await server.close()


@pytest.fixture
async def provider(clock: FakeClock, receiver: Receiver) -> AsyncIterator[FakeProvider]:
    async with fake_provider(clock, webhook_url=receiver.url) as made:
        yield made


def bearer(token: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {token['access_token']}"}


async def call(http: aiohttp.ClientSession, method: str, path: str, body: object = None, **how: Any) -> tuple[int, Any]:
    """Status and JSON of a call."""
    async with http.request(method, path, json=body, **how) as answer:
        return answer.status, await answer.json()


async def told(provider: FakeProvider, receiver: Receiver) -> list[dict[str, Any]]:
    """What the receiver got, each verified by the specification's own library."""
    await provider.sandbox.webhooks.settled()
    verifier = Webhook(provider.client.webhook_secret)
    return [dict(verifier.verify(body, headers)) for headers, body in receiver.got]


async def test_whose_account_it_is_depends_on_no_scope(provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    """Name and address do."""
    token = await connect(provider, http, user="user-2")
    status, me = await call(http, "GET", "/api/me", headers=bearer(token))
    assert (status, me["sub"], me["name"], me["grant_id"]) == (200, "user-2", "Ben Example", token["grant_id"])
    token = await connect(provider, http, untick=["profile"])
    status, me = await call(http, "GET", "/api/me", headers=bearer(token))
    assert (status, me["sub"], "name" in me) == (200, "user-1", False)


async def test_dead_tokens_and_narrow_ones_are_told_apart(provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    """RFC 6750: 401 invalid_token, 403 insufficient_scope with the scope that it takes."""
    token = await connect(provider, http)
    async with http.post("/api/messages", json={"text": "x"}, headers=bearer(token)) as answer:
        assert answer.status == 403
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert 'scope="messages.write"' in answer.headers["www-authenticate"]
    for headers in ({}, {"authorization": "Basic eDp5"}):
        async with http.get("/api/me", headers=headers) as answer:
            assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="sandbox"')
    for wrong in (token["refresh_token"], "x", "", "ü"):
        async with http.get("/api/me", headers={"authorization": f"Bearer {wrong}"}) as answer:
            assert answer.status == 401
            assert "invalid_token" in answer.headers["www-authenticate"]


async def test_webhooks_are_signed_and_say_what_happened(
    provider: FakeProvider, http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    """A message to a user whose app may read them, a ping, and the end of a grant; once each, in order of events."""
    ada = await connect(provider, http, user="user-1")
    await connect(provider, http, user="user-2", untick=["messages.read"])
    assert (await call(http, "POST", "/admin/messages", {"user": "user-1", "text": "häh?"}))[0] == 201
    assert (await call(http, "POST", "/admin/messages", {"user": "user-2", "text": "unseen"}))[0] == 201
    assert (await told(provider, receiver))[0]["data"]["user"] == "user-1"
    assert (await call(http, "POST", "/admin/ping", {}))[0] == 202
    await provider.sandbox.webhooks.settled()
    assert (await call(http, "POST", f"/admin/grants/{ada['grant_id']}/revoke", {}))[0] == 200
    assert (await call(http, "POST", f"/admin/grants/{ada['grant_id']}/revoke", {}))[0] == 200
    events = await told(provider, receiver)
    assert [event["type"] for event in events] == ["message.created", "ping", "grant.revoked"]
    assert [event.get("account") for event in events] == ["user-1", None, "user-1"]
    assert (events[2]["data"]["user"], events[2]["data"]["grant_id"]) == ("user-1", ada["grant_id"])
    assert (await call(http, "GET", "/api/messages", headers=bearer(ada)))[0] == 401
    listed = (await call(http, "GET", "/admin/grants"))[1]["items"]
    assert [grant["cause"] for grant in listed] == ["revoked_by_user", None]


async def test_a_webhook_that_did_not_arrive_comes_again_and_is_given_up(
    provider: FakeProvider, receiver: Receiver, clock: FakeClock
) -> None:
    """The same id and body, signed anew; with growing pauses."""
    receiver.status = 503
    webhooks = provider.sandbox.webhooks
    webhooks.tell(provider.client, "ping", {})
    await webhooks.settled()
    for pause in AGAIN_S:
        clock.move(pause - 1)
        assert await webhooks.run_once() == 0
        clock.move(1)
        assert await webhooks.run_once() == 1
    clock.move(10 * AGAIN_S[-1])
    assert await webhooks.run_once() == 0
    assert len(receiver.got) == len(AGAIN_S) + 1
    assert len({(headers["webhook-id"], body) for headers, body in receiver.got}) == 1
    assert len({headers["webhook-signature"] for headers, _ in receiver.got}) == len(receiver.got)
    provider.client.webhook_url = "http://127.0.0.1:9/nobody"
    webhooks.tell(provider.client, "ping", {})
    await webhooks.settled()
    assert webhooks.notices[-1].status is None
    provider.client.webhook_url, receiver.status = receiver.url, 200
    clock.move(AGAIN_S[0])
    assert await webhooks.run_once() == 1
    assert webhooks.notices[-1].due_at is None


async def test_apps_are_registered_and_changed(provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    """Secrets are shown at the registration alone."""
    asked = {"name": "Mine", "redirect_uris": [CALLBACK], "client_id": "mine", "scopes": ["profile"]}
    status, made = await call(http, "POST", "/admin/clients", asked)
    assert (status, made["client_id"], made["scopes"]) == (201, "mine", ["profile"])
    assert made["client_secret"] == provider.sandbox.clients["mine"].secret
    assert (await call(http, "POST", "/admin/clients", asked))[0] == 409
    status, public = await call(http, "POST", "/admin/clients", {"redirect_uris": [CALLBACK], "public": True})
    assert (status, public["client_secret"], public["public"]) == (201, None, True)
    status, changed = await call(http, "PATCH", "/admin/clients/mine", {"webhook_url": "https://x.example/h"})
    assert (status, changed["webhook_url"]) == (200, "https://x.example/h")
    shown = json.dumps((await call(http, "GET", "/admin/clients"))[1])
    assert made["client_secret"] not in shown
    assert made["webhook_secret"] not in shown
    assert repr(provider.sandbox.clients["mine"]).count("secret") == 0
    fields = {"grant_type": "client_credentials", "client_id": public["client_id"]}
    async with http.post("/oauth/token", data=fields) as answer:
        assert (await answer.json())["error"] == "unauthorized_client"


async def test_rules_are_changed_while_it_runs(provider: FakeProvider, http: aiohttp.ClientSession) -> None:
    """From the next token on."""
    status, rules = await call(http, "PATCH", "/admin/rules", {"access_ttl_s": 5, "rotation": "none"})
    assert (status, rules["access_ttl_s"], rules["rotation"]) == (200, 5, "none")
    assert (await connect(provider, http))["expires_in"] == 5
    assert (await call(http, "GET", "/admin/rules"))[1] == rules
    for wrong in ({"x": 1}, {"access_ttl_s": -1}, {"access_ttl_s": "5"}, {"access_ttl_s": True}, {"rotation": "often"},
                  {"refresh_ends_access": 1}, {"rotation": None}, {"access_ttl_s": 10**20}, {"__class__": 1}):  # fmt: skip
        assert (await call(http, "PATCH", "/admin/rules", wrong))[0] == 400, wrong
    assert (await call(http, "GET", "/admin/rules"))[1] == rules


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/admin/clients", {}), ("POST", "/admin/clients", {"redirect_uris": "x"}),
        ("POST", "/admin/clients", {"redirect_uris": ["javascript:x"]}), ("POST", "/admin/clients", {"redirect_uris": [1]}),
        ("POST", "/admin/clients", {"redirect_uris": ["https://x.example/#f"]}),
        ("POST", "/admin/clients", {"redirect_uris": [CALLBACK], "more": 1}),
        ("POST", "/admin/clients", {"redirect_uris": [CALLBACK], "webhook_secret": "whsec_x"}),
        ("POST", "/admin/clients", {"redirect_uris": [CALLBACK], "client_id": "a\nb"}),
        ("PATCH", "/admin/clients/nobody", {}), ("POST", "/admin/grants/nothing/revoke", {}),
        ("POST", "/admin/grants/x/revoke", {"tell": 1}), ("POST", "/admin/messages", {"user": "user-1"}),
        ("POST", "/admin/messages", {"user": ["user-1"], "text": "x"}), ("POST", "/admin/messages", {"user": "x", "text": "x"}),
        ("POST", "/admin/messages", {"user": "user-1", "text": "\ud800"}), ("POST", "/admin/ping", []),
    ],
)  # fmt: skip
async def test_what_the_admin_api_does_not_understand(
    provider: FakeProvider, http: aiohttp.ClientSession, method: str, path: str, body: Any
) -> None:
    """It says so; nothing is changed."""
    before = set(provider.sandbox.clients)
    status, answer = await call(http, method, path, body)
    assert status in (400, 404)
    assert answer["error"] in ("invalid_request", "not_found")
    assert set(provider.sandbox.clients) == before


PATHS = ["/oauth/authorize", "/oauth/token", "/oauth/revoke", "/oauth/introspect", "/account", "/account/revoke", "/api/me",
         "/api/messages", "/admin/clients", "/admin/rules", "/admin/ping", "/admin/grants/x/revoke"]  # fmt: skip
NAMES = ["client_id", "redirect_uri", "response_type", "grant_type", "code", "token", "user", "consent", "scope", "x"]
VALUES = st.sampled_from(["code", "authorization_code", "refresh_token", "user-1", CALLBACK]) | st.text(max_size=9)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    method=st.sampled_from(["GET", "POST", "PATCH"]),
    fields=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6),
    raw=st.none() | st.binary(max_size=40) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps),
    kind=st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain"]),
    login=st.none() | st.text(max_size=20),
)
async def test_nothing_that_is_sent_is_a_fault_of_ours(
    provider: FakeProvider, http: aiohttp.ClientSession, path: str, method: str, fields: list[tuple[str, str]],
    raw: Any, kind: str, login: str | None,
) -> None:  # fmt: skip
    """Any path, method, parameters and body: an answer under 500."""
    headers = {"content-type": kind}
    if login is not None and login.isprintable() and login.isascii():
        headers["authorization"] = f"Basic {login}"
    params = [(name, value) for name, value in fields if max(value, default="a") < "\ud800"]
    async with http.request(method, path, params=params, data=raw, headers=headers, allow_redirects=False) as answer:
        assert answer.status < 500
