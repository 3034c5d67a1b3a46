"""The core with one of its cautions taken out. Each must turn the stories red, or the stories prove nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from gateway.connections.grants import Name
from gateway.database import Db
from gateway.tokens import draining, intent, leases, refresh
from gateway.tokens.leases import Lease, Open
from gateway.tokens.rotation import Due
from providers.oauth import OAuthFacts

Patch = pytest.MonkeyPatch


def lease(patch: Patch) -> None:
    """Whoever wants to refresh does."""
    everybody = leases.CLAIM.replace(" WHERE r.fence = $7\n", "\n WHERE $7::bigint IS NOT NULL\n")
    assert everybody != leases.CLAIM
    patch.setattr(leases, "CLAIM", everybody)
    patch.setattr(Open, "is_under_way", property(lambda _: False))


def look_again(patch: Patch) -> None:
    """What was seen before the lease was had is taken for what there is."""

    async def again(_: Any, due: Due) -> Due:
        return due

    patch.setattr(refresh.Refresher, "_look_again", again)


def sent(patch: Patch) -> None:
    """Nobody writes down that a byte may leave."""

    async def unwritten(db: Db, lease: Lease) -> bool:
        return True

    patch.setattr(leases, "sent", unwritten)


def grace(patch: Patch) -> None:
    """The answer of a process that is silent is given up at once."""
    careful = intent.wait_s

    def wait_s(open: Open, facts: OAuthFacts, kind: str, process: UUID, spool_grace_s: float) -> float:
        return careful(open, facts, kind, process, 0.0)

    patch.setattr(intent, "wait_s", wait_s)


def heard_of(patch: Patch) -> None:
    """A process that is held up is taken for dead, and its spool for lost."""
    careful = intent.wait_s

    def wait_s(open: Open, facts: OAuthFacts, kind: str, process: UUID, spool_grace_s: float) -> float:
        return careful(replace(open, holder_silent_s=spool_grace_s), facts, kind, process, spool_grace_s)

    patch.setattr(intent, "wait_s", wait_s)


def lost(patch: Patch) -> None:
    """An answer that did not come is a refresh that failed."""
    patch.setattr(refresh, "_is_lost", lambda _: False)


def spool(patch: Patch) -> None:
    """What lies in the spool stays there."""

    async def never(_: Any) -> int:
        return 0

    patch.setattr(draining.Drain, "run_once", never)


def newer(patch: Patch) -> None:
    """Whoever has a token set writes it, though somebody else has asked for a newer one."""
    careful = leases.ended

    async def ended(tx: Db, name: Name, seen: tuple[int, int], fence: int | None) -> bool:
        try:
            return await careful(tx, name, seen, fence)
        except leases.NotNow:
            return False

    patch.setattr(leases, "ended", ended)


MUTATIONS: tuple[Callable[[Patch], None], ...] = (lease, look_again, sent, grace, heard_of, lost, spool, newer)
