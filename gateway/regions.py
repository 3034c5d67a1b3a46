"""Where a tenant's things live: a region is one database and one keyring, with this process's workers for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from gateway.clock import Clock
from gateway.database import Database, Listener
from gateway.errors import NotFound
from gateway.settings import Settings
from gateway.stream.appender import Appender
from gateway.stream.upkeep import Upkeep
from gateway.traffic import Traffic
from gateway.vault.choose import Sealing
from gateway.vault.keyring import Keyring
from gateway.vault.openbao import OpenBao
from gateway.vault.tokens import TokenVault

DEFAULT = "default"
READERS = 4  # of the pool's ten connections


@dataclass(slots=True)
class Region:
    """One region, as this process serves it."""

    name: str
    database: Database
    # The follower's: it waits for no connection behind requests. Its read would be planned anew each time, with all days of
    # the log, while the statistics of today are not there; and with those of a quiet hour, a burst would be sorted whole.
    following: Database
    keyring: Keyring
    appender: Appender
    news: Listener  # wakes at every commit to the log
    upkeep: Upkeep
    sealing: Sealing
    traffic: Traffic
    # Every commit wakes every reader of the stream. Those that wait here find more to read when their turn comes; let
    # in at once, fifty took the whole pool and the event loop, and deliveries waited behind them.
    readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS))

    @classmethod
    def build(
        cls, name: str, dsn: str, keyring: Keyring, settings: Settings, clock: Clock, bao: OpenBao | None = None
    ) -> Region:
        """A region whose parts are not started yet. `bao`: of `choose.openbao`."""
        database = Database(dsn)
        return cls(
            name, database, Database(dsn, size=2, keeps_plans=True), keyring,
            Appender(database, clock, settings.commit_deadline_s),
            Listener(database, "posthouse_events", settings.poll_s),
            Upkeep(database, settings.retention_days),
            Sealing.of(name, database, keyring, settings, clock, bao),
            Traffic(database),
        )  # fmt: skip

    @property
    def tokens(self) -> TokenVault:
        """Where this region's tokens are sealed and opened."""
        return self.sealing.tokens

    async def open(self) -> None:
        """Connect, and begin to work.    Raises: SetupError, its key is another one; Unavailable."""
        await self.database.open()
        await self.following.open()
        await self.sealing.verify()
        await self.appender.start()
        await self.news.start()

    async def close(self) -> None:
        """Let queued deliveries finish, then disconnect."""
        await self.appender.stop()
        await self.news.stop()
        await self.following.close()
        await self.database.close()


class Regions:
    """The regions that this process serves, by name."""

    def __init__(self, regions: list[Region]) -> None:
        self._regions = {region.name: region for region in regions}

    def __iter__(self) -> Iterator[Region]:
        return iter(self._regions.values())

    def get(self, name: str) -> Region:
        """Raises: NotFound, this process does not serve that region."""
        try:
            return self._regions[name]
        except KeyError:
            raise NotFound("this process does not serve that region") from None

    def holds(self, name: str) -> bool:
        return name in self._regions

    @property
    def home(self) -> Region:
        """The only region, or the first: where a call that names no tenant is answered."""
        return next(iter(self._regions.values()))


def account_hash(keyring: Keyring, integration: UUID, account: str) -> UUID:
    """What is stored of an account's key: a keyed hash under the *control* keyring, the same in every region."""
    return keyring.mac_id("account", integration.bytes + account.encode("utf-8", "surrogatepass"))


def subject_hash(keyring: Keyring, integration: UUID, subject: str) -> UUID:
    """What is stored of `Identity.subject` (connections.subject_hash): a keyed hash under the *control* keyring."""
    return keyring.mac_id("subject", integration.bytes + subject.encode("utf-8", "surrogatepass"))


def reach_hash(keyring: Keyring, integration: UUID, reach: str) -> UUID:
    """What is stored of `Identity.reach` (grants.reach_hash): a keyed hash under the *control* keyring.

    Whoever stores it says so in control first (`connections.store.hint`, as for accounts), so that the end of another
    connection finds in which regions it may be shared.
    """
    return keyring.mac_id("reach", integration.bytes + reach.encode("utf-8", "surrogatepass"))
