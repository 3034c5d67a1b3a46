"""A street: tenants with accounts at several providers, whose signed deliveries come to the public listener.

No follower and no checker runs by itself here: a test lets each take its turn, so every interleaving can be written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway import ids
from gateway.clock import Clock
from gateway.connections import grants, history, transitions
from gateway.connections.fences import NAMED_FOR_EVER
from gateway.connections.grants import Grant
from gateway.connections.moves import Move
from gateway.connections.telling import Because
from gateway.endpoints import store as endpoints
from gateway.follower.follower import Follower
from gateway.follower.meaning import Meaning
from gateway.service import Gateway
from gateway.settings import Settings
from providers import github, slack
from tests.clock import FakeClock
from tests.connect.conftest import Town, bare_town, town
from tests.flows.house import House
from tests.flows.raw import Answer
from tests.follower.services import Service, serving
from tests.providers.signal_samples import Sample
from tests.signers import SIGNERS
from tests.signers_b import GOOGLE_KEYS
from tests.tokens.making import granted, made
from tests.web.conftest import lines

__all__ = ["bare_town", "lines", "town"]  # fixtures

LIVED_S = 3600.0  # how long ago the grants here were last proven alive
PEM = GOOGLE_KEYS["rsa-key-of-google-new"]["private"]
INTEGRATIONS: dict[str, dict[str, Any]] = {
    "slack": {
        "client_id": "A1", "client_secrets": ["a client's secret"],
        "access_profiles": {"bot": {"required": ["chat:write"]}, "user": {"required": ["users:read"]}},
    },
    "github": {
        "client_id": "Iv1.1", "client_secrets": ["a client's secret", PEM], "settings": {"app_slug": "ours"},
        "access_profiles": {"installation": {"required": ["contents:read"]}, "user": {"optional": ["repo"]}},
    },
    "stripe": {"client_id": "ca_1", "client_secrets": ["sk_test_of_ours"]},
    "microsoft": {},
}  # fmt: skip


async def _asleep(*_: object) -> None:
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Followers and checkers wait for the test."""
    monkeypatch.setattr(Follower, "follow", _asleep)
    monkeypatch.setattr(Gateway, "_checks_of", _asleep)


def follower_of(gateway: Gateway, worker: str = "gateway-of-the-test") -> Follower:
    """A follower of this process's."""
    meaning = Meaning(gateway.catalog, gateway.control_keyring)
    return Follower(gateway.regions.home, meaning, gateway.clock, worker, gateway.new_id, lambda: None)


