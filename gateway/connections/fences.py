"""Fences: is a signal about the grant as it is now? Pure (PROTOCOLS 4).

A signal about generation 3 never touches generation 4. How a signal knows its generation, the strongest first: by the
generation and token version that were asked about; by a name that never comes back; by a signed time. The time is held
against the last proof that the grant lived (`Grant.alive_at`), which a consent, a refresh and a probe that acquits move on:
whatever is said to have happened before that did not end it. What falls within the clocks' margin, or knows nothing, is
contested: no token leaves until a check has decided, and only then the state moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Weight = Literal["proof", "contested", "stale"]
MARGIN_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """What a signal knows of the generation that it is about. Nothing at all: it is contested."""

    generation: int | None = None
    token_version: int | None = None
    final: bool = False  # it names what is over for ever
    at: datetime | None = None  # when it happened, by a time that was signed
    margin_s: int = MARGIN_S  # how far that clock and ours may differ


NAMED_FOR_EVER = Fence(final=True)


def weigh(
    fence: Fence, *, generation: int, token_version: int, alive_at: datetime, came_at: datetime | None = None
) -> Weight:  # fmt: skip
    """How much a signal with this fence counts for a grant.

    `came_at`: when it was brought here, where nothing has proven since that it lives (an import). What is said to have
    happened before that may have been the end of it, or of one that its user has replaced meanwhile.
    """
    if fence.generation is not None and fence.generation != generation:
        return "stale"
    if fence.token_version is not None and fence.token_version != token_version:
        return "stale"
    if fence.generation is not None or fence.token_version is not None or fence.final:
        return "proof"
    if fence.at is None:
        return "contested"
    margin = timedelta(seconds=fence.margin_s)
    if fence.at < alive_at - margin:
        return "stale"
    return "proof" if fence.at > (came_at or alive_at) + margin else "contested"
