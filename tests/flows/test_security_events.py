"""Security events from the first byte to the log, over real sockets, and the set-up that has Google send them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import RSAKey

from gateway import ids
from gateway.cli import security_events
from gateway.clock import Clock
from gateway.connections import grants
from gateway.connections.scopes import Ledger
from gateway.errors import SetupError
from gateway.integrations import store
from gateway.integrations.wanted import Wanted, checked
from gateway.regions import account_hash
from gateway.service import Gateway
from gateway.settings import Settings
from providers.google_risc import EVENTS
from providers.oauth import TokenSet
from providers.registry import all_providers
from tests.flows import raw
from tests.flows.house import House, declare, metric, opened
from tests.signers_b import GOOGLE_KEYS
from tests.signers_d import (
    AUDIENCE,
    GOOGLE_CLIENT,
    GOOGLE_SUB,
    OAUTH,
    PREFIX,
    RISC,
    SIGNERS,
    TRANSMITTER,
    by_token,
    claims,
    google_event,
    jwks,
    sealed,
    ssf_event,
)
from tests.web.conftest import Api

KEY = GOOGLE_KEYS["rsa-key-of-google-old"]["private"]  # any RSA key: it plays the service account's
ROBOT = "risc@our-project.iam.gserviceaccount.com"


async def push(house: House, name: str, token: bytes) -> raw.Answer:
    """A token as it is, as signer `name` pushes one."""
    _, headers, _ = house.signed(name)
    return await house.ask(raw.request(house.targets[name], headers, token))


async def test_a_revoked_token_is_on_the_log_without_its_identifier(house: House, api: Api) -> None:
    """Accepted with 202; the claims are kept, not the token that would verify anywhere; the prefix is nowhere."""
    await declare(house, "google/secevent")
    body = google_event("jti-1", OAUTH + "token-revoked", subject=by_token())
    token = sealed(body, SIGNERS["google/secevent"].secrets[0])
    answer = await push(house, "google/secevent", token)
    assert (answer.status, answer.body) == (202, b"")
    assert (await push(house, "google/secevent", token)).status == 202  # Google did not hear us: the same one again
    [event] = await house.kept()
    assert event.type == "posthouse.delivery.google.security.token-revoked"
    assert event.data == body.replace(PREFIX.encode(), b"*" * 16)
    assert event.delivery["verification"] == {"scheme": "secevent", "secret": 0}
    for table in ("gateway.events", "gateway.dedupe", "gateway.refusals"):
        rows = await house.gateway.control.fetch(f"SELECT * FROM {table}")  # noqa: S608 ours
        stored = b"\0".join(v if isinstance(v, bytes) else repr(v).encode() for row in rows for v in row.values())
        assert PREFIX.encode() not in stored
        assert token.rpartition(b".")[2] not in stored


async def test_a_transmitters_event_reaches_the_connections_of_its_subject(house: House, api: Api) -> None:
    """The platform says which account a connection is of; nobody else's tenant sees the event."""
    await declare(house, "ssf")
    made = {}
    for tenant, account in (("acme", "account:zoë-7"), ("globex", "account:someone-else")):
        await api("PUT", f"/v1/tenants/{tenant}", {})
        asked = {"tenant": tenant, "integration": "ssf", "accounts": [account]}
        made[tenant] = (await api("POST", "/v1/connections", asked)).json()["id"]
    assert (await house.deliver("ssf")).status == 202
    [event] = await house.kept()
    assert (event.type, event.tenants) == ("posthouse.delivery.ssf.security.session-revoked", ("acme",))
    assert [ids.show(ids.CONNECTION, one) for one in event.connections] == [made["acme"]]


