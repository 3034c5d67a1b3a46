"""Two processes, one grant whose access token has expired, a provider of any kind, and a wire to the database that one of them loses."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import SecretStr

from gateway import ids
from gateway.connections import grants, rotations, store
from gateway.connections.grants import Grant
from gateway.connections.scopes import Ledger
from gateway.connections.states import State
from gateway.database import Database
from gateway.errors import Problem
from gateway.integrations import store as integrations
from gateway.integrations.profiles import AccessProfile
from gateway.integrations.wanted import Wanted
from gateway.loop import ended
from gateway.sandbox import oauth
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.tokens import leases
from gateway.tokens.check import Read
from gateway.vault.tokens import Place
from tests.clock import FakeClock
from tests.fakes.provider import FakeProvider, fake_provider
from tests.flows.house import metric
from tests.stream.lossy import LossyWire, lossy

Rotation = Literal["strict", "grace", "none"]

SCOPES = ("messages.read", "profile")
GRACE_S = 600  # of a provider that has one
HOUR_S = 3600.0
OVER_S = 24 * HOUR_S  # so long the access token lives that the grant begins with


@dataclass
class Scene:
    """What two processes and their provider have between them."""

    settings: Settings  # of a process whose wire is whole
    clock: FakeClock
    database: Database
    provider: FakeProvider
    wire: LossyWire  # a's
    a: Gateway
    b: Gateway
    integration: UUID
    connection: UUID
    _stack: AsyncExitStack = field(repr=False)

    async def read(self, gateway: Gateway) -> str:
        """What a reader of its token gets: `version 2`, or the code of the problem. A version is the provider's own token."""
        try:
            token = await gateway.tokens.read(Read(self.connection, "reader", 60, ids.uuid7(self.clock.now())))
        except Problem as problem:
            return problem.code
        assert token.access_token in self.provider.sandbox.tokens
        return f"version {token.found.token_version}"

    async def grant(self) -> Grant:
        [found] = await grants.of(self.database, [self.connection])
        return found

    async def state(self) -> str:
        """State and reason, and which version."""
        found = await self.grant()
        return f"{found.state} {found.reason or '-'} {found.token_version}"

    async def sources(self) -> list[str]:
        """How its token sets came, newest first."""
        kept = await rotations.page(self.database, self.connection, before=None, limit=100)
        return [one.source for one in kept]

    async def told(self, of: str = "posthouse.connection.") -> list[str]:
        """What the stream says of it."""
        rows = await self.database.fetch("SELECT type FROM gateway.events WHERE type LIKE $1 ORDER BY seq", f"{of}%")
        return [row["type"].removeprefix(of) for row in rows]

    async def security(self) -> Any:
        """What the one event says that tells of a refresh token in other hands."""
        [row] = await self.database.fetch("SELECT data FROM gateway.events WHERE type LIKE 'posthouse.security.%'")
        return orjson.loads(row["data"])

    async def move(self, state: State) -> None:
        """What a signal does to its grant."""
        async with self.database.transaction() as tx:
            await grants.lock(tx, self.connection)
            await grants.stand(tx, {(self.connection, "reader"): grants.Standing(state, "a_reason", False)})

    async def refresh_token(self) -> str:
        """The one in the vault."""
        row = await self.database.fetchrow("SELECT * FROM gateway.tokens WHERE connection_id = $1", self.connection)
        assert row is not None
        place = Place("default", "acme", self.connection, "reader", row["generation"], row["token_version"])
        vault = self.b.regions.home.tokens
        return await vault.open(place, "refresh_token", row["data_key_version"], row["sealed_refresh"])

    @property
    def calls(self) -> int:
        """How often the provider was asked for a refresh."""
        return self.provider.calls["refresh_token"]

    @property
    def spooled(self) -> int:
        return len(list(self.settings.spool_folder.glob("*.spool")))

    async def pass_s(self, seconds: float, *alive: Gateway) -> None:
        """Time goes by, and these processes are heard of."""
        await self.database.execute(
            "UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)", seconds
        )
        for gateway in alive:
            await gateway.processes["default"].run_once()
            await gateway.catalog.refresh()

    async def run_out(self) -> None:
        """Its access token is over, and no time has gone by."""
        await self.database.execute("UPDATE gateway.tokens SET expires_at = gateway.now()")

    async def claimed_by_a(self) -> None:
        """It has the lease, and has sent nothing."""
        grant = await self.grant()
        seen = (grant.generation, grant.token_version)
        name = (self.connection, "reader")
        assert await leases.claim(self.database, name, seen, self.a.processes["default"].id, None) is not None

    async def asked_by_a(self, how: str) -> asyncio.Task[str]:
        """A reader of a's waits; the provider has the request, and does what `how` says."""
        self.provider.misbehave("refresh_token", how)
        reading = asyncio.create_task(self.read(self.a))
        await self.provider.gate.until(1)
        return reading

    async def away_for_a(self, *, spool: bool = True) -> None:
        """The answer reaches a, and the database does not; with `spool` once it is on a's disk."""
        await self.wire.close()
        if not spool:
            self.settings.spool_folder.rename(self.settings.spool_folder.with_name("gone"))
            self.settings.spool_folder.write_text("no folder")
        before = metric("posthouse_spool_failures_total")
        await self.provider.gate.open()
        while not (self.spooled if spool else metric("posthouse_spool_failures_total") > before):  # noqa: ASYNC110 - on a result, not on time
            await asyncio.sleep(0.005)

    async def kill_a(self, reading: asyncio.Task[str] | None = None) -> None:
        """It is gone without a word: nothing that it does at its end reaches the database. Its locks go with it."""
        await self.wire.close()
        for task in list(self.a.refresher._under_way.values()):
            task.cancel()
        await self.a.close()
        if reading is not None:
            await asyncio.gather(reading, return_exceptions=True)

    async def a_again(self) -> Gateway:
        """It is started again, on the same machine."""
        return await self._stack.enter_async_context(opened(self.settings, self.clock))


