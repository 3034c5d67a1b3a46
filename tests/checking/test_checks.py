"""Checks at the provider: one at a time for a grant, a few at once for a provider, and only an answer to the last question."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.checking.checker import AT_ONCE
from gateway.service import Gateway
from tests.connect.conftest import declare
from tests.fakes.misbehaving import Turn
from tests.follower.conftest import Street
from tests.providers.signal_samples import github, github_installation
from tests.tokens.conftest import Account, connected
from tests.web.conftest import problem

REVOKED = github("github_app_authorization", action="revoked")


async def report(street: Street, name: str, profile: str, status: int) -> Any:
    """Platform code says what its call was answered."""
    body = {"type": "token_rejected", "access_profile": profile, "token_version": 1, "status": status}
    answer = await street.town.api("POST", f"{street.path(name)}/signals", body)
    assert answer.status_code == 200, answer.text
    return answer.json()["outcome"]


async def contested(street: Street) -> None:
    await street.connected("acme", "acme", "github", ("user:21031067",), "user")
    await street.deliver(REVOKED)
    await street.follow()


async def test_one_check_at_a_time_over_two_processes(street: Street, second: Gateway) -> None:
    """Both look at the same moment; the lease is one's, and the provider is asked once."""
    await contested(street)
    street.github.holds = True
    checkers = [gateway.checkers["default"] for gateway in (street.gateway, second)]
    running = [asyncio.create_task(checker.run_once()) for checker in checkers]
    await street.github.gate.until(1)
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    street.github.holds = False
    await street.github.gate.open()
    assert sorted(await asyncio.gather(*running)) == [0, 1]
    assert street.github.asked("/rate_limit") == 1


async def test_asked_anew_during_a_check_the_answer_decides_nothing(street: Street) -> None:
    """The provider said "alive" to a question that was sent before the second revocation came: it is asked once more."""
    await contested(street)
    street.github.holds = True
    running = asyncio.create_task(street.check())
    await street.github.gate.until(1)
    await street.deliver(REVOKED, delivery_id="2")
    await street.follow()
    street.github.holds = False
    await street.github.gate.open()
    assert await running == 1
    problem(await street.read("acme"), 409, "checking")
    street.github.dead.update({"acme user", "another"})
    assert await street.check() == 1
    assert await street.moved() == {"acme": {"user": "revoked"}}
    assert (street.github.asked("/rate_limit"), await street.checks()) == (2, 0)


async def test_a_lesser_word_during_a_check_does_not_soften_it(street: Street) -> None:
    """An installation said to be revoked is said to be suspended while that is checked: asked anew, for the graver of both."""
    await street.connected("acme", "acme", "github", ("installation:957387", "user:21031067"), "user")
    await street.deliver(REVOKED)
    await street.follow()
    street.github.holds = True
    running = asyncio.create_task(street.check())
    await street.github.gate.until(1)
    await street.deliver(github_installation("suspend"))
    await street.follow()
    street.github.holds = False
    await street.github.gate.open()
    await running
    problem(await street.read("acme"), 409, "checking")
    street.github.dead.update({"acme user", "another"})
    assert await street.check() == 1
    assert await street.moved() == {"acme": {"user": "revoked"}}
    [(_, told)] = await street.events("acme")
    assert (told["cause"], told["evidence"]["event"]) == ("authorization_revoked", (await street.deliveries())[0])


async def test_a_slow_check_whose_lease_is_over_decides_nothing(street: Street, second: Gateway) -> None:
    """Another process has taken it meanwhile, and has decided."""
    await contested(street)
    street.github.holds = True
    running = asyncio.create_task(street.check())
    await street.github.gate.until(1)
    await street.town.pass_s(61)
    street.github.holds = False
    assert await second.checkers["default"].run_once() == 1
    assert (await street.read("acme")).status_code == 200
    street.github.dead.update({"acme user", "another"})
    await street.github.gate.open()
    await running
    assert await street.moved() == {}
    assert (await street.outcomes("acme"))[-1] == ("acquitted", "refuted")


