"""Access tokens that were opened a moment ago, in a bounded memory. Never used without a check.

A check says which generation and token version is current, and (connection, access profile, generation, version) names
one token set for ever: so what is in here can be of no use any more, but never another's. It saves opening the seal
each time; in KV mode that is a call of the secrets manager.
"""

from __future__ import annotations

from uuid import UUID

from gateway.clock import Clock

TTL_S = 300.0  # as long as an opened data key serves
MOST = 20_000  # about 20 MB

Key = tuple[UUID, str, int, int]  # connection, access profile, generation, token version


class Opened:
    """The opened tokens of one process."""

    def __init__(self, clock: Clock, ttl_s: float = TTL_S, most: int = MOST) -> None:
        self._clock, self._ttl_s, self._most = clock, ttl_s, most
        self._known: dict[Key, tuple[float, str]] = {}  # oldest first

    def __repr__(self) -> str:
        return f"Opened({len(self._known)} tokens)"

    def get(self, key: Key) -> str | None:
        known = self._known.get(key)
        if known is None:
            return None
        if self._clock.monotonic() - known[0] >= self._ttl_s:
            del self._known[key]
            return None
        return known[1]

    def put(self, key: Key, token: str) -> None:
        """Keep it for a while; those that are over, and where there are too many the oldest, make room."""
        now = self._clock.monotonic()
        self._known.pop(key, None)
        while self._known:
            oldest = next(iter(self._known))
            if len(self._known) < self._most and now - self._known[oldest][0] < self._ttl_s:
                break
            del self._known[oldest]
        self._known[key] = (now, token)
