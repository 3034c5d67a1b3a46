"""Stories by the thousand: `python -m tests.storm.stories 10000 [seed]` plays them in two processes and says what came to pass.

Each story has a number, from which everything that is drawn in it follows; how its tasks interleave is the machine's. One that goes
wrong is told in words, with its number: `python -m tests.storm.stories --one NUMBER` plays that one again, some times.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context

import structlog

from gateway.migrate import migrate_for_tests
from tests import postgres
from tests.storm import mortal
from tests.storm.player import Player, Wrong
from tests.storm.world import World, opening

PROCESSES = 2
CHAPTER = 50  # stories on one database
AGAIN = 30  # times that one story is played


@dataclass
class Tally:
    """What was played."""

    stories: int = 0
    calls: int = 0  # of the provider, with a refresh token
    counts: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0  # that a reader waited

    def add(self, other: Tally) -> None:
        self.stories, self.calls = self.stories + other.stories, self.calls + other.calls
        self.counts += other.counts
        self.longest_s = max(self.longest_s, other.longest_s)

    def __str__(self) -> str:
        lines = [f"{self.stories} stories, {self.calls} refresh calls, longest wait of a reader {self.longest_s:.2f} s"]
        return "\n".join([*lines, *(f"  {number:7}  {what}" for what, number in sorted(self.counts.items()))])


async def play(world: World, number: int, tally: Tally) -> None:
    """One story.    Raises: Wrong, with the story in words."""
    player = Player(world, random.Random(number))
    try:
        await player.play()
    except Exception as error:
        spends = [str(spend) for spend in world.theirs.spends]
        raise Wrong(
            "\n".join([f"{type(error).__name__}: {error}", f"story {number}:", *player.told, *spends])
        ) from error
    finally:
        await player.end()
    tally.stories += 1
    tally.calls += len(world.theirs.spends)
    tally.counts += player.counts
    tally.longest_s = max(tally.longest_s, player.longest_s)


async def tell(dsn: str, numbers: range | list[int], tally: Tally | None = None) -> Tally:
    """Play these on an empty, migrated database.    Raises: Wrong, of the first that shows it."""
    tally = tally or Tally()
    loop = asyncio.get_running_loop()
    mortal.install(loop)
    try:
        async with opening(dsn) as world:
            for number in numbers:
                await play(world, number, tally)
    finally:
        loop.set_task_factory(None)
    return tally


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is logged: databases that go are no news here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _part(dsn: str, numbers: range | list[int]) -> Tally:
    with quiet():
        return asyncio.run(tell(dsn, numbers))


async def _all(template: postgres.Template, number: int, seed: int) -> Tally:
    """In chapters, each on a database of its own, two at a time.    Raises: Wrong, at once."""
    whole, turns, loop = Tally(), asyncio.Semaphore(PROCESSES), asyncio.get_running_loop()

    async def chapter(numbers: range) -> None:
        async with turns, template.cloned() as dsn:
            whole.add(await loop.run_in_executor(pool, _part, dsn, numbers))
            print(f"{whole.stories} stories", flush=True)

    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        async with asyncio.TaskGroup() as group:
            for first in range(seed, seed + number, CHAPTER):
                group.create_task(chapter(range(first, min(first + CHAPTER, seed + number))))
    return whole


def main(number: int, seed: int) -> None:
    """Raises: Wrong."""
    began = time.monotonic()
    with postgres.server() as server, postgres.template_database(server, migrate_for_tests) as template:
        try:
            whole = asyncio.run(_all(template, number, seed))
        except* Wrong as wrong:
            raise Wrong(str(wrong.exceptions[0])) from None
    print(f"{whole}\n({time.monotonic() - began:.0f} s)")


def again(number: int) -> None:
    """Raises: Wrong."""
    with postgres.server() as server, postgres.template_database(server, migrate_for_tests) as template:
        print(_part(asyncio.run(template.clone()), [number] * AGAIN))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.storm.stories")
    parser.add_argument("number", type=int, nargs="?", default=1000, help="of stories")
    parser.add_argument("seed", type=int, nargs="?", default=0, help="the number of the first")
    parser.add_argument("--one", type=int, help="play this one, and only this, some times")
    asked = parser.parse_args()
    try:
        if asked.one is not None:
            again(asked.one)
        else:
            main(asked.number, asked.seed)
    except Wrong as wrong:
        sys.exit(str(wrong))
