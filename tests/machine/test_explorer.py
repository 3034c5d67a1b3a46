"""Three workers, two generations, every order: the promises hold, and without any one fence they do not."""

from __future__ import annotations

import pytest

from tests.machine.explorer import MUTATIONS, Mutation, explored


def test_every_order_keeps_the_promises() -> None:
    """No state that can be reached breaks promise 3, 4 or 5."""
    states, broken = explored(None)
    print(f"\n{states} states")
    assert broken is None
    assert states > 50_000


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_without_it_some_order_breaks_one(mutation: Mutation) -> None:
    _, broken = explored(mutation)
    assert broken is not None
