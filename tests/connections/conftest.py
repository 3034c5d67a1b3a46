"""A gateway whose tenants have accounts at a provider that we run ourselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.clock import Clock
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault.keyring import Keyring
from tests.connections.toy import Toy, serving
from tests.web.conftest import Api, lines, served

__all__ = ["lines"]

PROFILES = {"reader": {"required": ["read"], "optional": ["more"]}, "writer": {"required": ["write"]}}


@pytest.fixture
async def toy() -> AsyncIterator[Toy]:
    async with serving() as made:
        yield made


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"outbound_allow": ("127.0.0.0/8",)})


@pytest.fixture
async def gateway(toy: Toy, settings: Settings, clock: Clock) -> AsyncIterator[Gateway]:
    made = await Gateway.open(settings, clock)
    yield made
    await made.close()


@pytest.fixture
async def api(gateway: Gateway, toy: Toy) -> AsyncIterator[Api]:
    """The management API, with tenants `acme` and `globex` and an integration `toy`."""
    async with served(gateway) as made:
        for tenant in ("acme", "globex"):
            await made("PUT", f"/v1/tenants/{tenant}", {})
        asked = {
            "name": "toy", "provider": "toy", "client_id": "c", "client_secrets": ["a client's secret"],
            "settings": {"base": toy.url}, "access_profiles": PROFILES,
        }  # fmt: skip
        answer = await made("POST", "/v1/integrations", asked)
        assert answer.status_code == 201, answer.text
        yield made


@pytest.fixture
def command(dsn: str, keyring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`posthouse …` on this test's database."""
    for name, value in (
        ("DATABASE_URL", dsn), ("KEYRING", keyring.to_json()), ("HOME", str(tmp_path)), ("OUTBOUND_ALLOW", "127.0.0.0/8")
    ):  # fmt: skip
        monkeypatch.setenv(f"POSTHOUSE_{name}", value)

    async def run(*arguments: object) -> int:
        return await asyncio.to_thread(cli.run, [str(argument) for argument in arguments])

    return run
