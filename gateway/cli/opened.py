"""What most commands begin with: the settings, and the databases that they name."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr, ValidationError

from gateway import migrate
from gateway.cli.failures import validation
from gateway.database import Database
from gateway.embedded.folder import PORT, Folder, dsn
from gateway.errors import SetupError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.connections.store import Connection
    from gateway.regions import Region
    from gateway.service import Gateway
    from gateway.vault.backend import KeyBackend
    from gateway.vault.keyring import Keyring
    from gateway.vault.tokens import TokenVault


def settings() -> Settings:
    """From the environment.    Raises: SetupError, naming the variables and not their values."""
    try:
        return Settings()
    except ValidationError as error:
        raise SetupError(validation(error, "POSTHOUSE_")) from None


def with_database(given: Settings) -> Settings:
    """These settings, and where none is set the database of a `posthouse up` that runs on the home folder."""
    if given.database_url is not None:
        return given
    running = Folder(given.home).postmaster() if given.home.is_dir() else None
    if running is None or not _answers(Path(running.socket_dir) / f".s.PGSQL.{PORT}"):
        raise SetupError(
            f"no database: set POSTHOUSE_DATABASE_URL, or start `posthouse up` (none is running on {given.home})"
        )
    return given.model_copy(update={"database_url": SecretStr(dsn(running.socket_dir))})


def _answers(socket_file: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(socket_file))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Opened:
    """What a command works on: control, the home region, the keyring. The schema has been checked."""

    settings: Settings
    control: Database
    region: Database
    keyring: Keyring
    backend: KeyBackend  # wraps the region's data keys
    region_name: str
    tokens: TokenVault  # the home region's


@asynccontextmanager
async def opened() -> AsyncIterator[Opened]:
    """Connect as the settings say, check schema and keyring, and close at the end.    Raises: SetupError.

    Vault / OpenBao is called by those commands only that need it.
    """
    from gateway.clock import SystemClock
    from gateway.regions import DEFAULT
    from gateway.vault import checks, choose, keyring

    chosen = with_database(settings())
    assert chosen.database_url is not None
    assert chosen.control_url is not None
    keys = keyring.load(chosen)
    await migrate.check_all(chosen)
    control = Database(chosen.control_url.get_secret_value(), size=2)
    region = Database(chosen.database_url.get_secret_value(), size=2)
    bao = choose.openbao(chosen, SystemClock())
    sealing = choose.Sealing.of(DEFAULT, region, keys, chosen, SystemClock(), bao)
    try:
        await control.open()
        await region.open()
        await checks.compare(control, keys)
        if sealing.remote_keys is None:
            await sealing.verify()
        for place in ("control", DEFAULT):
            await checks.verify_against(control, keys, place)
        yield Opened(chosen, control, region, keys, sealing.backend, DEFAULT, sealing.tokens)
    finally:
        if bao is not None:
            await bao.close()
        await control.close()
        await region.close()


@asynccontextmanager
async def at_hand() -> AsyncIterator[Gateway]:
    """All parts of a process, connected, without its background work: for commands that do what the API does.

    Raises: SetupError.
    """
    from gateway.service import Gateway

    chosen = with_database(settings())
    await migrate.check_all(chosen)
    gateway = await Gateway.for_command(chosen)
    try:
        yield gateway
    finally:
        await gateway.close()


async def located(it: Gateway, connection: str) -> tuple[Region, Connection]:
    """A connection and where it lives.    Raises: SetupError, there is none."""
    from gateway import ids
    from gateway.connections import store

    id = ids.parse(ids.CONNECTION, connection)
    for region in it.regions:
        found = None if id is None else await store.find(region.database, id)
        if found is not None:
            return region, found
    raise SetupError("there is no such connection (conn_ and 32 hex digits)")
