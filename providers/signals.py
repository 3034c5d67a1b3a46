"""What an item says about grants. A module that can tell has `interpret(said) -> Sequence[Signal]`: pure, like all of it.

The follower asks it for the items that `Item.signal` marked, finds the grants that a signal means, and fences it by what
the signal `knows` (PROTOCOLS 4). What no fence can place is checked at the provider before anything moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Says = Literal["revoked", "suspended", "resumed", "scopes_changed", "doubtful"]

# How a signal is known to be about the grant as it is now, and not about one that a later consent replaced:
#   time    a time inside what the provider signed, to be compared with the last proof that the grant lived
#   final   it names something that never comes back under that name (a GitHub installation)
#   token   it names the token itself
#   nothing replayed a month later it would look the same: contested until a probe has decided
Knows = Literal["time", "final", "token", "nothing"]


def known_by(at: datetime | None) -> Knows:
    """How a signal is known whose time was signed, and that is `at`: not at all, where no time can be read."""
    return "nothing" if at is None else "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tells:
    """One kind of item that can say something about grants: of `Facts.signals`, and a line of README's table."""

    event: str  # `Item.event`
    says: tuple[Says, ...]  # empty: nothing about a grant, though it is of the kind that could
    knows: Knows
    source: str  # where the provider documents it


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A verified item as it lies on the log. Its repr shows no body."""

    event: str  # `Item.event`
    data: bytes = field(repr=False)  # what `redact` blanks is blank
    content_type: str
    headers: Mapping[str, str] = field(repr=False)  # those that are kept
    settings: Mapping[str, Any] = field(repr=False, default_factory=dict)  # the integration's
    client_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What a provider says about some grants of the accounts that it names."""

    says: Says
    reason: str  # one plain word of ours: tokens_revoked, app_uninstalled …
    # Whose: any of these keys, each of them in `Item.accounts`; empty: all that the item names, which names some.
    accounts: tuple[str, ...] = ()
    profiles: tuple[str, ...] | None = None  # of these access profiles; None: of all
    kinds: tuple[str, ...] | None = None  # whose tokens come so (`code`, `installation` …); None: of all
    knows: Knows = "nothing"
    at: datetime | None = None  # with `knows="time"`: when it happened, by a time that was signed
