"""Which key backend, and where tokens lie, as the settings say: the only place that knows what there is to choose from."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from gateway.clock import Clock
from gateway.database import Database
from gateway.errors import SetupError
from gateway.settings import Settings
from gateway.vault import checks
from gateway.vault.backend import KeyBackend, LocalKeys
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Keyring
from gateway.vault.kv import KvBlobs
from gateway.vault.openbao import OpenBao
from gateway.vault.proof import Checked
from gateway.vault.sweep import Sweep
from gateway.vault.tokens import TokenVault
from gateway.vault.transit import TransitKeys
from gateway.vault.transport import Unreached

log = structlog.get_logger(__name__)


def openbao(settings: Settings, clock: Clock) -> OpenBao | None:
    """The client, where one is needed or named.    Raises: SetupError."""
    if settings.vault_addr is None and settings.uses_vault:
        raise SetupError(
            "POSTHOUSE_KEY_BACKEND or POSTHOUSE_TOKEN_STORE needs Vault / OpenBao: set POSTHOUSE_VAULT_ADDR"
        )
    return None if settings.vault_addr is None else OpenBao(settings, clock)


@dataclass(slots=True)
class Sealing:
    """How one region seals: its token vault, and what must be looked at now and then."""

    region: str
    database: Database
    tokens: TokenVault
    backend: KeyBackend
    blobs: KvBlobs | None
    into_blobs: bool
    sweep: Sweep | None

    @classmethod
    def of(
        cls, region: str, database: Database, keyring: Keyring, settings: Settings, clock: Clock, bao: OpenBao | None
    ) -> Sealing:
        """Nothing is asked yet. `bao`: what `openbao` gave, opened before `verify`."""
        backend: KeyBackend = LocalKeys(keyring)
        if settings.key_backend == "transit":
            assert bao is not None
            backend = Checked(TransitKeys(bao, settings), database, region)
        # Rows written in KV mode are read also after it was switched off, while the server is named.
        blobs = None if bao is None else KvBlobs(bao, settings, region, keyring)
        into = settings.token_store == "kv"
        keys = DataKeys(region, database, backend, clock, settings.data_key_memory_s, settings.data_key_memory)
        sweep = None if blobs is None else Sweep(blobs, database, clock)
        return cls(region, database, TokenVault(keys, blobs, into_blobs=into), backend, blobs, into, sweep)

    @property
    def remote_keys(self) -> Checked | None:
        """The key backend, if it is at the other end of a line."""
        return self.backend if isinstance(self.backend, Checked) else None

    async def verify(self) -> None:
        """Are these the right key and a store that we may use? A server that is away is asked again before it is needed.

        Raises: SetupError, one line; nothing was written then. Unavailable: the database is away.
        """
        try:
            if self.remote_keys is not None:
                await self.remote_keys.verify()
            else:
                await checks.verify_region(self.database, self.region, self.backend)
            if self.blobs is not None and self.into_blobs:
                await self.blobs.prove()
        except Unreached as error:
            log.warning("vault.away", region=self.region, why=error)
