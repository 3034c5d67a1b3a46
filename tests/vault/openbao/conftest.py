"""A real OpenBao, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

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


@pytest.fixture(scope="module")
def one_restartable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openbao.Restartable]:
    """A server over TLS; it goes by the name vault.test."""
    authority = Authority.make("an authority")
    made = openbao.Restartable(tmp_path_factory.mktemp("bao"), *authority.sign("vault.test"), authority.pem)
    made.start()
    try:
        made.initialize()
        yield made
    finally:
        made.stop()


@pytest.fixture
def restartable(one_restartable: openbao.Restartable) -> openbao.Restartable:
    """It, running and unsealed."""
    one_restartable.well()
    return one_restartable