@dataclass
class Street:
    """A town, the services of GitHub and Slack, and connections by name."""

    town: Town
    house: House
    slack: Service
    github: Service
    follower: Follower
    known: dict[str, UUID] = field(default_factory=dict)

    @property
    def gateway(self) -> Gateway:
        return self.town.gateway

    @property
    def db(self) -> Any:
        return self.gateway.regions.home.database

    async def follow(self) -> None:
        """Until the follower has read everything."""
        while await self.follower.run_once():
            pass

    async def check(self) -> int:
        """One turn of the checker."""
        return await self.gateway.checkers["default"].run_once()

    async def now(self, ahead_s: float = 0.0) -> datetime:
        """By the region's clock."""
        now: datetime = await self.db.fetchval("SELECT gateway.now()")
        return now + timedelta(seconds=ahead_s)

    async def pass_s(self, clock: FakeClock, seconds: float) -> None:
        """Let time go on, for this process and for the database."""
        clock.move(seconds)
        await self.town.pass_s(seconds)
        await self.gateway.catalog.refresh()
        await self.gateway.regions.home.upkeep.ready()

    async def registered(self, name: str, tenant: str, integration: str, *accounts: str) -> UUID:
        """An account that the platform registers: no grants."""
        body = {"tenant": tenant, "integration": integration, "accounts": list(accounts), "external_id": name}
        answer = await self.town.api("POST", "/v1/connections", body)
        assert answer.status_code == 201, answer.text
        new = ids.parse(ids.CONNECTION, answer.json()["id"])
        assert new is not None
        self.known[name] = new
        return new

    async def connected(
        self, name: str, tenant: str, integration: str, accounts: Sequence[str], *profiles: str, **grant: Any
    ) -> UUID:
        """One with grants. Their access tokens are `{name} {profile}`, and were proven alive an hour ago."""
        new = await self.registered(name, tenant, integration, *accounts)
        for profile in profiles:
            more: dict[str, Any] = {"access": f"{name} {profile}", "age_s": LIVED_S, **grant}
            if profile == "installation":
                number = next(one for one in accounts if one.startswith("installation:")).partition(":")[2]
                more |= {"kind": "installation", "parameters": {"installation": number}, "refresh": None}
            await granted(self.gateway.regions.home, new, tenant, profile, **more)
        return new

    async def deliver(self, sample: Sample, **how: Any) -> Answer:
        """Sent as its provider does; it is taken."""
        answer = await self.house.deliver(sample.signer or sample.provider, sample.body, headers=sample.headers, **how)
        assert answer.status in (200, 202), answer
        return answer

    async def refused(self, sample: Sample, **how: Any) -> Answer:
        """Sent like that it is not taken."""
        answer = await self.house.deliver(sample.signer or sample.provider, sample.body, headers=sample.headers, **how)
        assert answer.status in (400, 401, 403), answer
        return answer

    async def revoke(self, name: str, profile: str) -> None:
        """By proof, of this very generation."""
        move = Move(
            connection=self.known[name], access_profile=profile, signal="revoked", fence=NAMED_FOR_EVER,
            because=Because(cause="test", source="delivery"),
        )  # fmt: skip
        async with self.db.transaction() as tx:
            await transitions.apply(tx, [move], self.gateway.new_id)

    async def read(self, name: str, profile: str | None = None) -> httpx.Response:
        """Ask for a token."""
        query = {} if profile is None else {"access_profile": profile}
        return await self.town.api("GET", f"{self.path(name)}/token", params=query)

    def path(self, name: str) -> str:
        return f"/v1/connections/{ids.show(ids.CONNECTION, self.known[name])}"

    async def grant(self, name: str, profile: str) -> Grant:
        [found] = [one for one in await grants.of(self.db, [self.known[name]]) if one.access_profile == profile]
        return found

    async def state(self, name: str) -> str:
        """Of the connection."""
        return str((await self.town.api("GET", self.path(name))).json()["state"])

    async def moved(self) -> dict[str, dict[str, str]]:
        """Whoever is not active any more: the states of its grants by profile, of the connection under ""."""
        told: dict[str, dict[str, str]] = {}
        for name, id in self.known.items():
            states: dict[str, str] = {}
            for grant in await grants.of(self.db, [id]):
                states[grant.access_profile] = grant.state
            states = states or {"": await self.state(name)}
            if changed := {profile: state for profile, state in states.items() if state != "active"}:
                told[name] = changed
        return told

    async def outcomes(self, name: str) -> list[tuple[str, str]]:
        """What became of each signal, oldest first: (signal, outcome)."""
        page = await history.page(self.db, self.known[name], before=None, limit=100)
        told = sorted(page, key=lambda kept: kept.at)  # ids of one moment of a clock that stands still have no order
        return [(kept.entry.signal, kept.entry.outcome) for kept in told]

    async def events(self, name: str) -> list[tuple[str, Any]]:
        """What the stream says of a connection, but for its registration."""
        shown = ids.show(ids.CONNECTION, self.known[name])
        told = [(kind, data) for kind, data in await self.town.events() if data["connection"] == shown]
        return told[1:] if told and told[0][1].get("cause") == "registered" else told

    async def tokens(self, name: str) -> set[str]:
        """The access profiles that have sealed tokens."""
        sql = "SELECT access_profile FROM gateway.tokens WHERE connection_id = $1"
        return {row["access_profile"] for row in await self.db.fetch(sql, self.known[name])}

    async def checks(self) -> int:
        """How many are wanted."""
        return await self.town.count("grant_checks")

    async def deliveries(self) -> list[str]:
        """Ids of the deliveries' events, in order."""
        rows = await self.db.fetch("SELECT id FROM gateway.events WHERE delivery IS NOT NULL ORDER BY seq")
        return [ids.show(ids.EVENT, row["id"]) for row in rows]

    async def reconnected(self, name: str, profile: str, **grant: Any) -> None:
        """A consent gives it anew: the next generation, alive now."""
        connection, generation = self.known[name], (await self.grant(name, profile)).generation + 1
        tenant = await self.db.fetchval("SELECT tenant_id FROM gateway.connections WHERE id = $1", connection)
        more = {"generation": generation, "access": f"{name} {profile} {generation}", **grant}
        async with self.db.transaction() as tx:
            save = await made(tx, self.gateway.regions.home, connection, tenant, profile, **more)
            move = Move(
                connection=connection, access_profile=profile, signal="authorized", fence=NAMED_FOR_EVER,
                because=Because(cause="connect", source="consent"), say="authorized", save=save,
                made=(generation, generation),
            )  # fmt: skip
            await transitions.apply(tx, [move], self.gateway.new_id, looked_back=True)


async def integration(town: Town, name: str, **more: Any) -> None:
    """An integration, of the provider of that name and with its signer's newest secret unless told otherwise."""
    secrets = [SIGNERS[name].secrets[0].decode()] if name in SIGNERS and name != "microsoft" else []
    body = {"name": name, "provider": name, "signing_secrets": secrets, **INTEGRATIONS.get(name, {}), **more}
    answer = await town.api("POST", "/v1/integrations", body)
    assert answer.status_code == 201, answer.text


@pytest.fixture
async def street(bare_town: Town) -> AsyncIterator[Street]:
    """With integrations `slack`, `github`, `stripe` and `microsoft`, and tenants acme, globex and initech."""
    async with serving(slack, github) as services:
        gateway = bare_town.gateway
        house = House(gateway, gateway.settings.public_url)
        for name in INTEGRATIONS:
            await integration(bare_town, name)
            house.targets[name] = f"/hooks/{name}"
        for tenant in ("globex", "initech"):
            await bare_town.api("PUT", f"/v1/tenants/{tenant}", {})
        at_slack, at_github = services
        yield Street(bare_town, house, at_slack, at_github, follower_of(gateway))


async def endpoint(street: Street, name: str) -> None:
    """A hook endpoint of a connection at Microsoft's, as its subscription names it."""
    region, signer = street.gateway.regions.home, SIGNERS["microsoft/endpoint"]
    made = ids.uuid7(street.gateway.clock.now())
    integration = street.gateway.catalog.integration("microsoft")
    assert integration is not None
    async with region.database.transaction() as tx:
        await endpoints.create(
            tx, endpoints.Vault(region.name, region.keyring), made, integration_id=integration.id,
            connection_id=street.known[name], state="live", confirm_ttl_s=600, secrets=signer.secrets[:1],
        )  # fmt: skip
    street.house.targets["microsoft/endpoint"] = f"/hooks/microsoft/{ids.show(ids.ENDPOINT, made)}"


@pytest.fixture
async def second(street: Street, settings: Settings, clock: Clock) -> AsyncIterator[Gateway]:
    """Another process on the same database."""
    made = await Gateway.open(street.gateway.settings, clock)
    yield made
    await made.close()
