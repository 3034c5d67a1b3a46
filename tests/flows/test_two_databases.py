"""Control and a region in two databases, each with only its own schema: nothing of one is looked for in the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import SecretStr

from gateway.clock import Clock
from gateway.service import Gateway
from gateway.settings import Settings
from tests import postgres
from tests.flows import raw
from tests.flows.house import opened
from tests.signers import SIGNERS
from tests.signing import fresh
from tests.web.conftest import served


@pytest.fixture
async def apart(template: postgres.Template, settings: Settings) -> AsyncIterator[Settings]:
    """Settings with a control database of its own; each database has lost the other's schema."""
    async with template.cloned() as control, template.cloned() as region:
        for dsn, schema in ((control, "gateway"), (region, "control")):
            db = await asyncpg.connect(dsn)
            await db.execute(f"DROP SCHEMA {schema} CASCADE")
            await db.close()
        yield settings.model_copy(
            update={"database_url": SecretStr(region), "control_database_url": SecretStr(control)}
        )


async def test_the_main_job_runs_on_two_databases(apart: Settings, clock: Clock) -> None:
    """Set-up, delivery, attribution, stream, consumers, refusals: each asks the database that has it."""
    github = SIGNERS["github"]
    gateway = await Gateway.open(apart, clock)
    try:
        async with served(gateway) as api, opened(gateway) as house:
            secret = github.secrets[0].decode()
            made = {"name": "gh", "provider": "github", "signing_secrets": [secret]}
            assert (await api("POST", "/v1/integrations", made)).status_code == 201
            assert (await api("PUT", "/v1/tenants/acme", {})).status_code in (200, 201)
            account = {"tenant": "acme", "integration": "gh", "accounts": ["installation:1", "installation:42"]}
            assert (await api("POST", "/v1/connections", account)).status_code == 201
            body = fresh(github, "one")
            headers = github.headers(body, github.secrets[0], clock.now(), delivery_id="one", url="")
            sent = await house.ask(raw.request("/hooks/gh", headers, body))
            assert sent.status == 200
            forged = await house.ask(raw.request("/hooks/gh", headers, body + b" "))
            assert forged.status == 401
            page = (await api("GET", "/v1/events?type=posthouse.delivery")).json()
            assert [entry["event"]["integration"] for entry in page["items"]] == ["gh"]
            lease = await api("POST", "/v1/consumers/c/lease", {"worker": "w"})
            assert len(lease.json()["partitions"]) == 64
            await gateway.write_refusals()
            assert (await api("GET", "/v1/refusals?integration=gh")).json()["items"][0][
                "reason"
            ] == "signature_mismatch"
    finally:
        await gateway.close()
