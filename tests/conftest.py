"""Fixtures for everybody: a database of one's own, a gateway on it, a clock that tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.clock import Clock
from gateway.database import Database
from gateway.migrate import migrate_for_tests
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault.keyring import Keyring, generate
from tests import openbao, postgres
from tests.clock import FakeClock

# Tests that load the whole machine, measure its memory, or hold us to seconds. The others share it (`make test`): one
# that starts processes waits for what they say, however long that takes, on ports and in folders of its own.
ALONE = (
    "tests/benchmarks/", "tests/client/test_killed_workers.py", "tests/demo/", "tests/embedded/", "tests/faults/",
    "tests/fuzz/", "tests/storm/", "tests/vault/test_bench_rotate.py",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is to run alone."""
    for item in items:
        if item.nodeid.startswith(ALONE):
            item.add_marker("alone")


@pytest.fixture(scope="session")
def template() -> Iterator[postgres.Template]:
    """One server for the session, and a migrated database to clone."""
    with postgres.server() as server, postgres.template_database(server, migrate_for_tests) as made:
        yield made


@pytest.fixture(scope="session")
def bao_server() -> Iterator[openbao.Server]:
    """One OpenBao for the session; each test takes a namespace of its own (`tenancy()`)."""
    with openbao.dev_server() as server:
        yield server


@pytest.fixture
async def dsn(template: postgres.Template) -> AsyncIterator[str]:
    """An empty, migrated database of this test's own."""
    async with template.cloned() as made:
        yield made


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A pool on it: control and region in one."""
    made = Database(dsn)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keyring() -> Keyring:
    return generate()


@pytest.fixture
def settings(dsn: str, keyring: Keyring, tmp_path: Path) -> Settings:
    """Settings of a process on this test's database, listening on free ports."""
    return Settings(
        _env_file=None,
        database_url=SecretStr(dsn),
        home=tmp_path,
        keyring=SecretStr(keyring.to_json()),
        public_url="https://hooks.example.com",
        public_listen="127.0.0.1:0",
        private_listen="127.0.0.1:0",
        drain_pause_s=0,
        poll_s=0.1,
        calls_per_s=10_000,  # a clock that stands still fills up no budget
    )


@pytest.fixture
async def gateway(settings: Settings, clock: Clock) -> AsyncIterator[Gateway]:
    """The parts of one process, open; no listener yet."""
    made = await Gateway.open(settings, clock)
    yield made
    await made.close()