@asynccontextmanager
async def opened(settings: Settings, clock: FakeClock) -> AsyncIterator[Gateway]:
    """A process; what it does in the background the test does by hand."""
    made = await Gateway.open(settings, clock)
    await ended(made._loops)
    made._loops.clear()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def playing(
    settings: Settings, dsn: str, clock: FakeClock, rotation: Rotation, *, hears: bool = False, **more: Any
) -> AsyncIterator[Scene]:
    """A scene whose provider rotates so, and whose grant's access token is over.

    `hears`: the provider (strict, then) tells by a signed message when its user withdraws a consent. Otherwise it is
    `generic-oauth2`, with `more` settings.
    """
    settings = settings.model_copy(update={"outbound_allow": ("127.0.0.0/8",), "database_url": SecretStr(dsn)})
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(lossy(dsn))
        provider = await stack.enter_async_context(fake_provider(clock))
        provider.rules(rotation=rotation, grace_s=GRACE_S)
        database = Database(dsn)
        await database.open()
        stack.push_async_callback(database.close)
        b = await stack.enter_async_context(opened(settings, clock))
        a = await stack.enter_async_context(
            opened(settings.model_copy(update={"database_url": SecretStr(wire.dsn)}), clock)
        )
        integration = await (_sandbox(b, provider) if hears else _generic(b, provider, rotation, more))
        for gateway in (a, b):
            await gateway.catalog.refresh()
        connection = await _connected(b, provider, integration)
        scene = Scene(settings, clock, database, provider, wire, a, b, integration, connection, stack)
        await scene.pass_s(OVER_S, a, b)
        yield scene


