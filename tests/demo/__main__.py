"""`python -m tests.demo`: status 0 if everything was as it must be, 1 if anything differs, 130 after Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from gateway.client import PosthouseError
from tests.demo.acts import Broken, Play, perform
from tests.demo.screen import Screen
from tests.demo.stage import stage


async def main(deliveries: int, seed: int, keep: bool) -> int:
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, me.cancel)
    screen = Screen()
    try:
        async with stage(keep=keep) as made:
            try:
                right = await perform(Play(made, screen, deliveries, random.Random(seed)))
            except (Broken, PosthouseError) as trouble:
                screen.say(f"the demo cannot go on: {trouble}")
                right = False
        if keep:
            screen.say(f"kept: {made.folder}")
    except asyncio.CancelledError:
        print("demo: stopped; nothing is left running", file=sys.stderr)
        return 130
    verdict = "[bold green]All as it must be" if right else "[bold red]Not as it must be"
    screen.console.print(f"\n{verdict}[/] (seed {seed}, {screen.elapsed_s:.1f} s)")
    return 0 if right else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make demo", description="The main job, end to end.")
    parser.add_argument("--deliveries", type=int, default=600, help="of each of the five providers")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10_000), help="for the same mix again"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder, with database and log")
    asked = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # they are text files here
    sys.exit(asyncio.run(main(asked.deliveries, asked.seed, asked.keep)))
