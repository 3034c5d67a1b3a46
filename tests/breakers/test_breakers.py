"""Breakers over processes, on the real store: what one finds out, all keep to; and one canary goes out over all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.breakers.breakers import BUSY_S, IDLE_S
from gateway.breakers.ways import Shut, way_of
from gateway.connections import conditions
from gateway.connections.guard import LIMITS
from providers.errors import GrantEnded, Misconfigured, NotAllowed, RateLimited, Unreachable
from tests.breakers.conftest import Field, Process

DOWN = Unreachable("timed_out")


async def test_what_one_process_finds_out_another_keeps_to(fields: Field, one: Process, two: Process) -> None:
    """Five failures shut the way for both; other providers and other kinds of call go on."""
    assert await one.calls(6, DOWN) == ["made"] * 5 + ["failing 1"]
    assert await two.call() == "made"  # it has not looked yet
    await two.breakers.run_once()
    assert await two.call() == "failing 1"
    assert await two.call(way=two.way("google")) == "made"
    assert await two.call(way=two.way("slack", "api")) == "made"
    assert await fields.open() == {"token:slack.com": "failing"}


async def test_one_canary_goes_out_over_all_processes(fields: Field, one: Process, two: Process) -> None:
    """At most one call a second while the provider is down, whoever asks how often."""
    await one.calls(5, DOWN)
    await two.breakers.run_once()
    for pause_s in (1, 2, 4, 8, 15, 15):
        await fields.pass_s(pause_s - 0.5)
        assert {*await one.calls(3, DOWN), *await two.calls(3, DOWN)} <= {"failing 0", "failing 1"}
        await fields.pass_s(0.5)
        told = [told for process in (two, one) for told in await process.calls(3, DOWN)]
        assert told.count("made") == 1
    assert await fields.events() == [("provider.breaker_opened", (await fields.events())[0][1])]


async def test_a_turn_that_both_want_is_given_once(fields: Field, one: Process, two: Process) -> None:
    """At the same moment, and while the canary is still out."""
    await one.calls(5, DOWN)
    await fields.pass_s(1)
    out, back = asyncio.Event(), asyncio.Event()

    async def hangs(process: Process) -> str:
        try:
            async with process.breakers.call(process.way()):
                out.set()
                await back.wait()
        except Shut as shut:
            return shut.why
        return "made"

    tasks = [asyncio.create_task(hangs(process)) for process in (one, two) for _ in range(5)]
    await out.wait()
    for left_s in (25, 20, 15):  # a canary that says nothing by then leaves its turn
        await fields.pass_s(5)
        assert {*await one.calls(2), *await two.calls(2)} == {f"failing {left_s}"}
    back.set()
    told = await asyncio.gather(*tasks)
    assert sorted(told) == sorted(["failing"] * 9 + ["made"])


async def test_three_canaries_that_pass_open_it_for_all(fields: Field, one: Process, two: Process) -> None:
    """One after the other, a second apart; one that fails begins anew. Said once, with how many failed."""
    await one.calls(5, DOWN)
    for process, error in ((two, None), (one, None), (two, DOWN), (one, None), (two, GrantEnded()), (one, None)):
        assert "provider.breaker_closed" not in [name for name, _ in await fields.events()]
        await fields.pass_s(2)
        assert await process.call(error) == "made"
        assert await process.call() == "made" if await fields.open() == {} else "failing 1"
    await fields.pass_s(BUSY_S)
    assert await one.calls(4, DOWN) == ["made"] * 4  # it begins anew
    assert await two.calls(2) == ["made"] * 2
    assert await fields.open() == {}
    (opened, said), (closed, more) = await fields.events()
    assert (opened, closed) == ("provider.breaker_opened", "provider.breaker_closed")
    assert said == {
        "provider": "slack", "kind": "token", "host": "slack.com", "why": "failing", "code": "timed_out",
        "since": said["since"],
    }  # fmt: skip
    assert more == {**said, "failures": 2}


async def test_both_trip_and_it_is_said_once(fields: Field, one: Process, two: Process) -> None:
    """The one that comes second finds the row."""
    await one.calls(4, DOWN)
    await two.calls(4, DOWN)
    await asyncio.gather(one.call(DOWN), two.call(DOWN))
    assert [name for name, _ in await fields.events()] == ["provider.breaker_opened"]
    assert {await one.call(), await two.call()} == {"failing 1"}


async def test_retry_after_is_kept_to_the_second(fields: Field, one: Process, two: Process) -> None:
    """No canary before; then one; and nothing is said of it on the stream."""
    assert await one.call(RateLimited(retry_after_s=17)) == "made"
    await two.breakers.run_once()
    assert {await one.call(), await two.call()} == {"limited 17"}
    await fields.pass_s(16)
    assert {await one.call(), await two.call()} == {"limited 1"}
    await fields.pass_s(1)
    assert await two.call(RateLimited(retry_after_s=40)) == "made"
    assert await one.call() == "limited 40"
    await fields.pass_s(40)
    assert await two.call() == "made"
    await one.breakers.run_once()
    assert {await one.call(), await two.call()} == {"made"}
    assert await fields.events() == []


async def test_a_limit_that_is_said_again_while_calls_are_out_ends_with_the_later(fields: Field, one: Process) -> None:
    for told_s in (20, 60, 10):
        await asyncio.gather(one.call(RateLimited(retry_after_s=told_s)), one.call(RateLimited(retry_after_s=5)))
        if told_s == 20:
            assert await one.call() == "limited 20"
            await fields.pass_s(20)
    assert await one.call() == "limited 60"


async def test_an_outage_and_a_limit_are_told_apart(fields: Field, one: Process) -> None:
    """A canary of a breaker that is answered 429 has been answered; then the limit counts."""
    await one.calls(5, DOWN)
    await fields.pass_s(1)
    assert await one.call(RateLimited(retry_after_s=90)) == "made"
    assert await fields.open() == {"token:slack.com": "failing", "limited:token:slack.com": "limited"}
    assert await one.call() == "limited 90"
    await fields.pass_s(90)
    assert await one.call() == "made"  # canary of both
    assert await fields.open() == {"token:slack.com": "failing"}
    await fields.pass_s(1)
    assert await one.call() == "made"
    assert await fields.open() == {}


async def test_an_incident_stops_hammering_and_ends_with_a_changed_set_up(
    fields: Field, one: Process, two: Process
) -> None:
    """One refusal of the client is enough; the canary after `apply` is one over all processes, and its success the end."""
    assert await one.call(Misconfigured("invalid_client")) == "made"
    assert await one.calls(3) == ["misconfigured 60"] * 3
    await two.breakers.run_once()
    assert await two.call() == "misconfigured 60"
    assert await two.call(way=two.way("slack", "api")) == "made"  # tokens that there are work on
    await fields.pass_s(60)
    assert [await one.call(Misconfigured("invalid_client")), await two.call()] == ["made", "misconfigured 120"]
    await fields.apply("slack", b"the right one")
    await two.catalog.refresh()
    await two.breakers.run_once()
    await one.breakers.run_once()
    assert "misconfigured" in await one.call()  # it has the old secret in memory still
    assert await two.call() == "made"
    await one.catalog.refresh()
    await one.breakers.run_once()
    assert {await one.call(), await two.call()} == {"made"}
    (opened, said), (closed, more) = await fields.events()
    assert (opened, closed) == ("integration.incident_opened", "integration.incident_closed")
    assert (said["integration"], said["kind"], said["code"]) == ("slack", "token", "invalid_client")
    assert said["integration_id"].startswith("int_")
    assert more["failures"] == 2
    assert "secret" not in str(await fields.events())


async def test_a_change_that_does_not_mend_it_is_tried_once(fields: Field, one: Process, two: Process) -> None:
    """Each process sees the change, and one canary goes out."""
    await one.call(Misconfigured("invalid_client"))
    await fields.apply("slack", b"another wrong one")
    made = []
    for process in (one, two, one, two):
        await process.catalog.refresh()
        await process.breakers.run_once()
        made.append(await process.call(Misconfigured("invalid_client")))
    assert made.count("made") == 1
    assert set(made[1:]) == {"misconfigured 120"}


async def test_an_incident_of_an_integration_that_is_gone_ends(fields: Field, one: Process) -> None:
    await one.call(Misconfigured("invalid_client"))
    await fields.database.execute("DELETE FROM control.integrations WHERE name = 'slack'")
    await fields.database.execute("UPDATE control.state SET revision = revision + 1")
    await one.catalog.refresh()
    await one.breakers.run_once()
    assert await fields.open() == {}
    assert [name for name, _ in await fields.events()] == ["integration.incident_opened", "integration.incident_closed"]


async def test_a_host_of_a_user_s_choice_is_not_the_integration_s_fault(fields: Field, one: Process) -> None:
    """What one shop's name leads to bars that shop alone."""
    odd, fine = one.way("shopify", shop="odd"), one.way("shopify", shop="fine")
    assert await one.calls(6, NotAllowed("address_not_public"), odd) == ["made"] * 5 + ["failing 1"]
    assert await one.call(way=fine) == "made"
    assert await fields.open() == {"token:odd.myshopify.com": "failing"}
    assert await one.call(NotAllowed("host_not_listed"), one.way("google")) == "made"
    assert await one.call(way=one.way("google")) == "misconfigured 60"


