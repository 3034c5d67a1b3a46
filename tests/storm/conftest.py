"""A town for each test of the storm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.vault.keyring import Keyring
from tests.storm.town import Town, opening


@pytest.fixture
async def town(dsn: str, keyring: Keyring, tmp_path: Path) -> AsyncIterator[Town]:
    """No process yet."""
    async with opening(dsn, keyring, tmp_path) as made:
        yield made
