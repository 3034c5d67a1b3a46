"""SIGKILL at random moments (`make chaos-ingest`), in a short form; and that its judge is strict."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.chaos_ingest import errors, run
from tests.faults.ledger import Verdict, judge


@pytest.mark.parametrize("rounds", [4, pytest.param(100, marks=pytest.mark.long)])
async def test_every_acknowledged_item_is_on_the_stream_exactly_once(rounds: int, tmp_path: Path) -> None:
    """Two gateways and PostgreSQL, killed under load; nothing lost, doubled, split or forged, no error logged."""
    made = await run(rounds, "2", tmp_path)
    assert list(made.verdict.faults()) == []
    assert made.sender.tally.faults == []
    assert made.log_size == made.reader.events >= made.sender.tally.items > 0
    assert made.sender.tally.forged > 0
    assert errors(tmp_path) == {}


FINE = {(1, 0): 1, (1, 1): 1, (2, 0): 3, (2, 1): 3, (3, 0): 1, (3, 1): 1}
SENT = [(1, "kf", 0), (2, "ff", 2)]
GIVEN_UP = {3: "kf", 4: "k"}


def test_the_judge_takes_what_may_be() -> None:
    """Two attempts without an answer may have kept a keyless item twice more; what was given up may be there."""
    assert judge(SENT, GIVEN_UP, FINE) == Verdict(extra=4)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({(1, 0): 0}, "lost: 1.0"),
        ({(1, 0): 2}, "doubled: 1.0 stands there 2 times"),
        ({(1, 1): 2}, "doubled: 1.1 stands there 2 times"),
        ({(2, 0): 4, (2, 1): 4}, "doubled: 2.0 stands there 4 times"),
        ({(2, 1): 2}, "split: 2: [2, 3]"),
        ({(3, 0): 2, (3, 1): 2}, "doubled: 3.0 (given up)"),
        ({(3, 1): 0}, "split: 3: [0, 1]"),
        ({(5, 0): 1}, "foreign: 5.0"),
        ({(1, 2): 1}, "foreign: 1.2"),
    ],
)
def test_the_judge_takes_nothing_else(change: dict[tuple[int, int], int], fault: str) -> None:
    """Each kind of fault is told."""
    assert fault in judge(SENT, GIVEN_UP, {**FINE, **change}).faults()
