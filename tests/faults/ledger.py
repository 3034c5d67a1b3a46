"""The sender's own list of what was acknowledged: on disk before it counts. And the judgement by it.

A line is `[number, items, unknown]`: `items` has `k` or `f` for each (tests/faults/mail.py), `unknown` says how many
attempts before the acknowledged one got no answer, or one that leaves open whether it was kept (503).

- A keyed item of an acknowledged delivery stands on the stream exactly once.
- A keyless one stands there at least once, and at the most once for each attempt that may have been kept: exactly
  once where the first attempt was acknowledged.
- All keyless items of one delivery stand there equally often: an attempt is kept whole or not at all.
- Of a delivery that was given up (a provider that never tries again) all items stand there once, or none does.
- Nothing forged stands there, and nothing that was never sent.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Seen = Mapping[tuple[int, int], int]  # (number, index of the item) -> how often it stands on the stream


class Ledger:
    """An append-only file. Writers that come together share an fsync."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def note(self, number: int, items: str, unknown: int) -> None:
        """Returns once the line is on disk."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((json.dumps([number, items, unknown]).encode() + b"\n", done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        await done

    def close(self) -> None:
        self._file.close()

    def lines(self) -> list[tuple[int, str, int]]:
        """What the file says, and not what anybody remembers."""
        return [tuple(json.loads(line)) for line in self.path.read_bytes().splitlines()]

    async def _write(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            self._file.write(b"".join(line for line, _ in taken))
            self._file.flush()
            await asyncio.to_thread(os.fsync, self._file.fileno())
            for _, done in taken:
                if not done.done():
                    done.set_result(None)
        self._writing = None


@dataclass
class Verdict:
    """What was found. All of it must be nothing, but for `extra`."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)  # forged, or never sent
    extra: int = 0  # keyless items that stand there again because an attempt was kept whose answer was lost

    def faults(self) -> Iterator[str]:
        for kind in ("lost", "doubled", "split", "foreign"):
            yield from (f"{kind}: {what}" for what in getattr(self, kind))


def judge(acknowledged: list[tuple[int, str, int]], given_up: Mapping[int, str], seen: Seen) -> Verdict:
    """Hold the stream against the list. `given_up`: numbers and items of one attempt each, without an answer."""
    verdict = Verdict()
    for number, items, unknown in acknowledged:
        for index, kind in enumerate(items):
            times = seen.get((number, index), 0)
            if times == 0:
                verdict.lost.append(f"{number}.{index}")
            elif times > (1 if kind == "k" else 1 + unknown):
                verdict.doubled.append(f"{number}.{index} stands there {times} times")
            else:
                verdict.extra += times - 1
        _whole(verdict, number, items.replace("k", "-"), seen)
    for number, items in given_up.items():
        verdict.doubled += [f"{number}.{i} (given up)" for i in range(len(items)) if seen.get((number, i), 0) > 1]
        _whole(verdict, number, items.replace("k", "f"), seen)
    known = Counter({number: len(items) for number, items, _ in acknowledged})
    known.update({number: len(items) for number, items in given_up.items()})
    verdict.foreign += [f"{number}.{index}" for number, index in seen if index >= known[number]]
    return verdict


def _whole(verdict: Verdict, number: int, items: str, seen: Seen) -> None:
    """Whether the items marked `f` stand there equally often."""
    times = {seen.get((number, index), 0) for index, kind in enumerate(items) if kind == "f"}
    if len(times) > 1:
        verdict.split.append(f"{number}: {sorted(times)}")
