"""What bench-revocation runs on: a gateway, its integrations, accounts that will be revoked, a provider that says so too."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from aiohttp import web

from gateway.access import keys
from gateway.database import Database
from gateway.integrations import store
from gateway.integrations.wanted import Wanted
from gateway.vault.keyring import generate
from tests.benchmarks import _accounts, ingest
from tests.benchmarks._accounts import Account
from tests.benchmarks._revoking import SIGNING_SECRET, WEBHOOK_SECRET
from tests.ops.processes import posthouse


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that is up."""

    public: str
    private: str
    pid: int


@dataclass(frozen=True, slots=True)
class House:
    """What every part of the benchmark works on."""

    settings: Mapping[str, str]
    dsn: str
    key: str
    github: UUID
    accounts: Mapping[str, Sequence[Account]]  # by part

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Served]:
        async with posthouse("serve", settings=self.settings) as command:
            line = await command.until("posthouse: ready")
            found = re.search(r"public=(\S+)\s+private=(\S+)", line)
            assert found is not None
            yield Served(found[1], found[2], command.process.pid)
            command.process.terminate()
            await command.ended()


async def declare(dsn: str, folder: Path, provider_url: str, *, latency: int, contested: int, burst: int) -> House:
    """Integrations, an admin's key, and the accounts that are to be revoked."""
    keyring = generate()
    wanted = [
        Wanted(name="bench", provider="github", secrets={"signing_secrets": (ingest.SECRET,)}),
        Wanted(name="slack", provider="slack", secrets={"signing_secrets": (SIGNING_SECRET,)}),
        Wanted(
            name="contested", provider="sandbox", settings={"base_url": provider_url}, client_id="bench",
            secrets={"signing_secrets": (WEBHOOK_SECRET,), "client_secrets": (b"client-secret",)},
        ),
    ]  # fmt: skip
    database, now = Database(dsn), datetime.now(UTC)
    await database.open()
    async with database.transaction() as tx:
        made = [(await store.create(tx, keyring, one, now, by="file")).id for one in wanted]
        key = (await keys.create(tx, keyring, now, name="bench")).token
    await database.close()

    async def fill(part: str, count: int, *, slack: bool = True) -> list[Account]:
        names = [f"{part}{number}" for number in range(count)]
        integration, profiles = (made[1], ("bot", "user")) if slack else (made[2], ("reader",))
        return await _accounts.fill(dsn, keyring, integration, names, profiles=profiles, slack=slack)

    accounts = {
        "latency": await fill("L", latency),
        "contested": await fill("C", contested, slack=False),
        "burst": await fill("B", burst),
    }
    settings = {
        "database_url": dsn, "keyring": keyring.to_json(), "home": str(folder), "public_listen": "127.0.0.1:0",
        "private_listen": "127.0.0.1:0", "outbound_allow": "127.0.0.0/8", "log_level": "error", "drain_pause_s": "0",
    }  # fmt: skip
    return House(settings, dsn, key, made[0], accounts)


@asynccontextmanager
async def dead_provider() -> AsyncIterator[str]:
    """Its API knows no token any more: whoever asks learns that what was said is true."""

    async def refuse(request: web.Request) -> web.Response:
        if request.path.endswith("/token"):  # a check asks there too: an access token alone may just be over
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"error": "invalid_token"}, status=401)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
