"""Stories by the thousand: `python -m tests.machine.stories 5000` plays them in two processes and prints what they covered.

A story is some twenty acts (`player.py`) that hypothesis draws, and shrinks where one shows a difference.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from gateway.connections.machine import SIGNALS
from gateway.connections.states import STATES
from gateway.migrate import migrate_for_tests
from tests import postgres
from tests.machine.player import Act, Differs, Player
from tests.machine.world import World

PROCESSES = 2
SWEEP_EVERY = 40  # stories
# How often each kind of act comes.
WEIGHTS = {
    "pass": 1, "happens": 6, "deliver": 4, "follow": 4, "consent": 3, "check": 5, "checked": 3, "refresh": 4, "refreshed": 3,
    "wait": 3, "slow": 2, "outage": 1, "canary": 2, "report": 1, "disconnect": 1, "leave": 1, "ran_out": 1, "rewind": 1,
}  # fmt: skip
KINDS = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
NUMBER = st.integers(0, 71)
STORY: st.SearchStrategy[list[Act]] = st.lists(
    st.tuples(st.sampled_from(KINDS), NUMBER, NUMBER, NUMBER), min_size=26, max_size=52
)


@dataclass
class Tally:
    """What was played."""

    stories: int = 0
    steps: int = 0
    pairs: set[tuple[str, str]] = field(default_factory=set)

    def __str__(self) -> str:
        of = len(STATES) * len(SIGNALS)
        return (
            f"{self.stories} stories, {self.steps / max(self.stories, 1):.1f} steps each; "
            f"{len(self.pairs)} of {of} pairs of state and signal"
        )

    def table(self) -> str:
        """The pairs, a line a state."""
        width = max(map(len, SIGNALS))
        lines = [f"{'':16}" + " ".join(f"{signal:>{width}}" for signal in SIGNALS)]
        for state in STATES:
            marks = ("x" if (state, signal) in self.pairs else "." for signal in SIGNALS)
            lines.append(f"{state:16}" + " ".join(f"{mark:>{width}}" for mark in marks))
        return "\n".join(lines)


async def play(world: World, story: list[Act], tally: Tally) -> None:
    """One story.    Raises: Differs, with the story in words."""
    await world.clear(sweep=tally.stories % SWEEP_EVERY == SWEEP_EVERY - 1)
    player = Player(world)
    try:
        await player.begin()
        await player.play(story)
    except Differs as error:
        raise Differs("\n".join([str(error), "the story:", *player.told])) from error
    finally:
        await player.end()
        tally.stories += 1
        tally.steps += player.steps
        tally.pairs |= player.model.pairs


def tell(dsn: str, number: int, seeded: int, *, shrinks: bool = True, tally: Tally | None = None) -> Tally:
    """Play so many stories on an empty, migrated database.    Raises: Differs, of the shortest story that shows it."""
    tally, found = tally or Tally(), list[Differs]()
    phases = [Phase.generate, Phase.shrink] if shrinks else [Phase.generate]
    with asyncio.Runner() as runner:
        world = runner.run(World.open(dsn))

        @seed(seeded)
        @settings(
            max_examples=number, database=None, deadline=None, phases=phases, suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False, print_blob=False,
        )  # fmt: skip
        @given(STORY)
        def stories(story: list[Act]) -> None:
            try:
                runner.run(play(world, story, tally))
            except Differs as error:
                found.append(error)
                raise

        run: Callable[[], None] = stories
        try:
            run()
        except Exception:
            if found and not shrinks:
                raise found[0] from None  # whatever hypothesis makes of trying it again
            raise
        finally:
            runner.run(world.close())
    return tally


def _half(dsn: str, number: int, seeded: int) -> Tally:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return tell(dsn, number, seeded)


def main(number: int) -> None:
    began = time.monotonic()
    whole = Tally()
    with postgres.server() as server, postgres.template_database(server, migrate_for_tests) as template:
        dsns = [asyncio.run(template.clone()) for _ in range(PROCESSES)]
        with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
            halves = [pool.submit(_half, dsn, -(-number // PROCESSES), place) for place, dsn in enumerate(dsns)]
            for half in halves:
                tally = half.result()
                whole.stories, whole.steps = whole.stories + tally.stories, whole.steps + tally.steps
                whole.pairs |= tally.pairs
    print(f"{whole} ({time.monotonic() - began:.0f} s)")
    print(whole.table())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000)