async def test_what_nobody_tries_any_more_is_forgotten(fields: Field, one: Process) -> None:
    """The last shop at that host was removed: its breaker would be open for ever."""
    await one.calls(5, DOWN, one.way("shopify", shop="gone"))
    await fields.pass_s(3500)
    assert await fields.open() != {}
    await fields.pass_s(200)
    assert await fields.open() == {}


async def test_the_guard_shuts_token_calls_but_those_it_has_let_through(fields: Field, one: Process) -> None:
    """Ordinary calls take a turn of its canaries now and then; the block is told so."""
    way = one.way("slack")
    async with fields.database.transaction() as tx:
        await tx.execute(conditions.MAKE, way.condition)
        await tx.execute(conditions.DEGRADE, way.condition, "refused", LIMITS.canary_s)
    await one.breakers.run_once()
    assert (await one.call()).startswith("guarded")
    assert await one.call(told=True) == "made"
    assert await one.call(way=one.way("slack", "api")) == "made"
    assert one.breakers.room(one.integration("slack"), "token") == 0
    await fields.pass_s(LIMITS.canary_s)
    assert one.breakers.room(one.integration("slack"), "token") == 1
    async with one.breakers.call(way) as in_place_of_a_canary:
        assert in_place_of_a_canary
    assert (await one.call()).startswith("guarded")
    async with one.breakers.call(one.way("google")) as in_place_of_a_canary:
        assert not in_place_of_a_canary


