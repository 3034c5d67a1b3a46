"""States of grants and of connections, and how the ones make the others. Pure; `machine.py` moves them.

A connection says what is most pressing among its grants: what needs somebody's action shows, even while another of
its access profiles still works. Tokens are judged by their own grant, never by this fold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

State = Literal["pending", "active", "suspect", "suspended", "reauth_required", "revoked", "closed"]
STATES: tuple[State, ...] = ("pending", "active", "suspect", "suspended", "reauth_required", "revoked", "closed")

# From what shows last to what shows first. `closed` grants of an open connection do not count: a profile was dropped.
PRESSING: dict[State, int] = {
    "pending": 0,  # one more profile is being consented to: the others speak
    "active": 1,
    "suspect": 2,
    "suspended": 3,
    "revoked": 4,
    "reauth_required": 5,
}
# What a state asks of the platform. `reconnect`: send the user through a connect session of this connection; `complete`: the
# one under way; `wait`: somebody lifts it, or a check decides; `connect`: through a new one; `none`: nothing.
Action = Literal["complete", "none", "wait", "reconnect", "connect"]
ACTIONS: dict[State, Action] = {
    "pending": "complete",
    "active": "none",
    "suspect": "none",
    "suspended": "wait",
    "reauth_required": "reconnect",
    "revoked": "reconnect",
    "closed": "connect",
}
ISSUED: frozenset[State] = frozenset({"active", "suspect"})  # an unexpired token is handed out in these


def fold(grants: Iterable[State]) -> State:
    """The connection's state. `revoked` only when nothing is left: as long as one grant lives, consent mends the rest."""
    open_ones = {state for state in grants if state != "closed"}
    if not open_ones:
        return "pending"
    most = max(open_ones, key=PRESSING.__getitem__)
    if most == "revoked" and open_ones - {"revoked", "pending"}:
        return "reauth_required"
    return most
