"""A sandbox on a free port, and clients of it that we did not write."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.clock import FakeClock
from tests.fakes import FakeProvider, fake_provider


@pytest.fixture
async def provider(clock: FakeClock) -> AsyncIterator[FakeProvider]:
    async with fake_provider(clock) as made:
        yield made


@pytest.fixture
async def http(provider: FakeProvider) -> AsyncIterator[aiohttp.ClientSession]:
    """A plain client whose URLs begin at the provider."""
    async with aiohttp.ClientSession(provider.base_url) as session:
        yield session