async def test_refusals_are_in_the_words_of_the_rfc(house: House) -> None:
    """400, JSON with `err`, its language; counted by our reason, and nothing kept."""
    key = SIGNERS["ssf"].secrets[0]
    for name in ("ssf", "google/secevent"):
        await declare(house, name)
    for name, token, err, reason in (
        ("ssf", sealed(ssf_event(), key, kid="made-up"), "invalid_key", "unknown_key"),
        ("ssf", sealed(claims({"u": {}}, iss=TRANSMITTER, aud="x"), key), "invalid_audience", "wrong_audience"),
        ("ssf", sealed(claims({"u": {}}, iss="https://x", aud=AUDIENCE), key), "invalid_issuer", "wrong_sender"),
        ("ssf", sealed(ssf_event(), SIGNERS["ssf"].secrets[2]), "authentication_failed", "signature_mismatch"),
        ("ssf", b"no token", "invalid_request", "malformed"),
        ("google/secevent", b"eyJ", "invalid_request", "malformed"),
    ):  # fmt: skip
        labels = {"provider": SIGNERS[name].provider, "integration": name.replace("/", "-"), "reason": reason}
        before = metric("posthouse_refused_total", **labels)
        answer = await push(house, name, token)
        assert (answer.status, json.loads(answer.body)["err"]) == (400, err)
        headers = dict(answer.headers)
        assert (headers["content-type"], headers["content-language"]) == ("application/json", "en")
        assert metric("posthouse_refused_total", **labels) == before + 1
    for name in ("ssf", "google/secevent"):
        looked_at = await house.ask(raw.request(house.targets[name], method="GET"))
        assert (looked_at.status, looked_at.body) == (403, b"handshake_refused")
    assert await house.kept() == []


async def test_a_key_that_was_published_just_now_is_fetched(settings: Settings, clock: Clock) -> None:
    """From the URL in the integration's own settings: each has its transmitter, and forged ids do not make us call."""
    published: dict[str, Any] = {"keys": []}
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(published)

    app = web.Application()
    app.router.add_get("/jwks.json", answer)
    server = TestServer(app)
    await server.start_server()
    gateway = await Gateway.open(settings.model_copy(update={"outbound_allow": ("127.0.0.0/8",)}), clock)
    try:
        said = {**SIGNERS["ssf"].settings, "keys_url": str(server.make_url("/jwks.json"))}
        async with gateway.control.transaction() as tx:
            wanted = checked(Wanted(name="ssf", provider="ssf", settings=said), all_providers(), ("default",))
            await store.create(tx, gateway.control_keyring, wanted, clock.now(), by="api")
        await gateway.catalog.refresh()
        async with opened(gateway) as house:
            house.targets["ssf"] = "/hooks/ssf"
            assert (await house.deliver("ssf")).status == 503  # nobody knows whether there is such a key
            published["keys"] = list(jwks(b"ec-key-old").values())
            clock.move(60)  # type: ignore[attr-defined]  # the fixture's
            assert (await house.deliver("ssf")).status == 400
            published["keys"] = list(jwks(b"ec-key-new", b"ec-key-old").values())
            before = asked
            assert (await house.deliver("ssf")).status == 400  # within a minute it is taken for a wrong one
            assert asked == before
            clock.move(60)  # type: ignore[attr-defined]
            assert (await house.deliver("ssf")).status == 202
    finally:
        await gateway.close()
        await server.close()


@dataclass
class Risc:
    """Google's RISC API over real HTTP; when told to it delivers what it is asked to verify."""

    house: House | None = None
    status: int = 200
    calls: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    state: str | None = None  # instead of the one that it is asked for

    async def update(self, request: web.Request) -> web.Response:
        self.calls.append(("update", await request.json(), request.headers["authorization"]))
        return web.json_response({}, status=self.status)

    async def verify(self, request: web.Request) -> web.Response:
        said = await request.json()
        self.calls.append(("verify", said, request.headers["authorization"]))
        if self.house is not None:
            state = self.state or said["state"]
            body = google_event(f"jti-{len(self.calls)}", RISC + "verification", subject=None, state=state)
            token = sealed(body, SIGNERS["google/secevent"].secrets[0])
            headers = {"content-type": "application/secevent+jwt"}
            assert (await self.house.ask(raw.request("/hooks/goo", headers, token))).status == 202
        return web.json_response({}, status=self.status)