async def test_the_room_that_the_scheduler_has(fields: Field, one: Process) -> None:
    """What the budget and the places leave; one while a canary is due; none while it is shut."""
    slack, google = one.integration("slack"), one.integration("google")
    assert one.breakers.room(slack, "token") == 32
    many = await fields.process(calls_per_s=10.0, provider_calls_per_s={"google": 20.0}, calls_at_once=100)
    assert (many.breakers.room(slack, "token"), many.breakers.room(google, "token")) == (8, 16)
    assert await many.calls(5, DOWN) == ["made"] * 5
    assert many.breakers.room(slack, "token") == 0
    await fields.pass_s(1)
    assert many.breakers.room(slack, "token") == 1
    assert await many.call(DOWN, ahead=True) == "made"
    assert many.breakers.room(slack, "token") == 0


async def test_a_budget_is_shared_by_the_processes_that_live(fields: Field, one: Process, two: Process) -> None:
    """Calls ahead do not wait; users do, for what is to come within five seconds."""
    assert one.breakers.rate("slack") == 50
    for _ in range(2):
        await fields.database.execute(
            "INSERT INTO gateway.processes VALUES (gen_random_uuid(), gateway.now(), gateway.now())"
        )
    await one.breakers.run_once()
    assert one.breakers.rate("slack") == 25
    for _ in range(25):
        assert await one.call() == "made"
    assert await one.call(ahead=True) == "budget 0"
    assert await one.call() == "made"
    assert one.slept == [pytest.approx(0.04)]
    await fields.pass_s(36)  # nobody has heard of the others for so long
    assert one.breakers.rate("slack") == 50


