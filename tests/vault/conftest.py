"""A real OpenBao, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.settings import Settings
from gateway.vault.openbao import OpenBao
from tests import openbao
from tests.clock import FakeClock
from tests.ops.certificates import Authority


@pytest.fixture
def tenancy(bao_server: openbao.Server) -> openbao.Tenancy:
    """A namespace of this test's own, furnished."""
    return bao_server.tenancy()


@pytest.fixture
def vault_settings(tenancy: openbao.Tenancy) -> Settings:
    return tenancy.settings()


@pytest.fixture
async def bao(vault_settings: Settings, clock: FakeClock) -> AsyncIterator[OpenBao]:
    """A client that is logged in."""
    made = OpenBao(vault_settings, clock)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def restartable(tmp_path: Path) -> Iterator[openbao.Restartable]:
    """A server over TLS, running, initialized and unsealed; it goes by the name vault.test."""
    authority = Authority.make("an authority")
    folder = tmp_path / "bao"
    folder.mkdir()
    made = openbao.Restartable(folder, *authority.sign("vault.test"), authority.pem)
    made.start()
    try:
        made.initialize()
        yield made
    finally:
        made.stop()
