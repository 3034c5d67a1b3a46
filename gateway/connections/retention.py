"""What of connections' past is kept, and for how long: run hourly by every process; who comes second finds nothing."""

from __future__ import annotations

from gateway.connections import conditions, history, rotations
from gateway.database import Database


class Retention:
    """Of one region."""

    def __init__(self, database: Database, history_days: int) -> None:
        self._database, self._history_days = database, history_days

    async def run_once(self) -> None:
        """Drop histories and rotations that are older, and failures from which no usual rate is taken any more.    Raises: Unavailable."""
        await history.forget(self._database, self._history_days)
        await rotations.forget(self._database, self._history_days)
        await conditions.forget(self._database)
