"""The real machine and store against a model, over generated stories; 5,000 of them are a phase of `.ci/run`."""

from __future__ import annotations

import asyncio

from tests import postgres
from tests.machine.stories import tell


def test_what_is_stored_is_what_ought_to_be_whatever_happens(template: postgres.Template) -> None:
    """Promises 3, 4 and 5, the history, the events and their order, over 80 stories."""
    tally = tell(asyncio.run(template.clone()), 80, seeded=4)
    print(f"\n{tally}\n{tally.table()}")
    assert tally.stories >= 80
