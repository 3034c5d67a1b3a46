"""Making control be what a file declares: whole or not at all, and nothing the second time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from gateway.database import Db
from gateway.errors import Conflict
from gateway.integrations import secrets, store
from gateway.integrations.secrets import Moved, SealedSecret
from gateway.integrations.store import CHANGEABLE, Stored
from gateway.integrations.wanted import PURPOSES, Purpose, Wanted
from gateway.vault.keyring import Keyring

# "left": declared by file once, no longer in it, and not removed because nobody said prune.
Action = Literal["created", "changed", "unchanged", "removed", "left"]


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one integration. Names and numbers, never values."""

    name: str
    provider: str
    action: Action
    fields: tuple[str, ...] = ()  # which of them differ
    secrets: Mapping[Purpose, Moved] = field(default_factory=dict)

    def line(self) -> str:
        """One line for people, e.g. `changed    my-slack (slack): settings, signing_secrets 2 (+1 -0)`."""
        told = [name for name in self.fields if name not in PURPOSES]
        for purpose, moved in self.secrets.items():
            if moved.anything or (self.action == "created" and moved.total):
                order = " reordered" if moved.reordered else ""
                told.append(f"{purpose} {moved.total} (+{moved.added} -{moved.removed}{order})")
        if self.action == "left":
            told.append("no longer in the file; --prune removes it")
        return f"{self.action:<10} {self.name} ({self.provider})" + (": " + ", ".join(told) if told else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply did, or would do."""

    changes: tuple[Change, ...]
    gone: tuple[UUID, ...] = ()  # removed by this apply: their hook endpoints are the caller's to retire

    def of(self, action: Action) -> list[Change]:
        return [change for change in self.changes if change.action == action]

    @property
    def empty(self) -> bool:
        """Nothing to do: control is as declared (what is `left` aside)."""
        return all(change.action in ("unchanged", "left") for change in self.changes)


async def apply(
    tx: Db, declared: Sequence[Wanted], keyring: Keyring, now: datetime, *, prune: bool = False, dry_run: bool = False
) -> Plan:
    """Make control hold exactly the `checked` integrations of a file (those made by API aside).

    An exception leaves nothing done, as the caller's transaction rolls back.    Raises: Conflict.
    """
    if not dry_run:
        await store.lock(tx)
    there = {row.name: row for row in await store.all_rows(tx)}
    sealed = await secrets.all_secrets(tx)
    changes, removed = [], []
    for wanted in sorted(declared, key=lambda one: one.name):
        current = there.pop(wanted.name, None)
        change = _created(wanted) if current is None else _compared(keyring, current, sealed, wanted)
        if not dry_run:
            await _make(tx, keyring, current, wanted, change, now)
        changes.append(change)
    for gone in there.values():
        if gone.declared_by != "file":
            continue
        changes.append(Change(gone.name, gone.provider, "removed" if prune else "left"))
        if prune and not dry_run:
            removed.append((await store.delete(tx, gone.id, by="file")).id)
    return Plan(tuple(changes), tuple(removed))


def _created(wanted: Wanted) -> Change:
    moved = {purpose: Moved(len(of), added=len(of)) for purpose, of in wanted.secrets.items()}
    return Change(wanted.name, wanted.provider, "created", secrets=moved)


def _compared(keyring: Keyring, current: Stored, sealed: Sequence[SealedSecret], wanted: Wanted) -> Change:
    store.refuse_others(current, "file")
    if wanted.provider != current.provider:
        raise Conflict(f"integration {current.name!r} is of {current.provider}: prune it before it becomes another's")
    fields = [name for name in CHANGEABLE if getattr(current, name) != getattr(wanted, name)]
    moved: dict[Purpose, Moved] = {}
    for purpose in PURPOSES:
        held = [row for row in sealed if row.integration_id == current.id and row.purpose == purpose]
        moved[purpose] = secrets.compare(keyring, current.id, purpose, held, wanted.secrets.get(purpose, ()))
        if moved[purpose].anything:
            fields.append(purpose)
    return Change(wanted.name, wanted.provider, "changed" if fields else "unchanged", tuple(fields), moved)


async def _make(
    tx: Db, keyring: Keyring, current: Stored | None, wanted: Wanted, change: Change, now: datetime
) -> None:
    if current is None:
        await store.create(tx, keyring, wanted, now, by="file")
    elif change.action == "changed":
        await store.save(tx, current, wanted, now, by="file")  # also notes when, if only its secrets changed
        for purpose in PURPOSES:
            if purpose in change.fields:
                await secrets.put(tx, keyring, current.id, purpose, wanted.secrets.get(purpose, ()), now)
