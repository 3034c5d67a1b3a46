"""What the next holder may do about a refresh that somebody left open. Pure; the essay on lost answers stands here.

A token set is spent by sending its refresh token. Where the provider rotates strictly, sending it twice ends the whole family,
the good token that the first answer brought among it. So what counts is not whether a lease is over, but where the answer may be:

    claimed   nothing has left: whoever comes next goes on at once
    sent      the holder is gone, or held up. While it is heard of, it has the answer or will; once it is silent, the answer may
              lie in its spool, and that process may come back: so long (`spool_grace_s`) nobody spends the token again
    lost      the holder lives, and says that no answer will come: a moment for whatever is still on its way, then again
    failed    answered, or never sent: after a pause

Then the token is spent once more, which rescues every case in which the provider never acted. Refused, the grant is over, and
the cause is `answer_lost`. No protocol can do better. Where the provider lets the old token live (no rotation, or a grace that
has not run out), there is nothing to be afraid of, and the next holder goes on at once.
"""

from __future__ import annotations

from uuid import UUID

from gateway.clock import random_bytes
from gateway.tokens.leases import LEASE_S, Open
from providers.oauth import OAuthFacts

LOST_PAUSE_S = 20.0  # at a strict provider: longer than a call that it may still be at
FIRST_PAUSE_S, MOST_PAUSE_S = 5.0, 240.0  # between failed tries of one grant


def rotates(facts: OAuthFacts, kind: str) -> bool:
    """Does a refresh of a grant of this kind spend anything?"""
    return kind == "code" and facts.rotation != "none"


def is_dangerous(open: Open, facts: OAuthFacts, kind: str) -> bool:
    """Could sending its refresh token once more be the end of the grant?

    An answer is missing (or its holder is gone), and the provider does not let the old token live."""
    if not rotates(facts, kind) or (open.phase != "sent" and open.unanswered_s is None):
        return False
    since_s = open.unanswered_s if open.unanswered_s is not None else LEASE_S - open.lease_left_s
    # It is sent a moment after this was asked, and must be there before the grace ends.
    return facts.rotation == "strict" or since_s >= facts.reuse_grace_s - min(LEASE_S, facts.reuse_grace_s / 3)


def wait_s(open: Open, facts: OAuthFacts, kind: str, process: UUID, spool_grace_s: float) -> float:
    """How long nobody may send this grant's refresh token; 0: now. Of a refresh that is not under way.

    `process`: who asks. It knows of its own calls that they have ended; one whose end is not written yet is as good as lost."""
    pause_s = max(open.again_in_s, 0.0)
    if open.phase != "sent" or not is_dangerous(open, facts, kind):
        return pause_s
    if open.holder == process:
        return max(pause_s, LOST_PAUSE_S - (LEASE_S - open.lease_left_s))
    if open.holder_lives:  # held up: it writes the answer when it has it, or says that there is none
        return max(pause_s, 1.0)
    silent_s = spool_grace_s if open.holder_silent_s is None else open.holder_silent_s
    return max(pause_s, spool_grace_s - silent_s)


def pause_s(tries: int, chance: float) -> float:
    """Before the next try of one grant, after `tries` that failed: doubling, with full jitter above the half.

    `chance`: 0 to 1."""
    most: float = min(FIRST_PAUSE_S * 2 ** min(tries, 10), MOST_PAUSE_S)
    return most * (0.5 + chance / 2)


def chance() -> float:
    """0 to 1."""
    return int.from_bytes(random_bytes(4)) / 2**32
