"""A provider, a database, gateway processes on it, and connections whose token has expired."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

import aiohttp

from gateway import ids
from gateway.access import keys
from gateway.database import Database
from gateway.tokens.leases import CHANNEL
from gateway.vault.keyring import Keyring
from tests.clock import FakeClock
from tests.fakes.browser import consent
from tests.fakes.provider import CALLBACK, FakeProvider, fake_provider
from tests.storm.crowd import Crowd
from tests.storm.fleet import Fleet, Worker, fleet

Rotation = Literal["strict", "grace", "none"]

GRACE_S = 600  # as long as Atlassian's
SCOPES = ("profile", "messages.read")
VERIFIER = "v" * 43

EXPIRE = """UPDATE gateway.tokens SET issued_at = gateway.now() - interval '1 hour', expires_at = gateway.now() - interval '1 second'
             WHERE connection_id = ANY ($1::uuid[])"""
SHIFT = "UPDATE gateway.clock SET shifted_by = shifted_by + make_interval(secs => $1)"
BEATS = "UPDATE gateway.processes SET seen_at = gateway.now() WHERE id = ANY ($1::uuid[])"
TELL = f"SELECT pg_notify('{CHANNEL}', replace(connection_id::text, '-', '')) FROM gateway.refreshes"  # noqa: S608 - a constant
OPEN = "SELECT phase, waited FROM gateway.refreshes WHERE connection_id = $1"
GRANT = "SELECT state, reason, generation, token_version FROM gateway.grants WHERE connection_id = $1"
CAUSES = """SELECT convert_from(data, 'UTF8')::json->>'cause' AS cause FROM gateway.events
             WHERE $1 = ANY (connections) AND type = 'posthouse.connection.reauth_required' ORDER BY seq"""


@dataclass(frozen=True)
class Account:
    """A connection, and what its provider knows of it: the id of the grant there."""

    id: UUID
    grant: str

    @property
    def path(self) -> str:
        return f"/v1/connections/{ids.show(ids.CONNECTION, self.id)}"


@dataclass
class Town:
    """One rule of rotation, and everybody there is."""

    fleet: Fleet
    crowd: Crowd
    provider: FakeProvider
    clock: FakeClock  # the provider's
    database: Database
    numbers: Any

    async def declare(self, worker: Worker, rotation: Rotation) -> None:
        """The tenant, and the integration `theirs`, which says of the provider what is so."""
        self.provider.rules(rotation=rotation, grace_s=GRACE_S)
        url, client = self.provider.base_url, self.provider.client
        settings = {
            "authorize_url": f"{url}/oauth/authorize", "token_url": f"{url}/oauth/token", "userinfo_url": f"{url}/api/me",
            "revoke_url": f"{url}/oauth/revoke", "issuer": url, "probe_acquits": True, "rotation": rotation,
            **({"reuse_grace_s": GRACE_S} if rotation == "grace" else {}),
        }  # fmt: skip
        body = {
            "name": "theirs", "provider": "generic-oauth2", "client_id": client.id, "client_secrets": [client.secret],
            "settings": settings, "access_profiles": {"reader": {"required": list(SCOPES), "optional": []}},
        }  # fmt: skip
        await self.crowd.call(worker.url, "PUT", "/v1/tenants/acme", {})
        await self.crowd.call(worker.url, "POST", "/v1/integrations", body)

    async def accounts(self, worker: Worker, number: int) -> list[Account]:
        """So many connections, brought in with tokens that live, which then expire."""
        tokens = [await granted(self.provider) for _ in range(number)]
        until = datetime.now(UTC) + timedelta(days=365)  # by whatever clock
        lines = [
            {
                "tenant": "acme", "integration": "theirs", "external_id": f"e-{next(self.numbers)}",
                "accounts": [f"account:{one['grant_id']}"],
                "access_profiles": {"reader": {
                    "access_token": one["access_token"], "refresh_token": one["refresh_token"], "scopes": list(SCOPES),
                    "expires_at": until.isoformat(),
                }},
            }
            for one in tokens
        ]  # fmt: skip
        results = (await self.crowd.call(worker.url, "POST", "/v1/connections/import", {"connections": lines}))[
            "results"
        ]
        made = [
            Account(ids.parse(ids.CONNECTION, result["connection"]) or UUID(int=0), one["grant_id"])
            for result, one in zip(results, tokens, strict=True)
        ]
        await self.expire(made)
        return made

    async def expire(self, accounts: Sequence[Account]) -> None:
        """Their access tokens, now. Nobody plans anew for that."""
        await self.database.execute(EXPIRE, [account.id for account in accounts])

    async def pass_s(self, seconds: float) -> None:
        """Time goes by for database and provider. Processes that live have been heard of to the last; whoever waits for a refresh
        looks again at once, instead of at its next poll."""
        self.clock.move(seconds)
        async with self.database.transaction() as tx:
            await tx.execute(SHIFT, seconds)
            await tx.execute(BEATS, [worker.id for worker in self.fleet.workers if worker.alive])
            await tx.execute(TELL)

    async def phase(self, account: Account) -> str:
        """Of the refresh that is open; "" where none is."""
        row = await self.database.fetchrow(OPEN, account.id)
        return "" if row is None else str(row["phase"])

    async def grant(self, account: Account) -> tuple[str, str | None, int]:
        """State, reason and token version."""
        row = await self.database.fetchrow(GRANT, account.id)
        assert row is not None
        return row["state"], row["reason"], row["token_version"]

    async def causes(self, account: Account) -> list[str]:
        """What the events name that told its user to connect again."""
        return [row["cause"] for row in await self.database.fetch(CAUSES, account.id)]

    async def settled(self) -> None:
        """Whatever a dead process had sent by its death, the provider has taken in."""
        async with aiohttp.ClientSession() as http:
            for _ in range(3):  # each on a connection of its own: what came before is read before, and begun
                async with http.get(f"{self.provider.base_url}/", headers={"connection": "close"}) as answer:
                    await answer.read()

    def spent(self, account: Account) -> int:
        """How often a refresh token of it came to the provider, good or not."""
        whose = {value: token.grant.id for value, token in self.provider.sandbox.tokens.items()}
        sent = (parse_qs(body.decode()) for name, body in list(self.provider.bodies) if name == "refresh_token")
        return sum(whose.get(said["refresh_token"][0]) == account.grant for said in sent)

    def ended(self, account: Account) -> str | None:
        """Why its grant is over there; None: it lives."""
        return self.provider.sandbox.grants[account.grant].cause


def challenge() -> str:
    """Of `VERIFIER`."""
    return base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


async def granted(provider: FakeProvider) -> Any:
    """A token answer, by a whole consent, as another system got it that held the account before us."""
    asked = {
        "response_type": "code", "client_id": provider.client.id, "redirect_uri": CALLBACK, "scope": " ".join(SCOPES),
        "code_challenge": challenge(), "code_challenge_method": "S256",
    }  # fmt: skip
    back = parse_qs(urlsplit(await consent(f"{provider.base_url}/oauth/authorize?{urlencode(asked)}")).query)
    body = {
        "grant_type": "authorization_code", "code": back["code"][0], "redirect_uri": CALLBACK, "code_verifier": VERIFIER,
        "client_id": provider.client.id, "client_secret": provider.client.secret or "",
    }  # fmt: skip
    async with aiohttp.ClientSession() as http, http.post(f"{provider.base_url}/oauth/token", data=body) as answer:
        assert answer.status == 200
        return await answer.json()


@asynccontextmanager
async def opening(dsn: str, keyring: Keyring, folder: Path) -> AsyncIterator[Town]:
    """Everything but processes: the fleet is empty."""
    settings = {
        "database_url": dsn, "keyring": keyring.to_json(), "home": folder, "public_url": "https://hooks.example.com",
        "public_listen": "127.0.0.1:0", "private_listen": "127.0.0.1:0", "drain_pause_s": 0, "poll_s": 0.1, "commit_deadline_s": 30,  # whatever else this machine does
        "outbound_allow": ["127.0.0.0/8"], "log_level": "warning",
    }  # fmt: skip
    database, clock = Database(dsn), FakeClock()
    await database.open()
    try:
        async with database.transaction() as tx:
            key = (await keys.create(tx, keyring, datetime.now(UTC), name="storm")).token
        crowd = Crowd(key)
        try:
            async with fake_provider(clock) as provider, fleet(settings, folder) as processes:
                yield Town(processes, crowd, provider, clock, database, count(1))
        finally:
            await crowd.close()
    finally:
        await database.close()
