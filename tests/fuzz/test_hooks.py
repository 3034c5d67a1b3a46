"""Hostile requests at every provider's URL: no 5xx, no forgery acknowledged, nothing on the stream that was not signed."""

from __future__ import annotations

import pytest

from tests.flows.house import House, declare
from tests.fuzz.oracle import Oracle
from tests.fuzz.run import Run
from tests.signers import SIGNERS


@pytest.mark.parametrize("count", [3_000, pytest.param(50_000, marks=pytest.mark.long)])
async def test_mutations_of_validly_signed_requests(house: House, count: int) -> None:
    """A case that fails is made again from its number: `Maker(house, oracle, "1").case(number)`."""
    for name in SIGNERS:
        await declare(house, name)
    run = Run(house, Oracle(house.gateway.settings.public_url))
    await run.all(count, "1")
    print(
        f"{count} cases: {dict(run.statuses.most_common())}; acknowledged: {dict(run.taken)}; {len(await house.kept())} events"
    )
    assert run.faults == []
    assert set(run.taken) == set(SIGNERS)
    assert count * 0.2 < run.taken.total() < count * 0.7
    assert set(run.statuses) >= {200, 202, 400, 401, 403, 404, 405, 415, 431}
