"""Many small fleets, on all cores, added up. The same parts whatever the number of cores, so that a seed means one result."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from random import Random
from threading import Thread

from subscriptions.simulate import hybrid
from subscriptions.simulate.cron import Cron
from subscriptions.simulate.fleet import Fleet
from subscriptions.simulate.hybrid import Hybrid
from subscriptions.simulate.lazy import Lazy
from subscriptions.simulate.people import tenants
from subscriptions.simulate.tally import Tally

PART = 12_500  # connections of one
STRATEGIES = ("hybrid", "cron", "lazy")
Tallies = dict[str, Tally]


def parts(fleet: Fleet, most: int = PART) -> list[int]:
    """How many connections each part has."""
    number = -(-fleet.connections // most)
    return [fleet.connections * (i + 1) // number - fleet.connections * i // number for i in range(number)]


def run(
    fleet: Fleet, advance: Callable[[int], None] = lambda done: None, cores: int | None = None, most: int = PART
) -> Tallies:
    """The whole fleet under each strategy. `advance` hears how many connections more are done; `most`: of one part."""
    sizes = parts(fleet, most)
    cores = min(cores or os.cpu_count() or 1, len(sizes))
    total = {name: Tally.empty(fleet, 0) for name in STRATEGIES}
    for one in total.values():
        for minutes in one.providers:
            minutes.limit = 0
    if cores == 1:
        for number, size in enumerate(sizes):
            _add(total, part(fleet, number, size))
            advance(size)
    else:
        with ProcessPoolExecutor(cores, get_context("spawn"), _end_with_parent) as pool:
            tasks = {pool.submit(part, fleet, number, size): size for number, size in enumerate(sizes)}
            try:
                for task in as_completed(tasks):
                    _add(total, task.result())
                    advance(tasks.pop(task))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    hybrid.canaries(fleet, total["hybrid"])
    return total


def part(fleet: Fleet, number: int, size: int) -> Tallies:
    """One part, which bears its share of the rate limits."""
    share = size / fleet.connections
    found = {name: Tally.empty(fleet, share) for name in STRATEGIES}
    generator, chance = (Random(f"{fleet.seed}:{number}:{what}") for what in ("fleet", "policy"))  # noqa: S311 - seeded is meant
    ours, cron, lazy = Hybrid(fleet, found["hybrid"], chance), Cron(fleet, found["cron"]), Lazy(fleet, found["lazy"])
    for tenant in tenants(fleet, size, generator):
        ours.meet(tenant)
        for connection in tenant.connections:
            ours.live(connection)
            cron.live(connection)
            lazy.live(connection)
    cron.finish()
    return found


def _end_with_parent() -> None:
    """A worker whose parent was killed has nobody to work for."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _add(total: Tallies, more: Tallies) -> None:
    for name, tally in more.items():
        total[name].add(tally)
