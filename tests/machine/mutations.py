"""The machine with one fence taken out. Each must turn the stories red, or the stories prove nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from gateway.checking import store as checking
from gateway.connections import guard, history, work
from gateway.connections.fences import Fence, Weight, weigh
from gateway.database import Db
from gateway.stream import consumers
from gateway.tokens import check

Patch = pytest.MonkeyPatch
Lax = Callable[[Fence, int, int], Fence]


def _weighing(patch: Patch, lax: Lax) -> None:
    def fenceless(fence: Fence, *, generation: int, token_version: int, **times: datetime | None) -> Weight:
        return weigh(lax(fence, generation, token_version), generation=generation, token_version=token_version, **times)  # type: ignore[arg-type]

    patch.setattr(work, "weigh", fenceless)


def generation(patch: Patch) -> None:
    """Whatever generation a signal is about is taken for the current one."""
    _weighing(patch, lambda fence, now, _: fence if fence.generation is None else replace(fence, generation=now))


def token_version(patch: Patch) -> None:
    """Whatever token set an answer is about is taken for the current one."""
    _weighing(patch, lambda fence, _, now: fence if fence.token_version is None else replace(fence, token_version=now))


def time(patch: Patch) -> None:
    """A verified message is proof, whenever it happened."""
    _weighing(patch, lambda fence, *_: replace(fence, final=True) if fence.at is not None else fence)


def margin(patch: Patch) -> None:
    """Clocks are taken to agree."""
    _weighing(patch, lambda fence, *_: replace(fence, margin_s=0))


def unknown(patch: Patch) -> None:
    """A message that knows nothing of its generation is proof."""
    _weighing(patch, lambda fence, *_: replace(fence, final=True) if fence == Fence() else fence)


def final(patch: Patch) -> None:
    """A name that never comes back is a name like any other."""
    _weighing(patch, lambda fence, *_: replace(fence, final=False))


def contested(patch: Patch) -> None:
    """Tokens are handed out while a check decides."""
    fenceless = check.CHECK.replace("AND NOT g.contested ", "")
    assert fenceless != check.CHECK
    patch.setattr(check, "CHECK", fenceless)


def heard_once(patch: Patch) -> None:
    """A delivery that is read twice speaks twice."""

    async def nothing(*_: Any) -> set[history.Heard]:
        return set()

    patch.setattr(history, "heard", nothing)


def hold(patch: Patch) -> None:
    """A follower commits what it has begun, whoever has its partitions by now."""

    async def whatever(tx: Db, name: str, fences: Mapping[int, int], seq: int, mark: bytes) -> None:
        await tx.execute(consumers.ADVANCE, name, list(fences), seq, mark)

    patch.setattr(consumers, "advance", whatever)


def check_fence(patch: Patch) -> None:
    """An answer decides, whatever was asked since."""

    async def always(*_: Any) -> bool:
        return True

    patch.setattr(checking, "holds", always)


def mass_failures(patch: Patch) -> None:
    """An outage is everybody's end."""
    patch.setattr(guard, "tripped", lambda *_: False)


MUTATIONS: tuple[Callable[[Patch], None], ...] = (
    generation, token_version, time, margin, unknown, final, contested, heard_once, hold, check_fence, mass_failures,
)  # fmt: skip
