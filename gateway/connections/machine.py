"""The machine: what each signal does to a grant in each state. Every pair is written down; a test walks them all. Pure.

What a signal must have shown before it comes here is for fences to say (`fences.py`): the table never asks how sure it is.
It holds one promise by itself: `refused` moves no grant that is not suspect already, so that none is declared dead on one
ambiguous answer. Its picture in ARCHITECTURE.md is drawn by `python -m tests.test_docs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from gateway.connections.states import State

Signal = Literal[
    "authorized",  # a consent gave it, with every scope that is required (or an import brought it)
    "narrowed",  # a consent gave it, and required scopes are missing
    "refreshed",  # new tokens came, with every scope that is required
    "scopes_lost",  # an answer shows that required scopes are gone
    "scopes_changed",  # the provider says that what it reaches has changed
    "revoked",  # the user or the provider withdrew it
    "suspended",  # the provider paused it
    "resumed",  # … and lifted that
    "doubted",  # evidence, not proof: a terminal answer, a restore
    "refused",  # a second, later answer, or the only means there is, says that it is dead
    "acquitted",  # a check found it alive
    "ran_out",  # it has expired, and nothing can refresh it
    "left",  # the connection went to another account
    "closed",  # the tenant removed it
]
SIGNALS: tuple[Signal, ...] = get_args(Signal)

# None: that cannot be said of a grant in this state; it is recorded as illegal and changes nothing.
TABLE: dict[State, dict[Signal, State | None]] = {
    "pending": {  # nobody has consented yet: there is nothing that could be withdrawn or refreshed
        "authorized": "active", "narrowed": "reauth_required", "refreshed": None, "scopes_lost": None,
        "scopes_changed": None, "revoked": None, "suspended": None, "resumed": None, "doubted": None, "refused": None,
        "acquitted": None, "ran_out": None, "left": None, "closed": "closed",
    },
    "active": {
        "authorized": "active", "narrowed": "reauth_required", "refreshed": "active",
        "scopes_lost": "reauth_required", "scopes_changed": "active", "revoked": "revoked", "suspended": "suspended",
        "resumed": "active", "doubted": "suspect", "refused": None, "acquitted": "active",
        "ran_out": "reauth_required", "left": "reauth_required", "closed": "closed",
    },
    "suspect": {
        "authorized": "active", "narrowed": "reauth_required", "refreshed": "active",
        "scopes_lost": "reauth_required", "scopes_changed": "suspect", "revoked": "revoked", "suspended": "suspended",
        "resumed": "suspect", "doubted": "suspect", "refused": "reauth_required", "acquitted": "active",
        "ran_out": "reauth_required", "left": "reauth_required", "closed": "closed",
    },
    "suspended": {  # what fails meanwhile fails because of that, and what is refreshed is kept for afterwards
        "authorized": "active", "narrowed": "reauth_required", "refreshed": "suspended", "scopes_lost": "suspended",
        "scopes_changed": "suspended", "revoked": "revoked", "suspended": "suspended", "resumed": "active",
        "doubted": "suspended", "refused": "suspended", "acquitted": "suspended", "ran_out": "suspended",
        "left": "reauth_required", "closed": "closed",
    },
    "reauth_required": {  # a refresh that was under way may still win; nothing else but a consent mends it
        "authorized": "active", "narrowed": "reauth_required", "refreshed": "active",
        "scopes_lost": "reauth_required", "scopes_changed": "reauth_required", "revoked": "revoked",
        "suspended": "reauth_required", "resumed": "reauth_required", "doubted": "reauth_required",
        "refused": "reauth_required", "acquitted": "reauth_required", "ran_out": "reauth_required",
        "left": "reauth_required", "closed": "closed",
    },
    "revoked": {  # what came of a refresh that was under way is of no use: the grant behind it is gone
        "authorized": "active", "narrowed": "reauth_required", "refreshed": None, "scopes_lost": None,
        "scopes_changed": "revoked", "revoked": "revoked", "suspended": "revoked", "resumed": "revoked",
        "doubted": "revoked", "refused": "revoked", "acquitted": "revoked", "ran_out": "revoked",
        "left": "reauth_required", "closed": "closed",
    },
    "closed": {  # webhooks come late and twice: after the end, nothing is news
        "authorized": None, "narrowed": None, "refreshed": None, "scopes_lost": None, "scopes_changed": "closed",
        "revoked": "closed", "suspended": "closed", "resumed": "closed", "doubted": "closed", "refused": "closed",
        "acquitted": "closed", "ran_out": "closed", "left": "closed", "closed": "closed",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """What a signal did. `stays`: nothing that shows; `illegal`: it cannot be said of a grant in this state."""

    to: State
    outcome: Literal["moved", "stays", "illegal"]


def step(state: State, signal: Signal) -> Step:
    """The next state."""
    to = TABLE[state][signal]
    if to is None:
        return Step(state, "illegal")
    return Step(to, "stays" if to == state else "moved")
