"""A breaker, as rules: what a call's end says of its way, when that is shut, when one call is tried, and what opens it again.

    failing         no usable answers: at least 5 failures within 30 s, and half of the calls. One call (a canary) is tried
                    after 1 s, then after pauses that double up to 15 s, with full jitter but never within a second; three that
                    pass one after the other, a second apart, and the way is as before
    limited         the provider said when to come again: nothing is tried before that, to the second; one that passes will do
    misconfigured   it refuses the integration itself (an incident): one call after 60 s, doubling to 600 s; one that is
                    answered otherwise will do, and a changed set-up is tried at once

Pure: time and chance are arguments.

aiobreaker, pybreaker and purgatory were looked at: their breakers belong to one process or are shared through Redis, which we
have not, and as documented none tells a rate limit or a refused client from an outage, or gives one canary to all
processes. What would be left to take over are the lines of `Window`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from providers.errors import Misconfigured, NotAllowed, OddAnswer, ProviderError, RateLimited, Unreachable

Trouble = Literal["failing", "limited", "misconfigured"]
Heard = Literal["well", "failing", "limited", "misconfigured"]

WINDOW_S = 30.0
LEAST = 5  # failures in a window
SHARE = 0.5  # … of its calls
APART_S = 1.0  # a provider that is down is called no oftener
TROUBLES: tuple[Trouble, ...] = ("failing", "limited", "misconfigured")


@dataclass(frozen=True, slots=True)
class Pace:
    """Pauses between canaries, and how many must pass one after the other."""

    first_s: float
    most_s: float
    passes: int


PACES: dict[Trouble, Pace] = {
    "failing": Pace(APART_S, 15.0, 3),
    "limited": Pace(30.0, 3600.0, 1),  # where the provider does not say how long; and as long as it may say at most
    "misconfigured": Pace(60.0, 600.0, 1),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What comes after a call: the next canary in `wait_s`, or (`over`) the way is as before."""

    pause_s: float
    wait_s: float
    passed: int = 0
    over: bool = False


class Window:
    """What became of the calls of one way in the last 30 s, as one process saw it."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, bool]] = deque()
        self._failures = 0

    def add(self, failed: bool, now: float) -> None:
        """One more, at `now` (monotonic, seconds)."""
        self._ends.append((now, failed))
        self._failures += failed
        self._forget(now)

    def trips(self, now: float) -> bool:
        """Do so many fail that the rest had better not be tried?"""
        self._forget(now)
        return self._failures >= LEAST and self._failures >= SHARE * len(self._ends)

    def idle(self, now: float) -> bool:
        """Nothing is in it."""
        self._forget(now)
        return not self._ends

    def _forget(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now - WINDOW_S:
            self._failures -= self._ends.popleft()[1]


def heard(error: BaseException | None, *, chosen: bool = False) -> Heard | None:
    """What the end of a call says of its way; None: nothing, the fault is ours.

    `chosen`: its host is a user's choice; that we may not call there is no fault of the integration's.
    """
    match error:
        case None:
            return "well"
        case RateLimited():
            return "limited"
        case NotAllowed() if chosen:
            return "failing"
        case Misconfigured() | NotAllowed():
            return "misconfigured"
        case Unreachable() if error.code == "closed":  # we are going
            return None
        case Unreachable() | OddAnswer():
            return "failing"
        case ProviderError():  # an answer, about one grant
            return "well"
        case _:
            return None


def begun(trouble: Trouble, told_s: float | None, chance: float) -> Turn:
    """A way is shut. `told_s`: the provider's Retry-After."""
    return _next(trouble, PACES[trouble].first_s, told_s, chance)


def answered(
    trouble: Trouble, pause_s: float, passed: int, said: Heard | None, told_s: float | None, chance: float
) -> Turn:
    """A canary of a way that is shut has ended.    `pause_s`, `passed`: as they were before."""
    pace = PACES[trouble]
    if said == trouble:
        return _next(trouble, min(2 * pause_s, pace.most_s), told_s, chance)
    if said is None:
        return Turn(pause_s, APART_S, passed)
    if trouble == "misconfigured" and said != "well":  # it did not come as far as to say
        return Turn(pause_s, pace.first_s)
    return Turn(pace.first_s, APART_S, passed + 1, over=passed + 1 >= pace.passes)


def _next(trouble: Trouble, pause_s: float, told_s: float | None, chance: float) -> Turn:
    if trouble == "limited" and told_s is not None:
        pause_s = min(max(told_s, APART_S), PACES[trouble].most_s)
        return Turn(PACES[trouble].first_s, pause_s)
    if trouble == "failing":
        return Turn(pause_s, APART_S + chance * (pause_s - APART_S))
    return Turn(pause_s, pause_s)
