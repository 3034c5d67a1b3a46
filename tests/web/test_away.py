"""Bad days: the database is cut off or hangs. 503 with Retry-After, and in again by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import SecretStr

from gateway.clock import Clock
from gateway.service import Gateway
from gateway.settings import Settings
from tests import wire
from tests.web.conftest import Api, problem, served


class Stalling(wire.Wire):
    """A wire that can also hold everything back: connections stay open, and nothing answers."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def _forward(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        held = asyncio.StreamReader()
        letting = asyncio.create_task(self._let(near_in, held))
        try:
            await super()._forward(held, near_out)
        finally:
            letting.cancel()

    async def _let(self, source: asyncio.StreamReader, held: asyncio.StreamReader) -> None:
        try:
            while data := await source.read(65536):
                await self.flowing.wait()
                held.feed_data(data)
        except OSError:
            pass
        held.feed_eof()


@pytest.fixture
async def line(dsn: str) -> AsyncIterator[Stalling]:
    """The way to the database."""
    made = Stalling(dsn)
    await made.mend()
    yield made
    await made.cut()


@pytest.fixture
async def api(line: Stalling, settings: Settings, clock: Clock) -> AsyncIterator[Api]:
    """The management API over that way."""
    gateway = await Gateway.open(settings.model_copy(update={"database_url": SecretStr(line.dsn)}), clock)
    async with served(gateway) as made:
        yield made
        line.flowing.set()
    await gateway.close()


def away(answer: httpx.Response) -> None:
    problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_database_that_is_cut_off_is_a_503_and_comes_back(api: Api, line: Stalling) -> None:
    """Keys and integrations are in memory; the process lives, and is not ready."""
    await api("PUT", "/v1/tenants/acme", {})
    assert (await api("GET", "/readyz", key=None)).status_code == 200
    await line.cut()
    away(await api("GET", "/v1/tenants/acme"))
    away(await api("POST", "/v1/keys", {"name": "ci"}, headers={"idempotency-key": "k"}))
    away(await api("GET", "/v1/events"))
    ready = await api("GET", "/readyz", key=None)
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert ready.json()["dependencies"] == {"control": False, "region:default": False}
    assert (await api("GET", "/healthz", key=None)).json() == {"status": "alive"}
    await line.mend()
    assert (await api("GET", "/v1/tenants/acme")).status_code == 200
    assert (await api("POST", "/v1/keys", {"name": "ci"}, headers={"idempotency-key": "k"})).status_code == 201


async def test_a_database_that_hangs_is_a_503_too(api: Api, line: Stalling) -> None:
    """A statement could wait half a minute: the caller is told long before."""
    await api("PUT", "/v1/tenants/acme", {})
    line.flowing.clear()
    away(await api("GET", "/v1/tenants/acme"))
    away(await api("POST", "/v1/keys", {"name": "ci"}, headers={"idempotency-key": "k"}))
    assert (await api("GET", "/readyz", key=None)).status_code == 503
    line.flowing.set()
    assert (await api("GET", "/v1/tenants/acme")).status_code == 200


@asynccontextmanager
async def _locked(dsn: str) -> AsyncIterator[None]:
    from gateway.database import Database

    held = Database(dsn)
    await held.open()
    async with held.transaction() as tx:
        await tx.execute("LOCK TABLE control.tenants IN ACCESS EXCLUSIVE MODE")
        yield
    await held.close()


async def test_a_statement_that_only_waits_for_a_lock_is_waited_for(api: Api, dsn: str) -> None:
    """The database answers others: so the caller waits, up to the lock's own limit, and is then told to come back."""
    async with _locked(dsn):
        asking = asyncio.create_task(api("PUT", "/v1/tenants/acme", {}))
        away(await asking)  # lock_timeout, 5 s
    assert (await api("PUT", "/v1/tenants/acme", {})).status_code == 200


async def test_a_schema_that_does_not_fit_is_not_ready(api: Api) -> None:
    """Two versions ahead: this process must be replaced first."""
    await api.gateway.control.execute("UPDATE gateway.schema_version SET version_num = '0099'")
    answer = await api("GET", "/readyz", key=None)
    assert (answer.status_code, answer.json()["schema_fits"]) == (503, False)


async def test_draining_is_not_ready_and_still_serves(api: Api) -> None:
    """The load balancer looks elsewhere while accepted requests go on."""
    api.gateway.state = "draining"
    assert (await api("GET", "/readyz", key=None)).status_code == 503
    assert (await api("GET", "/v1/tenants")).status_code == 200
