"""The end of a connection: at once for us, then at the provider, unless that would end somebody else's too."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway import ids
from gateway.clock import Clock
from gateway.connections import grants, transitions
from gateway.connections.fences import NAMED_FOR_EVER
from gateway.connections.moves import Move
from gateway.connections.telling import Because
from gateway.ending import tasks
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault.tokens import Place, SealBroken
from providers.calls import Http
from providers.oauth import App, TokenSet
from providers.registry import all_providers
from tests.connections.test_import import brought, count, events, line
from tests.connections.toy import Family, Toy, serving
from tests.flows.house import metric
from tests.web.conftest import Api, served


async def connected(
    api: Api, family: Family, number: int, *, reach: bool = True, profiles: tuple[str, ...] = ("reader",), **how: Any
) -> str:
    """A connection with `family`'s tokens; its id."""
    whole = line(number)
    tokens = {**whole["access_profiles"]["reader"], "access_token": family.access, "refresh_token": family.refresh}
    whole["accounts"] = [f"user:{family.account}"]
    whole["access_profiles"] = dict.fromkeys(profiles, tokens)
    [made] = await brought(api, {**whole, **({"reach": family.account} if reach else {})}, **how)
    assert made["result"] == "imported", made
    connection: str = made["connection"]
    return connection


async def close(api: Api, connection: str) -> None:
    assert (await api("DELETE", f"/v1/connections/{connection}")).status_code == 204


async def ending(api: Api, connection: str) -> str | None:
    told = (await api("GET", f"/v1/connections/{connection}")).json()
    assert told["state"] == "closed"
    return None if told["ending"] is None else str(told["ending"]["revocation"])


async def ended(api: Api, connection: str) -> str | None:
    """What became of it once nothing is pending; the gateway's own loop may be at it too."""
    async with asyncio.timeout(20):
        while (found := await ending(api, connection)) == "pending":
            await work(api)
    return found


async def work(api: Api) -> int:
    return await api.gateway.closing_worker(api.gateway.regions.home).run_once()


async def shift(api: Api, by: timedelta) -> None:
    await api.gateway.regions.home.database.execute("UPDATE gateway.clock SET shifted_by = shifted_by + $1", by)


@pytest.mark.parametrize("reach", [True, False], ids=["reach is known", "only accounts are known"])
async def test_two_tenants_on_one_account(api: Api, toy: Toy, reach: bool) -> None:
    """Ending one leaves the other working; ending the last one ends it at the provider."""
    mine, theirs, apart = toy.consent("shared"), toy.consent("shared"), toy.consent("other")
    first = await connected(api, mine, 1, reach=reach)
    second = await connected(api, theirs, 2, reach=reach)
    third = await connected(api, apart, 3, reach=reach)

    await close(api, first)
    assert await ended(api, first) == "not_needed"
    assert toy.calls == []
    assert toy.alive("shared")

    await close(api, second)
    assert await ended(api, second) == "done"
    assert toy.calls == [("/revoke", theirs.refresh)]
    assert not toy.alive("shared")
    assert toy.alive("other")
    await close(api, third)
    assert await ended(api, third) == "done"
    await close(api, third)  # again: nothing new
    assert await ended(api, third) == "done"
    assert [name for name, _ in await events(api) if name == "closed"] == ["closed"] * 3
    for table in ("tokens", "closing_tasks", "connection_accounts"):
        assert await count(api, table) == 0


async def test_both_ended_together_are_both_revoked(api: Api, toy: Toy) -> None:
    """Neither counts on the other to live on, in whatever order the tasks are done."""
    families = [toy.consent("shared") for _ in range(2)]
    made = [await connected(api, family, number) for number, family in enumerate(families)]
    await asyncio.gather(*(close(api, connection) for connection in made))
    assert "done" in [await ended(api, connection) for connection in made]
    assert not toy.alive("shared")