@asynccontextmanager
async def served(risc: Risc) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1beta/stream:update", risc.update)
    app.router.add_post("/v1beta/stream:verify", risc.verify)
    server = TestServer(app)
    await server.start_server()
    try:
        yield str(server.make_url("/v1beta"))
    finally:
        await server.close()


async def made(gateway: Gateway, api: str, **changed: Any) -> None:
    """An integration of Google's that may set up security events."""
    said = {"risc_service_account": ROBOT, "risc_key_id": "key-1", "risc_api": api, **changed}
    wanted = Wanted(
        name="goo", provider="google", client_id=GOOGLE_CLIENT,
        settings={name: value for name, value in said.items() if value is not None},
        secrets={"client_secrets": (b"client-secret", KEY.encode())},
    )  # fmt: skip
    async with gateway.control.transaction() as tx:
        await store.create(
            tx, gateway.control_keyring, checked(wanted, all_providers(), ("default",)), gateway.clock.now(), by="api"
        )
    await gateway.catalog.refresh()


async def test_google_is_told_our_url_by_a_service_account(house: House) -> None:
    """The body that Google documents; a token that the service account's key signed, for an hour exactly."""
    risc = Risc()
    async with served(risc) as api:
        await made(house.gateway, api)
        line = await security_events.set_up(house.gateway, "goo")
    url = house.gateway.settings.public_url + "/hooks/goo"
    assert url in line
    [(method, said, authorization)] = risc.calls
    assert method == "update"
    assert said["delivery"] == {
        "delivery_method": "https://schemas.openid.net/secevent/risc/delivery-method/push", "url": url,
    }  # fmt: skip
    assert set(said["events_requested"]) == set(EVENTS)
    assert OAUTH + "tokens-revoked" in EVENTS
    token = joserfc_jwt.decode(authorization.removeprefix("Bearer "), RSAKey.import_key(KEY), algorithms=["RS256"])
    assert token.header == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
    issued = int(house.gateway.clock.now().timestamp())
    assert token.claims == {
        "iss": ROBOT, "sub": ROBOT, "iat": issued, "exp": issued + 3600,
        "aud": "https://risc.googleapis.com/google.identity.risc.v1beta.RiscManagementService",
    }  # fmt: skip


async def test_a_verification_event_is_awaited_on_the_log(house: House) -> None:
    """The one with our word in it; another one's does not do, and none in time is one line."""
    risc = Risc(house)
    async with served(risc) as api:
        await made(house.gateway, api)
        assert "came" in await security_events.verified(house.gateway, "goo", 0)
        [event] = await house.kept()
        assert event.type == "posthouse.delivery.google.security.verification"
        risc.state = "somebody else's"
        with pytest.raises(SetupError, match="no verification event within 0 s") as caught:
            await security_events.verified(house.gateway, "goo", 0)
        assert "\n" not in str(caught.value)
        risc.house = None
        with pytest.raises(SetupError, match="no verification event"):
            await security_events.verified(house.gateway, "goo", 0)
    states = [said["state"] for method, said, _ in risc.calls]
    assert len(set(states)) == 3


@pytest.mark.parametrize(
    ("changed", "status", "line"),
    [
        ({"risc_service_account": None}, 200, "risc_service_account_missing: set risc_service_account"),
        ({"risc_key_id": None}, 200, "risc_key_id_missing: set risc_key_id"),
        ({}, 401, "service_account_rejected, status 401"),
        ({}, 403, "scope_lacking, status 403: give the service account the role roles/riscconfigs.admin"),
        ({}, 503, "unreachable, status 503"),
        ({"risc_api": "http://127.0.0.1:9"}, 200, "connect_failed"),
    ],
)
async def test_what_is_missing_is_said_in_one_line(
    house: House, changed: dict[str, Any], status: int, line: str
) -> None:
    """And what to do about it; no secret is in it."""
    async with served(Risc(status=status)) as api:
        await made(house.gateway, api, **changed)
        for ask in (security_events.set_up, partial(security_events.verified, wait_s=0)):
            with pytest.raises(SetupError) as caught:
                await ask(house.gateway, "goo")
            assert line in str(caught.value)
            assert "PRIVATE KEY" not in str(caught.value)