async def test_second_tries_are_a_fifth_of_the_calls(fields: Field, one: Process) -> None:
    """Beside a few; those ahead of time do not wait for another."""
    assert [await one.call(again=True, ahead=True) for _ in range(11)] == ["made"] * 10 + ["budget 0"]
    assert await one.calls(5) == ["made"] * 5
    assert [await one.call(again=True, ahead=True) for _ in range(2)] == ["made", "budget 0"]
    assert await one.call(again=True) == "made"
    assert one.slept == [pytest.approx(0.5)]


async def test_an_idle_process_asks_one_question_in_ten_seconds(fields: Field, one: Process, two: Process) -> None:
    """One that makes calls asks every second; all are told at once of what one of them finds out."""
    asked = 0
    acquire = fields.database.acquire

    def counted(limit_s: float | None = None) -> Any:
        nonlocal asked
        asked += 1
        return acquire(limit_s)

    fields.database.acquire = counted  # type: ignore[method-assign]
    await one.breakers.run_once()
    assert asked / IDLE_S <= 0.1
    one.breakers.wake.clear()
    assert await one.call() == "made"
    assert not one.breakers.wake.is_set()
    fields.clock.move(BUSY_S)
    assert await one.call() == "made"
    assert one.breakers.wake.is_set()  # for the loop around `run_once`
    assert asked == 1
    two.breakers.wake.clear()
    await two.breakers.start()
    try:
        async with asyncio.timeout(30):
            await two.breakers.wake.wait()  # it listens
            two.breakers.wake.clear()
            await one.calls(5, DOWN)
            await two.breakers.wake.wait()
    finally:
        await two.breakers.stop()


async def test_what_it_learns_is_never_worth_more_than_what_the_call_brought(fields: Field, one: Process) -> None:
    """The database fails when it is to be written: the call ends as it does, and the next one that fails is written."""
    await one.calls(4, DOWN)
    await fields.database.execute("ALTER TABLE gateway.breakers RENAME TO away")
    assert await one.call(DOWN) == "made"
    await fields.database.execute("ALTER TABLE gateway.away RENAME TO breakers")
    assert await fields.open() == {}
    assert await one.call(DOWN) == "made"
    assert await one.call() == "failing 1"


async def test_who_is_called_off_teaches_nothing(fields: Field, one: Process) -> None:
    async def cut() -> None:
        async with one.breakers.call(one.way()):
            await asyncio.Event().wait()

    for _ in range(6):
        task = asyncio.create_task(cut())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await one.calls(4, DOWN) == ["made"] * 4
    assert await fields.open() == {}


@pytest.mark.parametrize(
    ("name", "kind", "parameters", "host", "chosen"),
    [
        ("google", "token", {}, "oauth2.googleapis.com", False),
        ("slack", "api", {}, "slack.com", False),
        ("github", "token", {}, "github.com", False),
        ("github", "api", {}, "api.github.com", False),
        ("shopify", "token", {"shop": "mine"}, "mine.myshopify.com", True),
        ("shopify", "token", {}, "{shop}.myshopify.com", True),
        ("shopify", "token", {"shop": "evil.example/"}, "{shop}.myshopify.com", True),
    ],
)
async def test_where_a_call_goes(
    one: Process, name: str, kind: str, parameters: dict[str, str], host: str, chosen: bool
) -> None:
    way = one.way(name, kind, **parameters)
    assert (way.host, way.chosen) == (host, chosen)


async def test_a_minted_token_comes_from_the_api(one: Process) -> None:
    assert way_of(one.integration("github"), "token", minted=True).host == "api.github.com"
