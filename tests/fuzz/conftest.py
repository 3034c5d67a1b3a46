"""The public listener with every provider there is; patient, so that a slow machine's 503 is not taken for a fault."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.clock import Clock
from gateway.service import Gateway
from gateway.settings import Settings
from tests.flows.conftest import house
from tests.flows.house import all_keys

__all__ = ["house"]


@pytest.fixture
async def gateway(settings: Settings, clock: Clock) -> AsyncIterator[Gateway]:
    """The parts of one process; it finds published keys at servers of ours."""
    async with all_keys() as urls:
        more = {"keys_urls": urls, "outbound_allow": ("127.0.0.0/8",), "commit_deadline_s": 20.0}
        made = await Gateway.open(settings.model_copy(update=more), clock)
        yield made
        await made.close()
