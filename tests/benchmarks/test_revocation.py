"""What `make bench-revocation` proves at full size, small: every revocation is told and refused, in order, none is lost."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.migrate import migrate_for_tests
from tests import postgres
from tests.benchmarks.revocation import SHORT, Sizes, measure

SMALL = Sizes(revocations=10, contested=5, burst=200, backlog=2_000, idle_s=1.0, plain_s=1)


@pytest.fixture
async def dsn(template: postgres.Template) -> AsyncIterator[str]:
    """Migrated in its place: a clone looks put back to an earlier point, and grants that are there already are doubted."""
    name = f"{template.name}_revocation"
    made = await template.server.create(name)
    await migrate_for_tests(made)
    yield made
    await template.server.drop(name)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
@pytest.mark.parametrize("sizes", [SMALL, pytest.param(SHORT, marks=pytest.mark.long)], ids=["small", "short"])
async def test_revocations_beside_a_load_and_in_a_burst(dsn: str, tmp_path: Path, sizes: Sizes) -> None:
    """The benchmark itself ends at a token that is handed out too late, and at a story out of order; here: none does."""
    figures, goals = await measure(dsn, tmp_path, sizes)
    assert figures["burst: signals"] == sizes.burst
    assert {goal.name for goal in goals} >= {"event p99 ms", "refusal max ms", "burst x plain ingest"}
