"""The senders' own list: what they sent, how often, and what they were answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class Fate(Enum):
    """What a delivery is sent for."""

    GENUINE = "genuine"
    REPEATED = "sent again though it was acknowledged"
    FORGED = "signed with another app's secret"
    ALTERED = "changed after it was signed"
    STALE = "signed an hour ago"
    UNSIGNED = "without a signature"
    STRANGER = "for an integration that does not exist"

    @property
    def due(self) -> str | None:
        """With what reason the gateway is to refuse it; None: it is to take it."""
        return _DUE.get(self)


_DUE = {
    Fate.FORGED: "signature_mismatch",
    Fate.ALTERED: "signature_mismatch",
    Fate.STALE: "timestamp_out_of_range",
    Fate.UNSIGNED: "signature_missing",
    Fate.STRANGER: "unknown_integration",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a delivery says; it is to be one event."""

    marker: str  # unlike any other's, and inside the data
    data: bytes  # exactly as it is sent
    account: str  # the key by which its connection is found


@dataclass(slots=True)
class Sending:
    """One delivery, and what came of it so far."""

    integration: str
    id: str
    body: bytes
    items: tuple[Item, ...]
    fate: Fate
    sent: int = 0  # requests
    acknowledged: int = 0  # of them, with 2xx
    unanswered: int = 0  # cut off, or no connection
    busy: int = 0  # 503
    refused: Counter[str] = field(default_factory=Counter)  # by reason, as the answer says it


class Ledger:
    """Every delivery there was, and how long acknowledgements took."""

    def __init__(self) -> None:
        self.sendings: list[Sending] = []
        self.ack_s: list[float] = []

    def acknowledged(self, integration: str | None = None) -> int:
        """Requests that were answered 2xx."""
        return sum(one.acknowledged for one in self.of(integration))

    def requests(self, integration: str | None = None) -> int:
        return sum(one.sent for one in self.of(integration))

    def of(self, integration: str | None) -> list[Sending]:
        """All, or those of one integration."""
        return [one for one in self.sendings if integration in (None, one.integration)]

    def owed(self) -> dict[str, Item]:
        """By marker, every item that the gateway has acknowledged: what must be on the stream, once."""
        return {item.marker: item for one in self.sendings if one.acknowledged for item in one.items}
