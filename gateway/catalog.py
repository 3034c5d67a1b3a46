"""What a process keeps of control in memory: integrations with their secrets opened, and API keys by their hash.

`control.state.revision` moves with every change; a process looks at it every `poll_s`, and where it moved reads all
again in one snapshot and swaps it in at once. So memory is at most about half a second old while control is up. While
control is away memory goes on for `stale_control_s`; after that every question is answered with `Unavailable`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError

from gateway.access import keys
from gateway.access.keys import ApiKey
from gateway.clock import Clock
from gateway.database import Database
from gateway.errors import Unavailable
from gateway.integrations import secrets, store
from gateway.integrations.profiles import AccessProfile, as_json
from gateway.integrations.secrets import SealedSecret
from gateway.integrations.store import Stored
from gateway.integrations.wanted import PURPOSES, Purpose, Unattributed, signing_purpose
from gateway.loop import every
from gateway.settings import Settings
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from providers.contract import Delivery, Facts, Item, KeySource, Trust, Verified
from providers.errors import NotConfigured
from providers.registry import NoSettings, Provider, all_providers

log = structlog.get_logger(__name__)

NOTE_EVERY = timedelta(minutes=1)  # how exact `last_used_at` of a key is


@dataclass(frozen=True, slots=True)
class Integration:
    """An integration, ready for use. Its repr shows no secret."""

    id: UUID
    name: str
    provider: Provider
    region: str
    client_id: str | None
    settings: dict[str, Any]
    unattributed: Unattributed
    trust: Trust  # app-wide: of deliveries to /hooks/{integration}
    access_profiles: Mapping[str, AccessProfile] = field(default_factory=dict)
    return_urls: tuple[str, ...] = ()
    client_secrets: tuple[bytes, ...] = field(default=(), repr=False)  # newest first
    keys_at: KeySource | None = None  # where the public keys are published that it trusts
    setup: UUID | None = None  # a keyed hash of what its provider must agree with: another one, and it was changed
    trouble: str | None = None  # why it cannot be used: it trusts nothing then, and its deliveries get a 503

    @property
    def condition(self) -> str:
        """Whose condition counts for it: its provider's, or its own where each integration has a server of its own."""
        facts = self.provider.facts
        return facts.name if facts.one_service else f"{facts.name}:{self.name}"


@dataclass(frozen=True, slots=True)
class _Snapshot:
    revision: int = -1
    by_name: Mapping[str, Integration] = field(default_factory=dict)
    by_id: Mapping[UUID, Integration] = field(default_factory=dict)
    keys: Mapping[bytes, ApiKey] = field(default_factory=dict, repr=False)
    live: frozenset[ApiKey] = frozenset()  # the same
    asked: dict[bytes, ApiKey] = field(default_factory=dict, repr=False)  # by plain hash: those that came already


