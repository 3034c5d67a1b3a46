"""Without any one fence the stories are red: each is found by itself, among stories that are the same in every run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests import postgres
from tests.machine.mutations import MUTATIONS
from tests.machine.player import Differs
from tests.machine.stories import Tally, tell

MOST = 800  # stories; the whole phase plays 5,000


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_without_it_the_stories_are_red(
    template: postgres.Template, monkeypatch: pytest.MonkeyPatch, mutation: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutation(monkeypatch)
    tally = Tally()
    with pytest.raises(Differs) as found:
        tell(asyncio.run(template.clone()), MOST, seeded=1, shrinks=False, tally=tally)
    print(f"{mutation.__name__}: story {tally.stories}: {str(found.value).splitlines()[0]}")