async def test_at_once_here_while_the_provider_is_out_of_order(api: Api, toy: Toy, command: Any, capsys: Any) -> None:
    """Closed and on the stream with the answer; the tokens lie sealed for that alone; tried again, later each time."""
    toy.out_of_order = True
    family = toy.consent("a")
    connection = await connected(api, family, 1, profiles=("reader", "writer"))
    assert await command("connections", "close", connection) == 0
    assert capsys.readouterr().out.endswith("revocation at the provider: pending\n")
    assert (await events(api))[-1][0] == "closed"
    assert await count(api, "tokens") == 0
    database, id = api.gateway.regions.home.database, ids.parse(ids.CONNECTION, connection)
    assert id is not None
    async with asyncio.timeout(20):
        while (
            await database.fetchval("SELECT min(tries) FROM gateway.closing_tasks WHERE lease_until < gateway.now()")
            != 1
        ):
            await work(api)
    row = await database.fetchrow("SELECT * FROM gateway.closing_tasks LIMIT 1")
    assert (row["last_error"], row["until"] - row["due_at"] < timedelta(hours=72)) == ("unreachable", True)
    place = Place("default", "globex", id, row["access_profile"], 1, 1)
    for purpose in ("access_token", "refresh_token", "closing"):
        with pytest.raises(SealBroken):
            await api.gateway.regions.home.tokens.open(place, purpose, row["data_key_version"], row["sealed"])  # type: ignore[arg-type]
    assert await ending(api, connection) == "pending"

    asked = len(toy.calls)
    await work(api)
    assert len(toy.calls) == asked, "not before it is due"
    toy.out_of_order = False
    before = metric("posthouse_closing_ended_total", integration="toy", outcome="done")
    await shift(api, timedelta(minutes=2))
    assert await ended(api, connection) == "done"
    assert not toy.alive("a")
    assert metric("posthouse_closing_ended_total", integration="toy", outcome="done") - before == 2


async def test_a_fault_of_ours_ends_in_time_too(api: Api, toy: Toy) -> None:
    """A module that raises what it should not: others are revoked beside it, and its tokens are shredded in the end."""
    connections = [await connected(api, toy.consent(name), number) for number, name in enumerate("ab", 1)]
    whole = all_providers()["toy"]
    assert whole.revoke is not None
    working = whole.revoke

    async def faulty(http: Http, app: App, tokens: TokenSet) -> None:
        if "-a-" in tokens.access_token:
            raise RuntimeError("a fault")
        await working(http, app, tokens)

    all_providers()["toy"] = replace(whole, revoke=faulty)
    await api.gateway.catalog.refresh()
    try:
        for connection in connections:
            await close(api, connection)
        assert await ended(api, connections[1]) == "done"
        assert await ending(api, connections[0]) == "pending"
        await shift(api, timedelta(hours=73))
        assert await ended(api, connections[0]) == "given_up"
    finally:
        all_providers()["toy"] = whole
    assert await count(api, "closing_tasks") == 0


async def test_given_up_after_72_hours(api: Api, toy: Toy) -> None:
    """Then the tokens are shredded all the same."""
    toy.out_of_order = True
    connection = await connected(api, toy.consent("a"), 1)
    await close(api, connection)
    await work(api)
    await shift(api, timedelta(hours=73))
    assert await ended(api, connection) == "given_up"
    assert await count(api, "closing_tasks") == 0


async def test_a_task_survives_whoever_worked_on_it(
    gateway: Gateway, api: Api, toy: Toy, settings: Settings, clock: Clock
) -> None:
    """A process dies between the commit and the revocation: another one takes the task when the lease has ended."""
    toy.out_of_order = True
    connection = await connected(api, toy.consent("a"), 1)
    await close(api, connection)
    async with asyncio.timeout(20):  # ours, and not the gateway's own loop's
        while not await tasks.claim(gateway.regions.home.database, 1):
            await shift(api, timedelta(minutes=10))
    await gateway.close()
    toy.out_of_order = False
    another = await Gateway.open(settings, clock)
    try:
        async with served(another) as at_another:
            assert await ending(at_another, connection) == "pending"
            await shift(at_another, timedelta(seconds=tasks.LEASE_S + 1))
            assert await ended(at_another, connection) == "done"
    finally:
        await another.close()
    assert not toy.alive("a")