class Catalog:
    """Control as this process knows it."""

    def __init__(
        self,
        control: Database,
        keyring: Keyring,
        clock: Clock,
        settings: Settings,
        providers: Mapping[str, Provider] | None = None,
    ) -> None:
        self._control, self._keyring, self._clock = control, keyring, clock
        self._poll_s, self._stale_s = settings.poll_s, settings.stale_control_s
        self._providers = all_providers() if providers is None else providers
        self._now = _Snapshot()
        self._seen_at = float("-inf")  # when control was last known to be as in memory (monotonic)
        self._away = False
        self._reading = asyncio.Lock()  # an older snapshot never replaces a newer one
        self._used: dict[UUID, datetime] = {}  # keys used since they were last noted
        self._noted: dict[UUID, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read control once, then keep looking.    Raises: Unavailable."""
        await self.refresh()
        self._task = asyncio.create_task(every(self._poll_s, self.run_once, name="catalog"))

    async def close(self) -> None:
        """Stop looking. What is in memory stays, and ages."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def refresh(self) -> None:
        """Read control now, so that this process sees what it just wrote.    Raises: Unavailable."""
        async with self._reading:
            asked_at = self._clock.monotonic()
            async with self._control.transaction("repeatable_read") as tx:
                revision = await tx.fetchval("SELECT revision FROM control.state")
                rows, sealed = await store.all_rows(tx), await secrets.all_secrets(tx)
                live = await keys.live(tx, self._clock.now())
            self._now = self._snapshot(revision, rows, sealed, live)
            self._seen_at = asked_at

    async def run_once(self) -> None:
        """Look whether control moved, and read it again if so; note which keys were used."""
        asked_at = self._clock.monotonic()
        try:
            revision = await self._control.fetchval("SELECT revision FROM control.state")
            if revision == self._now.revision:
                self._seen_at = max(self._seen_at, asked_at)
            else:
                await self.refresh()
            await self._note_used()
        except Unavailable:
            self._tell(away=True)
        else:
            self._tell(away=False)

    @property
    def revision(self) -> int:
        """Of control, as it is in memory: it grows with every change."""
        return self._now.revision

    def integration(self, name: str) -> Integration | None:
        """By the name in its URL.    Raises: Unavailable, memory is too old."""
        return self._current().by_name.get(name)

    async def look_up(self, name: str) -> Integration | None:
        """As `integration`; where memory does not know it, control is looked at first.    Raises: Unavailable.

        So whoever asks right after `posthouse apply` is not told that there is no such integration. For callers with an
        API key: a name that does not exist costs a query.
        """
        if (found := self.integration(name)) is not None:
            return found
        await self.run_once()
        return self.integration(name)

    def integration_by_id(self, id: UUID) -> Integration | None:
        """Raises: Unavailable, memory is too old."""
        return self._current().by_id.get(id)

    def integrations(self) -> list[Integration]:
        """All of them, by name.    Raises: Unavailable, memory is too old."""
        return list(self._current().by_name.values())

    def api_key(self, token: str, now: datetime) -> ApiKey | None:
        """Whose token this is; None where it is nobody's, or its time is over.    Raises: Unavailable."""
        snapshot = self._current()
        digest = blake2b(token.encode("utf-8", "replace"), digest_size=32).digest()  # a third of the MAC's cost
        key = snapshot.asked.get(digest)
        if key is None:
            key = snapshot.keys.get(keys.hash_of(self._keyring, token))
            if key is not None:
                snapshot.asked[digest] = key
        if key is None or (key.expires_at is not None and key.expires_at <= now):
            return None
        self._used[key.id] = now
        return key

    def opens(self, key: ApiKey, now: datetime) -> bool:
        """Whether `key` opens the door still; asked by answers that do not end.    Raises: Unavailable."""
        return key in self._current().live and (key.expires_at is None or now < key.expires_at)

    def _current(self) -> _Snapshot:
        if self._clock.monotonic() - self._seen_at > self._stale_s:
            raise Unavailable("the control database is away")
        return self._now

    def _tell(self, *, away: bool) -> None:
        if away != self._away:
            self._away = away
            log.log(30 if away else 20, "control.away" if away else "control.back", stale_limit_s=self._stale_s)

    async def _note_used(self) -> None:
        due = {
            key: at for key, at in self._used.items() if key not in self._noted or at >= self._noted[key] + NOTE_EVERY
        }
        if due:
            async with self._control.transaction() as tx:
                await keys.note_used(tx, due)
            self._noted.update(due)
        self._used = {key: at for key, at in self._used.items() if at > self._noted[key]}

    def _snapshot(
        self, revision: int, rows: list[Stored], sealed: list[SealedSecret], live: Mapping[bytes, ApiKey]
    ) -> _Snapshot:
        of: dict[UUID, list[SealedSecret]] = {}
        for secret in sealed:
            of.setdefault(secret.integration_id, []).append(secret)
        made = [self._integration(row, of.get(row.id, [])) for row in rows]
        for broken in made:
            if broken.trouble is not None:
                log.error(
                    "integration.unusable",
                    integration=broken.name,
                    provider=broken.provider.facts.name,
                    why=broken.trouble,
                )
        return _Snapshot(
            revision,
            {integration.name: integration for integration in made},
            {integration.id: integration for integration in made},
            live,
            frozenset(live.values()),
        )

    def _integration(self, row: Stored, sealed: list[SealedSecret]) -> Integration:
        provider = self._providers.get(row.provider) or _unknown(row.provider)
        settings = dict(row.settings)
        opened: dict[Purpose, tuple[bytes, ...]] = {}
        trouble = keys_at = None
        try:
            if row.provider not in self._providers:
                raise NotConfigured("this version of posthouse does not know its provider")
            settings = provider.settings.model_validate(settings).model_dump(mode="json")
            keys_at = provider.keys_at(settings)
            opened = {of: tuple(self._open(secret) for secret in sealed if secret.purpose == of) for of in PURPOSES}
        except SealBroken as error:
            trouble = f"a secret does not open: {error}"
        except ValidationError:
            trouble = f"its settings do not fit provider {row.provider}"
        except NotConfigured as error:
            trouble = error.detail
        return Integration(
            id=row.id, name=row.name, provider=provider, region=row.region, client_id=row.client_id,
            settings=settings, unattributed=row.unattributed, trouble=trouble,
            access_profiles=row.access_profiles, return_urls=row.return_urls,
            client_secrets=opened.get("client_secrets", ()), keys_at=keys_at,
            setup=self._setup(row, opened.get("client_secrets", ())),
            trust=Trust(secrets=opened.get(signing_purpose(provider), ()), endpoint=False, settings=settings, client_id=row.client_id),
        )  # fmt: skip

    def _setup(self, row: Stored, client_secrets: tuple[bytes, ...]) -> UUID:
        told = [row.client_id, [secret.hex() for secret in client_secrets], row.settings, as_json(row.access_profiles)]
        return self._keyring.mac_id("setup", json.dumps(told, sort_keys=True).encode())

    def _open(self, secret: SealedSecret) -> bytes:
        aad = secrets.secret_aad(secret.integration_id, secret.purpose, secret.id)
        return self._keyring.open(secret.sealed, aad)


def _unknown(name: str) -> Provider:
    """Stands in for a provider that this version lacks (a newer process declared it): it trusts nothing."""

    def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
        raise NotConfigured

    def items(delivery: Delivery, verified: Verified) -> list[Item]:
        raise NotConfigured

    return Provider(
        facts=Facts(name=name, title=name, docs_url=""), settings=NoSettings, verify=verify, items=items,
        challenge=None, handshake=None, interpret=None, redact=None, check_secret=None,
        decline=None, key_source=None,
        guarded_headers=frozenset(), kept_headers=frozenset(),
    )  # fmt: skip
