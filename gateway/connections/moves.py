"""What is said of grants, on its way to the machine: a signal with its fence and its reason (`Move`), or weak evidence (`Hint`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from gateway.connections.checks import Why
from gateway.connections.conditions import ErrorClass
from gateway.connections.fences import Fence
from gateway.connections.history import Outcome
from gateway.connections.machine import Signal
from gateway.connections.rotations import Reuse
from gateway.connections.states import State
from gateway.connections.telling import Because

CHECKED: frozenset[State] = frozenset({"active", "suspect", "suspended"})  # in others a check could tell nothing
CONFIRM_AFTER_S = 600.0  # a terminal answer during an outage is not proof: a second one, this much later, is

NewId = Callable[[], UUID]
Save = Callable[[State, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A provider's answer that would end a grant: counted by the guard before it moves anything."""

    provider: str  # whose condition counts
    error_class: ErrorClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One signal about one grant."""

    connection: UUID
    access_profile: str | None  # None: the connection itself, which has no grants
    signal: Signal
    because: Because
    fence: Fence
    reason: str | None = None  # of the state that it comes into
    provider: str = ""  # whose condition counts for a check of it; "": nothing can check it
    failure: Failure | None = None
    again_in_s: float | None = None  # with `doubted`: when a check is to look again
    say: str | None = None  # names the event for when the connection's state stays
    also: str | None = None  # names one that is said in any case
    # Writes the grant with the state that was decided, where more than the state changes. Called under the lock, unless
    # the signal is stale or illegal.
    save: Save | None = field(default=None, repr=False)
    reuse: Reuse | None = None  # where it counts, it shows that somebody else has the refresh token
    confirms: bool = False  # a check found a contested signal true: it was heard before, and counts now
    made: tuple[int, int] | None = None  # the generation and token version that `save` writes


@dataclass(frozen=True, slots=True)
class Hint:
    """Weak evidence about a grant: a check is asked for, and nothing else is said."""

    connection: UUID
    access_profile: str
    because: Because
    provider: str
    why: Why = "hint"
    signal: Signal | None = None  # `scopes_changed`: new tokens are to be had, even where the old ones work


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a move. `already`: this very signal was heard before; `absent`: there is no such grant (any more)."""

    outcome: Outcome | Literal["already", "absent"]
    state: State | None = None
