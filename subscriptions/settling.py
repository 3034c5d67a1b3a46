"""What comes of units, written many at a time: whatever has ended since the last statement shares the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.batches import Batches
from gateway.database import Database
from subscriptions import store
from subscriptions.store import LEASE_S, Settled

MOST = 512  # units in one statement


class Settling(Batches[Settled, bool]):
    """The ends of one process's units in one region. What cannot be written before its lease is over comes again."""

    name = "settling"

    def __init__(self, database: Database, deadline_s: float = LEASE_S / 2, late_s: float = 5.0) -> None:
        super().__init__(database, deadline_s, late_s, MOST, MOST)

    async def write(self, connection: Any, asked: Sequence[Settled], *, again: bool) -> Sequence[bool]:
        """Whether each was still ours."""
        ours = await store.settle(connection, asked)
        return [one.connection in ours for one in asked]