async def test_only_an_integration_of_google_can_be_set_up(house: House) -> None:
    """Other transmitters' streams are set up there."""
    await declare(house, "ssf")
    with pytest.raises(SetupError, match="no security events that can be set up from here"):
        await security_events.set_up(house.gateway, "ssf")
    with pytest.raises(SetupError, match="there is no integration 'nobody'"):
        await security_events.set_up(house.gateway, "nobody")


REFRESH = PREFIX + "-and-what-follows"


async def connected(house: House, api: Api, tenant: str, refresh_token: str) -> UUID:
    """A connection of that tenant to the same person's account at Google, by a consent of ten days ago."""
    gateway, integration = house.gateway, house.integration("google/secevent")
    await api("PUT", f"/v1/tenants/{tenant}", {})
    marks = integration.provider.token_marks(TokenSet(access_token="a", refresh_token=refresh_token))
    asked = {"tenant": tenant, "integration": integration.name, "accounts": [f"user:{GOOGLE_SUB}", *marks]}
    made = ids.parse(ids.CONNECTION, (await api("POST", "/v1/connections", asked)).json()["id"])
    assert made is not None
    hashes = [account_hash(gateway.control_keyring, integration.id, mark) for mark in marks]
    async with gateway.regions.home.database.transaction() as tx:
        await grants.put(
            tx, made, "mail", state="active", reason=None, generation=1, token_version=1, reach_hash=None,
            ledger=Ledger(("mail",), ("mail",)), parameters={}, marks=hashes, age_s=10 * 86400,
        )  # fmt: skip
    return made


async def standing(house: House, *connections: UUID) -> list[tuple[str, str | None]]:
    found = await grants.of(house.gateway.regions.home.database, connections)
    by_id = {grant.connection_id: (grant.state, grant.reason) for grant in found}
    return [by_id[connection] for connection in connections]


async def followed(house: House) -> None:
    """Until the follower has done with all deliveries that are on the log now."""
    region = house.gateway.regions.home
    last = await region.database.fetchval("SELECT max(seq) FROM gateway.events WHERE delivery IS NOT NULL")
    behind = (
        "SELECT count(*) FROM gateway.consumer_partitions WHERE consumer = 'posthouse.lifecycle' AND cursor_seq < $1"
    )
    news = region.news.subscribe()
    try:
        async with asyncio.timeout(20):
            while await region.database.fetchval(behind, last):
                news.clear()
                await region.news.wait(news)
    finally:
        region.news.unsubscribe(news)


async def test_a_revoked_token_ends_its_own_grant_and_revoked_tokens_all_that_are_older(house: House, api: Api) -> None:
    """One person's account at Google, connected by two tenants: the signal is fenced by what it names, or by its time."""
    await declare(house, "google/secevent")
    acme = await connected(house, api, "acme", REFRESH)
    globex = await connected(house, api, "globex", "1//another-refresh-token")
    assert (
        await house.deliver("google/secevent", google_event("1", OAUTH + "token-revoked", subject=by_token()))
    ).status == 202
    await followed(house)
    assert await standing(house, acme, globex) == [("revoked", "token_revoked"), ("active", None)]
    long_ago = google_event("2", OAUTH + "tokens-revoked")
    assert (await house.deliver("google/secevent", long_ago)).status == 202
    await followed(house)
    assert await standing(house, globex) == [("active", None)]  # it was before this consent
    now = json.loads(google_event("3", OAUTH + "tokens-revoked")) | {"iat": int(house.gateway.clock.now().timestamp())}
    assert (await house.deliver("google/secevent", json.dumps(now).encode())).status == 202
    await followed(house)
    assert await standing(house, globex) == [("revoked", "tokens_revoked")]
