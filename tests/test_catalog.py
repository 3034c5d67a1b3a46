"""What a process knows of control: at most half a second old, stale for a stated time, then an honest 503."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog

from gateway.access import keys
from gateway.catalog import Catalog
from gateway.database import Database
from gateway.errors import Unavailable
from gateway.integrations import secrets, store
from gateway.integrations.wanted import Wanted
from gateway.settings import Settings
from gateway.vault.keyring import Keyring, generate
from providers.contract import Delivery
from providers.errors import NotConfigured
from providers.registry import Provider
from tests.clock import FakeClock
from tests.integrations.conftest import PROVIDERS
from tests.wire import wire

POSTY = Wanted(
    name="posty", provider="posty", client_id="7", settings={"audience": "us"},
    secrets={"signing_secrets": (b"new!", b"old!"), "client_secrets": (b"client",)},
)  # fmt: skip
CLIENTY = Wanted(name="clienty", provider="clienty", secrets={"client_secrets": (b"client",)})


@pytest.fixture
async def catalog(database: Database, keyring: Keyring, clock: FakeClock, settings: Settings) -> AsyncIterator[Catalog]:
    """One process's catalog. It looks at control when the test says so."""
    made = Catalog(database, keyring, clock, settings, PROVIDERS)
    await made.refresh()
    yield made
    await made.close()


async def make(database: Database, keyring: Keyring, wanted: Wanted) -> UUID:
    """As another process would."""
    async with database.transaction() as tx:
        return (await store.create(tx, keyring, wanted, FakeClock().now(), by="api")).id


async def test_an_integration_comes_with_what_its_verifier_trusts(
    catalog: Catalog, database: Database, keyring: Keyring
) -> None:
    """Signing secrets newest first, or client secrets where the provider signs with those; settings with defaults."""
    made = await make(database, keyring, POSTY), await make(database, keyring, CLIENTY)
    await catalog.run_once()
    posty, clienty = catalog.integration("posty"), catalog.integration_by_id(made[1])
    assert posty is not None
    assert clienty is not None
    assert catalog.integrations() == [clienty, posty]
    assert (posty.id, posty.client_id, posty.region, posty.unattributed) == (made[0], "7", "default", "keep")
    assert posty.trust.secrets == (b"new!", b"old!")
    assert posty.trust.settings == posty.settings == {"audience": "us", "depth": 1, "share": 0.5}
    assert (posty.trust.client_id, posty.trust.endpoint, posty.trouble) == ("7", False, None)
    assert clienty.trust.secrets == (b"client",)
    assert all(secret not in repr(catalog.integrations()) for secret in ("new!", "old!", "b'client'"))


async def test_changes_of_other_processes_arrive_with_the_next_look(
    catalog: Catalog, database: Database, keyring: Keyring
) -> None:
    """Made, rotated, deleted; and asked about what it does not know, a process looks at once."""
    assert catalog.integration("posty") is None
    made = await make(database, keyring, POSTY)
    assert catalog.integration("posty") is None
    assert await catalog.look_up("nobody") is None
    assert catalog.integration("posty") is not None
    assert await catalog.look_up("posty") is catalog.integration("posty")
    async with database.transaction() as tx:
        await secrets.rotate_secret(tx, keyring, made, "signing_secrets", b"newest", FakeClock().now())
    await catalog.run_once()
    rotated = catalog.integration("posty")
    assert rotated is not None
    assert rotated.trust.secrets == (b"newest", b"new!", b"old!")
    async with database.transaction() as tx:
        await store.delete(tx, made, by="api")
    await catalog.run_once()
    assert catalog.integration("posty") is None
    assert catalog.integration_by_id(made) is None


async def test_the_loop_looks_by_itself(database: Database, keyring: Keyring, settings: Settings) -> None:
    """Between `open` and `close`; what is in memory then stays."""
    catalog = Catalog(database, keyring, FakeClock(), settings, PROVIDERS)
    await catalog.open()
    await make(database, keyring, POSTY)
    async with asyncio.timeout(10):
        while catalog.integration("posty") is None:
            await database.fetchval("SELECT pg_sleep(0.01)")
    await catalog.close()
    assert catalog.integration("posty") is not None


async def test_nothing_is_read_again_while_nothing_moved(
    catalog: Catalog, database: Database, keyring: Keyring
) -> None:
    """The very same objects answer: a look is one row."""
    await make(database, keyring, POSTY)
    await catalog.run_once()
    before = catalog.integration("posty")
    await catalog.run_once()
    assert catalog.integration("posty") is before


