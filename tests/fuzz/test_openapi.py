"""The management API against its own document, on a deployment where things exist (tests/web asks an empty one).

No 5xx, and every answer has a status, media type, headers and body that the document has for it. That the run got far
is asked too: each operation succeeded at least once.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway import ids
from gateway.clock import Clock
from gateway.web.routing import Route
from tests.fakes import FakeProvider, fake_provider
from tests.flows.house import House, declare, metric
from tests.indigestible import incident, set_aside, unwell
from tests.tokens.making import granted
from tests.web.conftest import ROUTES, Api, served

REPOSITORY = Path(__file__).parents[2]
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
UNWELL = ("gitlab", "hubspot", "stripe")
TENANTS = ("acme", "globex-2", "t.3")


@pytest.fixture
async def provider(clock: Clock) -> AsyncIterator[FakeProvider]:
    """Where accounts are connected."""
    async with fake_provider(clock) as made:
        yield made


@pytest.fixture
async def api(house: House) -> AsyncIterator[Api]:
    """The private listener beside the public one."""
    async with served(house.gateway) as made:
        yield made


async def furnish(api: Api, house: House, provider: FakeProvider) -> dict[str, Any]:
    """Tenants, connections, endpoints, keys, deliveries, refused and indigestible ones, consumers; their ids."""
    for name in ("github", "slack", "microsoft/endpoint"):
        await declare(house, name)
    connections, endpoints, keys = [], [], []
    for number, tenant in enumerate(TENANTS * 6):
        await api("PUT", f"/v1/tenants/{tenant}", {"labels": {"plan": "x"}})
        asked: dict[str, Any] = {"tenant": tenant, "integration": "github", "accounts": [f"installation:{number}"]}
        connections.append((await api("POST", "/v1/connections", asked)).json()["id"])
        known = ids.parse(ids.CONNECTION, connections[-1])
        assert known is not None
        await granted(house.gateway.regions.home, known, tenant)
        asked = {"integration": "github", "generate_secret": True, "state": ("live", "confirming")[number % 2]}
        endpoints.append((await api("POST", "/v1/endpoints", asked)).json()["id"])
        keys.append((await api("POST", "/v1/keys", {"name": f"key {number}"})).json()["id"])
        made = {"name": f"gh-{number}", "provider": "github", "signing_secrets": ["a secret of decent length"]}
        assert (await api("POST", "/v1/integrations", made)).status_code == 201
        for name in ("github", "slack", "microsoft/endpoint"):
            assert (await house.deliver(name)).status < 300
            assert (await house.deliver(name, secret=b"a secret of another app")).status == 401
    await integrate(api, provider)
    session, code = await consented(api, house, provider)
    await house.gateway.write_refusals()
    known = ids.parse(ids.CONNECTION, connections[0])
    assert known is not None
    aside = [await set_aside(house.gateway, "slack", "tokens_revoked", known) for _ in range(3)]
    for name in UNWELL:
        await unwell(house.gateway, name)
    await house.gateway.catalog.refresh()
    for number in range(18):
        await incident(house.gateway, f"gh-{number}")
    for name in ("spare", "one", "two"):
        await api("POST", f"/v1/consumers/{name}/lease", {"worker": "w"})
    lease = (await api("POST", "/v1/consumers/mine/lease", {"worker": "w", "ttl_s": 60})).json()
    page = (await api("GET", "/v1/events", params={"limit": 5})).json()
    end = page["next_cursor"]
    return {
        "tenant_id": TENANTS, "connection_id": connections, "endpoint_id": endpoints, "key_id": keys, "name": ["spare", "one", "two"],
        "integration": [f"gh-{number}" for number in range(18)], "cursor": ["earliest", "latest", end],
        "access_profile": ["reader"], "session_id": [session] * 3, "code": code, "event_id": [ids.show(ids.EVENT, id) for id in aside], "provider": UNWELL, "leases": "mine", "leased": [{"partition": p["partition"], "fence": p["fence"], "cursor": end} for p in lease["partitions"]],
    }  # fmt: skip


async def consented(api: Api, house: House, provider: FakeProvider) -> tuple[str, str]:
    """A connect session to which somebody consented at the sandbox, and its code."""
    asked = {
        "tenant": "acme",
        "integration": "sandbox",
        "access_profiles": ["reader"],
        "return_url": "https://app.example.com/",
    }
    made = (await api("POST", "/v1/connect/sessions", asked)).json()
    async with httpx.AsyncClient(trust_env=False, cookies={}) as http:
        pressed = await http.post(house.url + urlsplit(made["url"]).path)
        callback = urlsplit(await provider.consent(pressed.headers["location"]))
        cookie = {"cookie": pressed.headers["set-cookie"].partition(";")[0]}  # Secure: not kept over http
        back = await http.get(f"{house.url}{callback.path}?{callback.query}", headers=cookie)
    return made["id"], httpx.URL(back.headers["location"]).params["code"]


async def integrate(api: Api, provider: FakeProvider) -> None:
    """Set an integration up at the sandbox."""
    made = {
        "name": "sandbox", "provider": "sandbox", "client_id": provider.client.id, "client_secrets": [provider.client.secret],
        "settings": {"base_url": provider.base_url}, "access_profiles": {"reader": {"required": ["messages.read"]}},
        "return_urls": ["https://app.example.com/"],
    }  # fmt: skip
    assert (await api("POST", "/v1/integrations", made)).status_code == 201


def succeeded(route: Route) -> float:
    """How often it has done so in this process."""
    return metric("posthouse_http_requests_total", route=route.path, method=route.method, status=str(route.status))


@pytest.mark.parametrize("examples", [10, pytest.param(100, marks=pytest.mark.long)])
async def test_every_operation_answers_as_the_document_says(
    api: Api, house: House, provider: FakeProvider, tmp_path: Path, examples: int
) -> None:
    """Requests that fit the document, most of them naming things that exist."""
    known = await furnish(api, house, provider)
    house.gateway.draining.set()  # long polls and streams end at once; everything else goes on
    before = {route: succeeded(route) for route in ROUTES}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/openapi.json", "--header",
        f"Authorization: Bearer {api.admin}", "--checks", CHECKS, "--mode", "positive", "--phases", "fuzzing",
        "--max-examples", str(examples), "--request-timeout", "10", "--continue-on-failure", "--warnings", "off",
        "--no-color", "--no-shrink", "--seed", "2",
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(REPOSITORY), "KNOWN": json.dumps(known),
            "SCHEMATHESIS_HOOKS": "tests.fuzz.schemathesis_hooks",
        },
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert sorted(f"{r.method} {r.path}" for r in ROUTES if succeeded(r) == before[r]) == []
    tested = re.search(r"(\d+) selected / (\d+) total", said.decode())
    assert tested is None or tested[1] == tested[2]
