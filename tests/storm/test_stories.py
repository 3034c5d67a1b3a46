"""Random lives of a token, played on the real core: 40 here, more as a phase of `.ci/run`; and without a caution they are red."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import structlog

from tests import postgres
from tests.storm.mutations import MUTATIONS
from tests.storm.player import Wrong
from tests.storm.stories import Tally, quiet, tell

MOST = 400  # stories; each is found among the first 120


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Databases that go are no news in a story."""
    with quiet():
        yield
    structlog.reset_defaults()


async def test_no_token_is_spent_twice_and_none_is_lost_that_could_be_kept(template: postgres.Template) -> None:
    """Zero doubles; what is stored is the provider's newest; nobody waits too long; losses are `answer_lost`."""
    async with template.cloned() as dsn:
        tally = await tell(dsn, range(40))
    print(f"\n{tally}")
    assert tally.stories == 40
    assert tally.counts["served"] > 40


@pytest.mark.long
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
async def test_without_it_the_stories_are_red(
    template: postgres.Template, monkeypatch: pytest.MonkeyPatch, mutation: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutation(monkeypatch)
    tally = Tally()
    async with template.cloned() as dsn:
        with pytest.raises(Wrong) as found:
            await tell(dsn, range(MOST), tally)
    print(f"{mutation.__name__}: story {tally.stories}: {str(found.value).splitlines()[0]}")