async def test_a_secret_that_does_not_open_stops_its_integration_only(
    catalog: Catalog, database: Database, keyring: Keyring
) -> None:
    """It trusts nothing and says why, in the log too; the others go on."""
    await make(database, keyring, POSTY)
    await make(database, keyring, CLIENTY)
    await make(database, generate(), replace(POSTY, name="foreign"))
    with structlog.testing.capture_logs() as logs:
        await catalog.run_once()
    foreign = catalog.integration("foreign")
    assert foreign is not None
    assert foreign.trust.secrets == ()
    assert foreign.trouble is not None
    assert [(line["event"], line["integration"]) for line in logs] == [("integration.unusable", "foreign")]
    assert [one.name for one in catalog.integrations() if one.trouble is None] == ["clienty", "posty"]


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({}, "does not know its provider"),
        ({"posty": replace(PROVIDERS["posty"], settings=PROVIDERS["plain"].settings)}, "do not fit provider posty"),
    ],
)
async def test_what_a_newer_process_declared_is_not_trusted(
    database: Database, keyring: Keyring, settings: Settings, known: Mapping[str, Provider], says: str
) -> None:
    """A provider, or settings of one, that this version lacks: the integration is there and verifies nothing."""
    await make(database, keyring, POSTY)
    catalog = Catalog(database, keyring, FakeClock(), settings, known)
    await catalog.refresh()
    posty = catalog.integration("posty")
    assert posty is not None
    assert posty.provider.facts.name == "posty"
    assert says in (posty.trouble or "")
    assert posty.trust.secrets == ()
    if not known:
        with pytest.raises(NotConfigured):
            posty.provider.verify(Delivery("POST", "", "", "", {}, b""), posty.trust, FakeClock().now())


async def test_a_key_opens_the_door_until_it_ends_or_is_revoked(
    catalog: Catalog, database: Database, keyring: Keyring, clock: FakeClock
) -> None:
    """Its end is judged at each call; a revocation arrives with the next look."""
    end = clock.now() + timedelta(seconds=60)
    made = await keys.create(database, keyring, clock.now(), name="x", role="reader", expires_at=end)
    assert catalog.api_key(made.token, clock.now()) is None
    await catalog.run_once()
    key = catalog.api_key(made.token, clock.now())
    assert key is not None
    assert (key.id, key.name, key.role, key.expires_at) == (made.key.id, "x", "reader", end)
    assert catalog.api_key(made.token, end) is None
    assert catalog.api_key(made.token, end - timedelta(seconds=1)) is key
    await keys.revoke(database, made.key.id, clock.now())
    await catalog.run_once()
    assert catalog.api_key(made.token, clock.now()) is None


@pytest.mark.parametrize("change", ["", "ph_", "é\udcff", "x" * 100_000])
async def test_a_token_that_is_nobodys_opens_nothing(
    catalog: Catalog, database: Database, keyring: Keyring, clock: FakeClock, change: str
) -> None:
    """Whatever the text; also a real key with something before, behind or missing."""
    made = await keys.create(database, keyring, clock.now(), name="x")
    await catalog.run_once()
    for token in (change, change + made.token[1:], made.token + "=" + change, made.token.upper(), made.key.prefix):
        assert catalog.api_key(token, clock.now()) is None


async def test_use_of_a_key_is_noted_about_once_a_minute(
    catalog: Catalog, database: Database, keyring: Keyring, clock: FakeClock
) -> None:
    """In the background, without moving the revision."""
    made = await keys.create(database, keyring, clock.now(), name="x")
    await catalog.run_once()
    start = clock.now()
    noted: list[timedelta] = []
    for seconds in (0, 30, 40, 0):
        clock.move(seconds)
        if seconds or not noted:
            catalog.api_key(made.token, clock.now())
        await catalog.run_once()
        noted.append(((await keys.get(database, made.key.id)).last_used_at or start) - start)
    assert noted == [timedelta(0), timedelta(0), timedelta(seconds=70), timedelta(seconds=70)]


async def test_with_control_away_memory_serves_for_a_time_and_then_says_so(
    dsn: str, database: Database, keyring: Keyring, settings: Settings, clock: FakeClock
) -> None:
    """Then 503; when control is back, in again by itself, with what changed meanwhile."""
    async with wire(dsn) as line:
        ours = Database(line.dsn)
        await ours.open()
        catalog = Catalog(ours, keyring, clock, settings, PROVIDERS)
        await make(database, keyring, POSTY)
        made = await keys.create(database, keyring, clock.now(), name="x")
        await catalog.refresh()
        await line.cut()
        with structlog.testing.capture_logs() as logs:
            await catalog.run_once()
            clock.move(settings.stale_control_s)
            await catalog.run_once()
            assert catalog.integration("posty") is not None
            assert catalog.api_key(made.token, clock.now()) is not None
            clock.move(1)
            await catalog.run_once()
        questions: list[Any] = [
            lambda: catalog.integration("posty"),
            lambda: catalog.integration("other"),
            lambda: catalog.integration_by_id(UUID(int=1)),
            lambda: catalog.integrations(),
            lambda: catalog.api_key(made.token, clock.now()),
        ]
        for question in questions:
            with pytest.raises(Unavailable):
                question()
        with pytest.raises(Unavailable):
            await catalog.refresh()
        assert [entry["event"] for entry in logs] == ["control.away"]
        await make(database, keyring, CLIENTY)
        await line.mend()
        with structlog.testing.capture_logs() as logs:
            await catalog.run_once()
        assert [entry["event"] for entry in logs] == ["control.back"]
        assert [one.name for one in catalog.integrations()] == ["clienty", "posty"]
        await ours.close()


async def test_a_process_does_not_start_on_no_control(keyring: Keyring, settings: Settings, dsn: str) -> None:
    """`open` says so, and before it nothing is answered from an empty memory."""
    async with wire(dsn) as line:
        ours = Database(line.dsn)
        await ours.open()
        await line.cut()
        catalog = Catalog(ours, keyring, FakeClock(), settings, PROVIDERS)
        with pytest.raises(Unavailable):
            await catalog.open()
        with pytest.raises(Unavailable):
            catalog.integration("posty")
        await ours.close()
