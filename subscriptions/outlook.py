"""The coming day as it is planned now: how many renewals fall due when, by provider. Each connection's next is in it, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.catalog import Catalog
from gateway.errors import Unavailable
from gateway.regions import Regions
from subscriptions import store
from subscriptions.sentences import at_time

AHEAD_S = 86400.0
SLOT_S = 900.0
SLOTS = int(AHEAD_S // SLOT_S)
GONE = "unknown"  # of integrations that control does not know (any more)
BARS = " ▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class Provider:
    """One provider's day."""

    name: str
    renewals: list[int] = field(default_factory=lambda: [0] * SLOTS)  # in each slot from now on
    looks: int = 0  # connections that are looked at: whether they are renewed is seen then
    overdue: int = 0  # due already

    @property
    def total(self) -> int:
        return sum(self.renewals)


@dataclass(frozen=True, slots=True)
class Outlook:
    """Every provider's, from `begins` on by the region's clock."""

    begins: datetime
    providers: list[Provider]


async def outlook(regions: Regions, catalog: Catalog) -> Outlook:
    """Of every region. It reads the whole table of renewals: seconds where there are millions.    Raises: Unavailable."""
    known: dict[str, Provider] = {}
    begins = 0.0
    for region in regions:
        begins = await store.now(region.database)
        for integration_id, act, slot, number in await store.outlook(region.database, AHEAD_S, SLOT_S):
            try:
                integration = catalog.integration_by_id(integration_id)
            except Unavailable:
                integration = None
            name = GONE if integration is None else integration.provider.facts.name
            of = known.setdefault(name, Provider(name))
            of.overdue += number if slot < 0 else 0
            if act == "renew":
                of.renewals[min(max(slot, 0), SLOTS - 1)] += number
            else:
                of.looks += number
    return Outlook(at_time(begins), sorted(known.values(), key=lambda one: (-one.total, one.name)))


def bars(counts: Sequence[int], width: int, most: int) -> str:
    """Counts as `width` columns of blocks, each as high as its share of `most`."""
    columns = [0] * width
    for place, count in enumerate(counts):
        columns[place * width // len(counts)] += count
    top = len(BARS) - 1
    return "".join(BARS[min(-(-count * top // max(most, 1)), top)] for count in columns)


def highest(counts: Sequence[int], width: int) -> int:
    """The highest of as many columns."""
    columns = [0] * width
    for place, count in enumerate(counts):
        columns[place * width // len(counts)] += count
    return max(columns, default=0)


def axis(begins: datetime, width: int, ahead_s: float = AHEAD_S, marks: int = 4) -> str:
    """Times of the day (UTC) under the columns where they begin."""
    line = [" "] * (width + 5)
    for mark in range(marks):
        place = mark * width // marks
        line[place : place + 5] = (begins + timedelta(seconds=ahead_s * mark / marks)).strftime("%H:%M")
    return "".join(line).rstrip()
