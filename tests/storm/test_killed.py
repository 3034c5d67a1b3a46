"""The process that refreshes dies by SIGKILL, at each moment of it in turn, while others wait: what is lost is one cell, and no more."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.storm.deaths import census, die, spread, waited_too_long
from tests.storm.town import Rotation, Town

RUNS = [  # rotation, survivors, callers, and every how manieth moment is tried
    pytest.param("strict", 1, 12, 20, id="strict"),
    pytest.param("strict", 7, 400, 1, id="strict, each moment", marks=pytest.mark.long),
    pytest.param("grace", 1, 40, 1, id="grace, each moment", marks=pytest.mark.long),
    pytest.param("none", 1, 40, 1, id="none, each moment", marks=pytest.mark.long),
]


@pytest.mark.parametrize(("rotation", "survivors", "callers", "every"), RUNS)
async def test_the_winner_dies(town: Town, rotation: Rotation, survivors: int, callers: int, every: int) -> None:
    """Before the request has left: one call, and all have their token. After it: nobody spends the old token before the grace
    is over where that may kill the account; then once. Losses are exactly the cell in which the answer died with the process,
    at a provider that forgives no second use."""
    workers = await town.fleet.start(survivors)
    await town.declare(workers[0], rotation)
    moments = await census(town, workers[0])
    deaths = await die(town, workers, spread(moments, every), callers)
    print("\n".join(map(str, deaths)))
    assert {death.sent for death in deaths} == {True, False}, "some died before the call, some after it"

    lost, expected, calls = set(), set(), Counter[int]()
    for death in deaths:
        state, reason, version = death.grant
        if rotation == "strict" and death.unanswered:
            expected.add(death.moment)
        spent = death.spent
        if state != "active":
            lost.add(death.moment)
            assert (state, reason) == ("reauth_required", "answer_lost"), death
            assert death.causes == ["answer_lost"], death
            assert {told.code or "good" for told in death.told} == {"reauth_required"}, death
            assert (death.spent_early, spent) == (1, 2), death  # the one try, after the grace
        else:
            assert {told.code or "good" for told in death.told} == {"good"}, death
            assert len(death.told) == callers
            assert version == 2, death
            assert death.ended is None, death
            assert spent == (2 if death.unanswered else 1), death
        calls[spent] += 1
    assert lost == expected
    assert not waited_too_long(deaths)
    print(f"{rotation}: {len(moments)} moments, {len(deaths)} deaths, {len(lost)} lost; calls: {dict(calls)}")