def consented(provider: FakeProvider, user: str = "user-1") -> Mapping[str, Any]:
    """The token answer of a consent, without a browser."""
    sandbox, client, verifier = provider.sandbox, provider.client, "v" * 43
    uri = client.redirect_uris[0]
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    asked = {
        "response_type": "code", "code_challenge_method": "S256", "code_challenge": challenge, "scope": " ".join(SCOPES),
    }  # fmt: skip
    consent = oauth.begin(sandbox, client, uri, asked)
    _, code = oauth.decide(sandbox, consent.id, user, SCOPES, True)
    return oauth.exchange(sandbox, client, {"code": code, "redirect_uri": uri, "code_verifier": verifier})


async def _generic(gateway: Gateway, provider: FakeProvider, rotation: Rotation, more: Mapping[str, Any]) -> UUID:
    base, client = provider.base_url, provider.client
    settings: dict[str, Any] = {
        "authorize_url": f"{base}/oauth/authorize", "token_url": f"{base}/oauth/token", "userinfo_url": f"{base}/api/me",
        "revoke_url": f"{base}/oauth/revoke", "rotation": rotation, **more,
    }  # fmt: skip
    if rotation == "grace":
        settings["reuse_grace_s"] = GRACE_S
    assert client.secret is not None
    wanted = Wanted(
        name="theirs", provider="generic-oauth2", client_id=client.id, settings=settings,
        access_profiles={"reader": AccessProfile(required=SCOPES)}, secrets={"client_secrets": (client.secret.encode(),)},
    )  # fmt: skip
    return await _declared(gateway, wanted)


async def _sandbox(gateway: Gateway, provider: FakeProvider) -> UUID:
    client = provider.client
    assert client.secret is not None
    wanted = Wanted(
        name="theirs", provider="sandbox", client_id=client.id, settings={"base_url": provider.base_url},
        access_profiles={"reader": AccessProfile(required=SCOPES)},
        secrets={"client_secrets": (client.secret.encode(),), "signing_secrets": (client.webhook_secret.encode(),)},
    )  # fmt: skip
    return await _declared(gateway, wanted)


async def _declared(gateway: Gateway, wanted: Wanted) -> UUID:
    async with gateway.control.transaction() as tx:
        made = await integrations.create(tx, gateway.control_keyring, wanted, gateway.clock.now(), by="api")
    return made.id


async def _connected(gateway: Gateway, provider: FakeProvider, integration: UUID) -> UUID:
    region, id = gateway.regions.home, gateway.new_id()
    async with region.database.transaction() as tx:
        await store.insert(tx, store.NewConnection(
            id=id, tenant_id="acme", integration_id=integration, external_id=None, end_user_id=None, labels={}, accounts=(),
        ))  # fmt: skip
    await consent(gateway, provider, integration, id)
    return id


async def consent(
    gateway: Gateway, provider: FakeProvider, integration: UUID, connection: UUID, generation: int = 1, version: int = 1
) -> None:  # fmt: skip
    """Its user consents (anew)."""
    region, answer = gateway.regions.home, consented(provider)
    place = Place(region.name, "acme", connection, "reader", generation, version)
    sealed = await region.tokens.seal(place, answer["access_token"], answer["refresh_token"])
    new = grants.NewTokens(sealed=sealed, token_type="Bearer", expires_in_s=86400, refresh_expires_in_s=None)
    fingerprint = rotations.fingerprint(gateway.control_keyring, integration, answer["refresh_token"])
    came = rotations.Came(
        connection=connection, access_profile="reader", generation=generation, token_version=version, source="consent",
        fingerprint=fingerprint,
    )  # fmt: skip
    async with region.database.transaction() as tx:
        await grants.lock(tx, connection)
        await grants.put(
            tx, connection, "reader", state="active", reason=None, generation=generation, token_version=version,
            ledger=Ledger(SCOPES, SCOPES), parameters={}, reach_hash=None,
        )  # fmt: skip
        await grants.put_tokens(tx, connection, "reader", "acme", generation, version, new)
        await rotations.record(tx, [came])