async def test_a_consent_under_way_is_waited_for(api: Api, toy: Toy) -> None:
    """The account is being connected anew: revoking now would kill what it is about to bring."""
    connection = await connected(api, toy.consent("a"), 1)
    database = api.gateway.regions.home.database
    subject = await database.fetchval("SELECT subject_hash FROM gateway.connections")
    integration = api.gateway.catalog.integration("toy")
    assert integration is not None
    await database.execute(
        "INSERT INTO gateway.connect_sessions (id, tenant_id, integration_id, connection_id, reconnects, profiles, asked, state, "
        "link_hash, subject_hash, created_at, expires_at) SELECT gen_random_uuid(), 'acme', $1, gen_random_uuid(), false, '{}', "
        "'{}', 'returned', 'x', $2, gateway.now(), gateway.now() + interval '10 minutes'",
        integration.id, subject,
    )  # fmt: skip
    await close(api, connection)
    await work(api)
    async with asyncio.timeout(20):
        while await database.fetchval("SELECT last_error FROM gateway.closing_tasks") != "consent_under_way":
            await work(api)
    assert toy.calls == []
    await shift(api, timedelta(minutes=11))
    assert await ended(api, connection) == "done"


async def test_what_another_system_still_uses_is_not_revoked(api: Api, toy: Toy) -> None:
    """A held connection belongs to the system it was imported from; what was revoked already needs no more."""
    held = await connected(api, toy.consent("a"), 1, hold=True)
    await close(api, held)
    assert await ended(api, held) == "not_needed"
    revoked = await connected(api, toy.consent("b"), 2)
    id = ids.parse(ids.CONNECTION, revoked)
    assert id is not None
    because = Because(cause="tokens_revoked", source="delivery")
    [grant] = await grants.of(api.gateway.regions.home.database, [id])
    move = Move(
        connection=id, access_profile=grant.access_profile, signal="revoked", because=because, fence=NAMED_FOR_EVER
    )
    async with api.gateway.regions.home.database.transaction() as tx:
        await transitions.apply(tx, [move], api.gateway.new_id)
    await close(api, revoked)
    assert await ended(api, revoked) == "not_needed"
    assert toy.calls == []
    assert toy.alive("a")
    plain = (await api("POST", "/v1/connections", {"tenant": "acme", "integration": "toy"})).json()
    await close(api, plain["id"])
    assert await ended(api, plain["id"]) is None


async def test_a_token_of_its_own_is_revoked_whoever_shares_the_account(settings: Settings, clock: Clock) -> None:
    """Where a revocation reaches one token only, nobody else is to be asked."""
    async with serving(revoke_reach="token") as toy:
        gateway = await Gateway.open(settings, clock)
        try:
            async with served(gateway) as api:
                await api("PUT", "/v1/tenants/acme", {})
                await api("PUT", "/v1/tenants/globex", {})
                asked = {
                    "name": "toy", "provider": "toy", "client_id": "c", "client_secrets": ["a client's secret"],
                    "settings": {"base": toy.url}, "access_profiles": {"reader": {"required": ["read"]}},
                }  # fmt: skip
                assert (await api("POST", "/v1/integrations", asked)).status_code == 201
                mine = toy.consent("shared")
                first = await connected(api, mine, 1)
                await connected(api, toy.consent("shared"), 2)
                await close(api, first)
                assert await ended(api, first) == "done"
                assert toy.calls == [("/revoke", mine.refresh)]
        finally:
            await gateway.close()
