"""What marked events mean for grants here: each becomes moves and hints for the machine. Two look-ups for a whole batch.

An interpreter is a provider's pure function; whatever it raises sets its event aside, and nobody else's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from gateway.catalog import Catalog, Integration
from gateway.connections import grants, store
from gateway.connections.fences import Fence
from gateway.connections.grants import Grant
from gateway.connections.machine import Signal as Told
from gateway.connections.moves import Hint, Move
from gateway.connections.telling import Because
from gateway.database import Db
from gateway.follower import store as log
from gateway.follower.store import Marked
from gateway.regions import account_hash
from gateway.vault.keyring import Keyring
from providers.signals import Said, Says, Signal

DELIVERY = "posthouse.delivery."
MOVES: dict[Says, Told] = {"revoked": "revoked", "suspended": "suspended", "resumed": "resumed"}


@dataclass(slots=True)
class Meant:
    """What an event comes to; `error`: it could not be digested."""

    event: Marked
    connections: frozenset[UUID]
    moves: list[Move] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Heard:
    """An event with what its provider's interpreter says of it."""

    meant: Meant
    integration: Integration
    signals: Sequence[Signal]


class Meaning:
    """Interprets events, for one process."""

    def __init__(self, catalog: Catalog, keyring: Keyring) -> None:
        self._catalog, self._keyring = catalog, keyring

    async def of(self, db: Db, events: Sequence[tuple[Marked, frozenset[UUID]]]) -> list[Meant]:
        """What these events mean for the connections that are named beside each.    Raises: Unavailable."""
        await self._know({event.integration_id for event, _ in events})
        meant = [Meant(event, connections) for event, connections in events]
        heard = [one for one in map(self._heard, meant) if one is not None]
        concerned = {connection for one in heard for connection in one.meant.connections}
        if not concerned:
            return meant
        held: dict[UUID, list[Grant]] = {connection: [] for connection in concerned}
        for grant in await grants.of(db, concerned):
            held[grant.connection_id].append(grant)
        named = {hash for one in heard for signal in one.signals for hash in self._hashes(one.integration, signal)}
        accounts = await log.accounts(db, concerned, named)
        for one in heard:
            for signal in one.signals:
                self._aim(one, signal, held, accounts)
        return meant

    async def _know(self, integrations: set[UUID | None]) -> None:
        """Look once more before an integration is taken for removed: another process may have declared it just now."""
        if any(id is not None and self._catalog.integration_by_id(id) is None for id in integrations):
            await self._catalog.refresh()

    async def resolved(self, db: Db, event: Marked) -> frozenset[UUID]:
        """The connections of an event that matched none when it came.    Raises: Unavailable."""
        if event.integration_id is None:
            return frozenset()
        return frozenset(await store.known_by(db, event.integration_id, event.accounts))

    def _heard(self, meant: Meant) -> _Heard | None:
        """None: it says nothing, is not a delivery, its integration is gone; or it could not be digested."""
        event = meant.event
        integration = None if event.integration_id is None else self._catalog.integration_by_id(event.integration_id)
        if integration is None or integration.provider.interpret is None or not meant.connections:
            return None
        prefix = f"{DELIVERY}{integration.provider.facts.name}."
        if not event.type.startswith(prefix):
            return None
        try:
            said = _said(event, event.type.removeprefix(prefix), integration)
            return _Heard(meant, integration, integration.provider.interpret(said))
        except Exception as error:  # whatever it stumbles over is this event's affair, and stops nobody else's
            meant.error = str(getattr(error, "reason", type(error).__name__))[:64]
            return None

    def _hashes(self, integration: Integration, signal: Signal) -> list[UUID]:
        return [account_hash(self._keyring, integration.id, account) for account in signal.accounts]

    def _aim(
        self, heard: _Heard, signal: Signal, held: Mapping[UUID, list[Grant]], accounts: Mapping[UUID, set[UUID]]
    ) -> None:
        meant, hashes = heard.meant, set(self._hashes(heard.integration, signal))
        for connection in sorted(meant.connections):
            if hashes and not hashes & accounts.get(connection, set()):
                continue
            if not held[connection]:  # one that the platform registered: it stands for itself
                if signal.profiles is None and signal.knows != "token":
                    self._say(heard, signal, connection, None)
                continue
            for grant in held[connection]:
                if _is_meant(signal, grant, meant.event):
                    self._say(heard, signal, connection, grant)

    def _say(self, heard: _Heard, signal: Signal, connection: UUID, grant: Grant | None) -> None:
        event, integration = heard.meant.event, heard.integration
        because = Because(
            cause=signal.reason, source="delivery", evidence=event.id, occurred_at=signal.at or event.time
        )
        profile = None if grant is None else grant.access_profile
        if signal.says in MOVES:
            heard.meant.moves.append(Move(
                connection=connection, access_profile=profile, signal=MOVES[signal.says], because=because,
                fence=_fence(signal, grant, integration), reason=signal.reason,
                provider="" if grant is None else integration.condition,
            ))  # fmt: skip
        elif profile is not None:
            changed: Told | None = "scopes_changed" if signal.says == "scopes_changed" else None
            heard.meant.hints.append(Hint(connection, profile, because, integration.condition, signal=changed))


def _said(event: Marked, name: str, integration: Integration) -> Said:
    told: dict[str, Any] = {} if event.delivery is None else json.loads(event.delivery)
    return Said(
        event=name, data=event.data, content_type=event.content_type, headers=told.get("headers", {}),
        settings=integration.settings, client_id=integration.client_id,
    )  # fmt: skip


def _is_meant(signal: Signal, grant: Grant, event: Marked) -> bool:
    if signal.profiles is not None and grant.access_profile not in signal.profiles:
        return False
    if signal.kinds is not None and grant.kind not in signal.kinds:
        return False
    return signal.knows != "token" or bool(set(grant.marks) & set(event.accounts))


def _fence(signal: Signal, grant: Grant | None, integration: Integration) -> Fence:
    """How the signal knows its generation."""
    if signal.knows == "final":
        return Fence(final=True)
    if signal.knows == "token" and grant is not None:
        return Fence(generation=grant.generation)  # it holds the very token that is named
    return Fence(at=signal.at if signal.knows == "time" else None, margin_s=integration.provider.facts.clock_margin_s)
