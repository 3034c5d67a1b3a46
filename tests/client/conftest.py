"""A town for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.settings import Settings
from tests.client.town import Town, town


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[Town]:
    """A running gateway, and the line to it."""
    async with town(settings) as made:
        yield made
