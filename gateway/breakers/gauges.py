"""What is shut, as metrics. A host that a user chose is no label: there may be any number of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from gateway import metrics
from gateway.breakers.store import Open
from gateway.breakers.ways import way_of
from gateway.catalog import Catalog
from gateway.errors import Unavailable

OTHERS = "others"

_shown: dict[str, set[tuple[str, ...]]] = {}  # by region: what has been set, to be set back


def show(region: str, rows: Collection[Open], catalog: Catalog) -> None:
    """Set the gauges to these rows."""
    if not rows and not _shown.get(region):
        return
    try:
        integrations = catalog.integrations()
    except Unavailable:
        return
    names = {one.id: one.name for one in integrations}
    hosts = {way.host for one in integrations if not (way := way_of(one, "token")).chosen}
    hosts |= {way.host for one in integrations if not (way := way_of(one, "api")).chosen}
    now: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        if row.integration_id is None:
            now[row.provider, row.kind, row.host if row.host in hosts and row.host else OTHERS, row.why] += 1
        elif row.integration_id in names:
            now[names[row.integration_id], row.kind] += 1
    for labels in _shown.get(region, set()) | now.keys():
        gauge = metrics.INCIDENTS if len(labels) == 2 else metrics.BREAKERS
        gauge.labels(region, *labels).set(now[labels])
    _shown[region] = set(now)
