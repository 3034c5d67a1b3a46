"""A gateway behind its public listener, and the management API beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.clock import Clock
from gateway.service import Gateway
from gateway.settings import Settings
from tests.flows.house import House, all_keys, opened
from tests.web.conftest import Api, served


@pytest.fixture
async def gateway(settings: Settings, clock: Clock) -> AsyncIterator[Gateway]:
    """The parts of one process; it finds published keys at servers of ours."""
    async with all_keys() as urls:
        made = await Gateway.open(
            settings.model_copy(update={"keys_urls": urls, "outbound_allow": ("127.0.0.0/8",)}), clock
        )
        yield made
        await made.close()


@pytest.fixture
async def house(gateway: Gateway) -> AsyncIterator[House]:
    """The public listener."""
    async with opened(gateway) as made:
        yield made


@pytest.fixture
async def api(gateway: Gateway) -> AsyncIterator[Api]:
    """The private listener, and an admin's key."""
    async with served(gateway) as made:
        yield made
