"""What `make bench-breakers` measures at full size, small: whoever is beside a provider that hangs is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.migrate import migrate_for_tests
from tests import postgres
from tests.benchmarks.breakers import MEASURED, Sizes, measure


@pytest.mark.long
async def test_a_provider_that_hangs_costs_the_others_nothing(template: postgres.Template, tmp_path: Path) -> None:
    """The benchmark itself ends at an answer of Google's or GitHub's that is no 200; here: there is none."""
    name = f"{template.name}_breakers"
    dsn = await template.server.create(name)
    await migrate_for_tests(dsn)
    figures, goals = await measure(dsn, tmp_path, Sizes(callers=60, seconds=3, pairs=1))
    assert {goal.name.partition(" p99")[0] for goal in goals} >= set(MEASURED)
    assert figures["Slack's callers told 503"] >= 60
    assert figures["unexpired Slack tokens served"] == 60
    await template.server.drop(name)
