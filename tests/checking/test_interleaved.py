"""What happens while a check is under way: nothing that is contested may be left so, nor be decided by an older answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.checking.asking import Asking
from tests.follower.conftest import Street
from tests.follower.test_contested import REVOKED, user
from tests.web.conftest import problem

Meanwhile = Callable[[Callable[[], Awaitable[object]]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Lets something happen once, between the provider's next answer and what the checker makes of it."""
    asking, once = Asking.ask, list[Callable[[], Awaitable[object]]]()

    async def ask(self: Asking, *what: Any) -> Any:
        answer = await asking(self, *what)
        while once:
            await once.pop()()
        return answer

    monkeypatch.setattr(Asking, "ask", ask)
    return once.append


async def contested(street: Street, number: int = 0) -> None:
    """A revocation of unknown generation."""
    await street.deliver(REVOKED, delivery_id=f"delivery-{number}")
    await street.follow()
    problem(await street.read("acme"), 409, "checking")


async def rotated(street: Street) -> None:
    """A refresh that somebody had begun before comes to its end."""
    name = (street.known["acme"], "user")
    assert await street.gateway.refresher.attempt(street.gateway.regions.home, name, (1, 1), doubts=True) == "refreshed"


@pytest.mark.parametrize("old", ["dead", "alive"])
async def test_a_rotation_while_it_is_asked_leaves_nothing_contested_for_ever(
    street: Street, meanwhile: Meanwhile, old: str
) -> None:
    """The answer was about the access token of before: the check goes on with the new one."""
    await user(street)
    if old == "dead":
        street.github.dead.add("acme user")
    await contested(street)
    meanwhile(lambda: rotated(street))
    assert await street.check() == 1
    assert (await street.grant("acme", "user")).state == "active"
    assert await street.checks() == 1
    await street.town.pass_s(1)
    assert await street.check() == 1
    assert ((await street.read("acme")).status_code, await street.checks()) == (200, 0)


async def test_the_genuine_one_after_a_replayed_one_is_not_answered_by_its_check(
    street: Street, meanwhile: Meanwhile
) -> None:
    """It lives was said before the user withdrew it: that is asked anew, and no token leaves between."""
    await user(street)
    await contested(street)

    async def withdrawn() -> None:
        street.github.dead.update({"acme user", "another"})
        await contested(street, 1)

    meanwhile(withdrawn)
    assert await street.check() == 1
    problem(await street.read("acme"), 409, "checking")
    assert await street.check() == 1
    assert await street.moved() == {"acme": {"user": "revoked"}}
    [(_, data)] = await street.events("acme")
    assert data["evidence"]["event"] == (await street.deliveries())[1]
