"""How many calls a second go to one provider, and how many of them may be second tries. Pure: the clock is an argument.

A bucket of tokens that holds a second's worth. Calls for a user may wait for their token a moment: they take one that is
yet to come. Calls ahead of time do not, and leave a fifth of the bucket to users. Processes share what the settings allow in
equal parts: who is idle wastes its share, which is cheaper than asking each other for every call.

aiolimiter and pyrate-limiter were looked at: they wait, or say no without saying until when, neither leaves a share to users,
and what pyrate-limiter shares (Redis, PostgreSQL through another driver) costs a write a call.
"""

from __future__ import annotations

BURST_S = 1.0
USERS_SHARE = 0.2
RETRY_SHARE = 0.2  # of calls may be retries …
RETRY_FLOOR = 2.0  # … and two a second in any case, of all processes together
RETRY_BURST = 10.0
TINY = 1e-9  # what adding fractions loses


class Budget:
    """One provider's, in one process."""

    def __init__(self, calls_per_s: float, now: float) -> None:
        self._whole, self._live, self._at = calls_per_s, 1, now
        self._left, self._retries = self.holds, RETRY_BURST

    @property
    def rate(self) -> float:
        """Calls a second: this process's share."""
        return self._whole / self._live

    @property
    def holds(self) -> float:
        """How many calls may go at once after a pause."""
        return max(1.0, self.rate * BURST_S)

    def share(self, live: int, now: float) -> None:
        """So many processes call this provider."""
        if live != self._live:
            self._refill(now)
            self._live = max(live, 1)
            self._left = min(self._left, self.holds)

    def take(self, now: float, *, ahead: bool = False, again: bool = False, most_wait_s: float = 0.0) -> float | None:
        """One call: in how many seconds it may go; None: not within `most_wait_s`, and nothing is taken.

        `again`: the last try of the same failed.
        """
        wait_s = self.back_in_s(now, ahead=ahead, again=again)
        if wait_s > (0.0 if ahead else most_wait_s):
            return None
        self._left -= 1
        self._retries = self._retries - 1 if again else min(RETRY_BURST, self._retries + RETRY_SHARE)
        return wait_s

    def ahead(self, now: float) -> int:
        """How many calls ahead of time may go now."""
        self._refill(now)
        return max(0, int(self._left - self._kept + TINY))

    def back_in_s(self, now: float, *, ahead: bool = False, again: bool = False) -> float:
        """When such a call may go, in seconds."""
        self._refill(now)
        token_s = (1 + (self._kept if ahead else 0) - self._left - TINY) / self.rate
        retry_s = (1 - self._retries - TINY) / (RETRY_FLOOR / self._live) if again else 0.0
        return max(0.0, token_s, retry_s)

    def left(self, now: float) -> float:
        """Calls that may go at once."""
        self._refill(now)
        return max(0.0, self._left)

    @property
    def _kept(self) -> float:
        """For users. A bucket that holds one call is everybody's."""
        return self.holds * USERS_SHARE if self.holds > 1 else 0.0

    def _refill(self, now: float) -> None:
        passed_s = max(0.0, now - self._at)
        self._at = now
        self._left = min(self.holds, self._left + passed_s * self.rate)
        self._retries = min(RETRY_BURST, self._retries + passed_s * RETRY_FLOOR / self._live)
