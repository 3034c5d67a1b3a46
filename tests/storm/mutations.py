"""The core with one of its cautions taken out. Each must turn the stories red, or the stories prove nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from gateway.database import Db
from gateway.tokens import intent, leases, trouble
from gateway.tokens.leases import Lease, Open
from providers.oauth import OAuthFacts

Patch = pytest.MonkeyPatch


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
    patch.setattr(trouble, "is_lost", lambda _: False)


MUTATIONS: tuple[Callable[[Patch], None], ...] = (sent, grace, heard_of, lost)
