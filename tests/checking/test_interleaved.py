"""What happens while a check is under way: nothing that is contested may be left so, nor be decided by an older answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse

from gateway.checking import store
from gateway.checking.asking import Asking
from gateway.checking.checker import RESUMED_TRIES
from gateway.checking.store import Check
from gateway.connections import transitions
from gateway.connections.fences import Fence
from gateway.connections.machine import Signal
from gateway.connections.moves import Move
from gateway.connections.telling import Because
from tests.clock import FakeClock
from tests.follower.conftest import Street
from tests.follower.test_contested import REVOKED, user
from tests.follower.test_payload_to_event import TEAM
from tests.follower.test_repeated import uninstalled
from tests.providers.signal_samples import github_installation
from tests.web.conftest import problem

Meanwhile = Callable[[Callable[[], Awaitable[object]]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Lets something happen once, between the provider's next answer to a probe and what is made of it."""
    probed, once = Asking._probed, list[Callable[[], Awaitable[object]]]()

    async def ask(self: Asking, *what: Any) -> Any:
        answer = await probed(self, *what)
        while once:
            await once.pop()()
        return answer

    monkeypatch.setattr(Asking, "_probed", ask)
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


async def test_a_refused_access_token_alone_confirms_no_revocation(street: Street) -> None:
    """A replayed word and a 401 of an access token that is over anyhow (expired, superseded): the refresh token lives."""
    await user(street)
    street.github.dead.add("acme user")
    await contested(street)
    assert await street.check() == 1
    assert (await street.read("acme")).json()["access_token"] == "new another"
    assert (await street.outcomes("acme"))[-1] == ("acquitted", "refuted")


@pytest.mark.parametrize("suspended", ["the call", "the minting"])
async def test_what_is_suspended_confirms_that_it_is(street: Street, clock: FakeClock, suspended: str) -> None:
    """No time is known: contested; the provider's answer is not one that tells nothing."""
    await street.connected("acme", "acme", "github", ("installation:957387",), "installation")
    if suspended == "the call":
        street.github.how = lambda: JSONResponse({"message": "This installation has been suspended"}, 403)
    else:
        street.github.suspended = True
        street.github.dead.add("acme installation")
    await street.deliver(github_installation("suspend"))
    await street.follow()
    assert await street.check() == 1
    assert await street.moved() == {"acme": {"installation": "suspended"}}
    assert await street.checks() == 0
    await street.deliver(github_installation("unsuspend"))
    await street.follow()
    for _ in range(RESUMED_TRIES):  # for a minute it may be late; a replayed word is not asked about for ever
        assert await street.check() == 1
        await street.pass_s(clock, 60)
    assert (await street.check(), await street.checks()) == (0, 0)
    assert (await street.grant("acme", "installation")).state == "suspended"


async def test_scopes_that_are_lost_meanwhile_leave_the_doubt_to_the_next_token(street: Street) -> None:
    """None leaves in that state, and nothing could tell; a refresh that was under way all the time is asked about."""
    await user(street)
    await contested(street)

    async def told(signal: Signal) -> tuple[str, bool, int]:
        move = Move(
            connection=street.known["acme"], access_profile="user", signal=signal, reason=None, provider="github",
            because=Because(cause=signal, source="token_answer"), fence=Fence(generation=1),
        )  # fmt: skip
        async with street.db.transaction() as tx:
            await transitions.apply(tx, [move], street.gateway.new_id)
        grant = await street.grant("acme", "user")
        return grant.state, grant.contested, await street.checks()

    assert await told("scopes_lost") == ("reauth_required", True, 0)
    assert await told("refreshed") == ("active", True, 1)
    assert await street.check() == 1
    assert ((await street.read("acme")).status_code, await street.checks()) == (200, 0)


async def test_a_provider_that_does_not_answer_holds_up_no_others_checks(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contested grants of others are decided meanwhile."""
    asking, answers = Asking.ask, asyncio.Event()

    async def ask(self: Asking, check: Check, due: Any) -> Any:
        if check.provider == "github":
            await answers.wait()
        return await asking(self, check, due)

    monkeypatch.setattr(Asking, "ask", ask)
    await user(street)
    await contested(street)
    [hangs] = await street.gateway.checkers["default"].begin()
    await street.connected("globex", "globex", "slack", (f"team:{TEAM}",), "bot", refresh=None)
    await street.reconnected("globex", "bot", refresh=None)
    await street.deliver(uninstalled((await street.now()).timestamp()))
    await street.follow()
    street.slack.dead.add("globex bot 2")
    assert await street.check() == 1
    assert (await street.moved(), hangs.done()) == ({"globex": {"bot": "revoked"}}, False)
    answers.set()
    assert await hangs == "alive"


async def test_a_check_that_is_asked_for_anew_knows_no_fence_of_its_former_life(street: Street) -> None:
    """Whoever asked for the former one long ago, and has an answer only now, decides nothing of the new one."""
    await user(street)
    await contested(street)
    name = (street.known["acme"], "user")
    former = await store.one(street.db, *name)
    assert former is not None
    await store.done(street.db, former)
    await contested(street, 1)
    new = await store.one(street.db, *name)
    assert new is not None
    async with street.db.transaction() as tx:
        assert (await store.holds(tx, former), await store.holds(tx, new)) == (False, True)