async def test_a_provider_is_asked_by_a_few_at_once(street: Street) -> None:
    """However many are due, so that one provider's slowness is not everybody's and its limits are kept."""
    for number in range(AT_ONCE + 3):
        await street.connected(f"c{number}", "acme", "github", ("user:21031067",), "user")
    await street.deliver(REVOKED)
    await street.follow()
    street.github.holds = True
    running = asyncio.create_task(street.check())
    await street.github.gate.until(AT_ONCE)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (street.github.asked("/rate_limit"), street.github.gate.held) == (AT_ONCE, AT_ONCE)
    street.github.holds = False
    await street.github.gate.open()
    assert await running == AT_ONCE + 3
    assert await street.checks() == 0


async def test_two_processes_ask_once(street: Street, second: Gateway) -> None:
    """While one asks, the other waits for its answer, and asks nothing: a strict provider would end the grant."""
    account = await at_the_sandbox(street)
    provider = street.town.provider

    async def late(turn: Turn) -> None:
        await turn.gate.wait()
        await turn.answer(*await turn.proceed())

    await street.town.pass_s(3600)
    provider.misbehave("refresh_token", late)
    first = asyncio.create_task(account.read())
    await provider.gate.until(1)
    waiting = asyncio.create_task(second.refresher.refresh(second.regions.home, account.id, "reader", (1, 1)))
    while not await street.town.count("refreshes WHERE waited"):  # noqa: ASYNC110 - of the database, which sets no event
        await asyncio.sleep(0)
    await provider.gate.open()
    told = (await first).json()
    await waiting
    assert (told["token_version"], told["state"]) == (2, "active")
    assert (provider.calls["refresh_token"], await street.town.count("refreshes")) == (1, 0)


async def test_a_probe_that_succeeds_repairs(street: Street) -> None:
    """Suspect at first, for nobody to be told; acquitted later: `repaired` silences whoever listens."""
    await street.connected("acme", "acme", "github", ("user:21031067",), "user", refresh=None)
    street.github.dead.update({"acme user", "another"})
    assert await report(street, "acme", "user", 401) == "suspect"
    street.github.dead.clear()
    await street.town.pass_s(600)
    assert await street.check() == 1
    assert [(kind, data["action"]) for kind, data in await street.events("acme")] == [
        ("suspect", "none"), ("repaired", "none"),
    ]  # fmt: skip
    [_, (_, told)] = await street.events("acme")
    assert (told["previous_state"], told["state"], told["cause"]) == ("suspect", "active", "probe_passed")


async def test_a_403_finds_that_scopes_are_gone(street: Street) -> None:
    """The probe tells what the token has: a required one is lost, and only a consent brings it back."""
    await street.connected(
        "acme", "acme", "slack", ("team:T1",), "bot", scopes=("channels:read", "chat:write"), refresh=None
    )
    street.slack.scopes = "channels:read,chat:write"
    assert await report(street, "acme", "bot", 403) == "works"
    assert await street.events("acme") == []
    street.slack.scopes = "channels:read"
    assert await report(street, "acme", "bot", 403) == "not_issued"
    grant = await street.grant("acme", "bot")
    assert (grant.state, grant.reason, grant.ledger.lost) == ("reauth_required", "scopes_lost", ("chat:write",))
    events = dict(await street.events("acme"))
    assert set(events) == {"scopes_changed", "reauth_required"}
    assert events["scopes_changed"]["access_profiles"]["bot"]["lost"] == ["chat:write"]
    assert events["reauth_required"]["action"] == "reconnect"
    problem(await street.read("acme"), 409, "reauth_required")


async def at_the_sandbox(street: Street) -> Account:
    await declare(street.town, "sandbox")
    account = await connected(street.town)
    street.known["acme"] = account.id
    return account
