"""The ways out of the house: what fails together, and why one is shut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Kind = Literal["token", "api", "subscription"]
# failing: no usable answers; limited: the provider said when to come again; misconfigured: it refuses the integration itself;
# guarded: it calls everybody's grants dead (the mass-failure guard); crowded: as many calls are under way as are
# allowed at once; budget: as many were made as are allowed in this time.
Why = Literal["failing", "limited", "misconfigured", "guarded", "crowded", "budget"]


@dataclass(frozen=True, slots=True)
class Way:
    """One kind of call of one integration at one host of its provider."""

    provider: str
    condition: str  # whose guard counts (`Integration.condition`)
    integration: UUID
    kind: Kind
    host: str


class Shut(Exception):
    """No call is made that way just now. Nothing has left us."""

    def __init__(self, why: Why, retry_after_s: float, code: str | None = None) -> None:
        super().__init__(why)
        self.why, self.retry_after_s, self.code = why, retry_after_s, code
