"""A gateway whose way to its database can be lost."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from gateway.clock import Clock
from gateway.service import Gateway
from gateway.settings import Settings
from tests.flows.house import House, declare, opened
from tests.stream.lossy import LossyWire, lossy


@pytest.fixture
async def line(dsn: str) -> AsyncIterator[LossyWire]:
    """The way to the region's database; control has its own."""
    async with lossy(dsn) as made:
        yield made


@pytest.fixture
async def gateway(line: LossyWire, settings: Settings, clock: Clock) -> AsyncIterator[Gateway]:
    """The parts of one process; only the region's database is behind the line."""
    there = {
        "database_url": SecretStr(line.dsn), "control_database_url": settings.database_url, "commit_deadline_s": 0.9,
    }  # fmt: skip
    made = await Gateway.open(settings.model_copy(update=there), clock)
    yield made
    await made.close()


@pytest.fixture
async def house(gateway: Gateway) -> AsyncIterator[House]:
    """The public listener; GitHub, Slack, and Graph at an endpoint."""
    async with opened(gateway) as made:
        for name in ("github", "slack", "microsoft/endpoint"):
            await declare(made, name)
        yield made
