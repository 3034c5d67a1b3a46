"""A backup holds refresh tokens that were superseded after it was made: none of them is sent unasked.

Dump, rotate, deliver, restore into another cluster: `toy.calls` is what the provider was asked. It rotates strictly, so a
superseded token that it sees ends the family.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.clock import Clock
from gateway.connections.grants import may_refresh
from gateway.service import Gateway
from gateway.settings import Settings
from tests import postgres
from tests.connections.conftest import api, command, gateway, settings, toy
from tests.connections.test_ending import connected
from tests.connections.test_import import LONG_AGO, brought, events, grant_of, line
from tests.connections.toy import Toy
from tests.stream.test_restore import dump, load
from tests.web.conftest import Api, lines, problem, served

__all__ = ["api", "command", "gateway", "lines", "settings", "toy"]

GOOGLE = {
    "name": "goog", "provider": "google", "client_id": "c.apps.googleusercontent.com", "client_secrets": ["a client's secret"],
    "access_profiles": {"reader": {"required": ["openid"]}},
}  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[postgres.Server]:
    """Another cluster than the one that is dumped."""
    with postgres.server() as made:
        yield made


async def expired(api: Api, connection: str) -> None:
    """As if its access token had run out."""
    await api.gateway.regions.home.database.execute(
        "UPDATE gateway.tokens SET expires_at = $2 WHERE connection_id = $1::uuid",
        connection.removeprefix("conn_"), (await api.gateway.regions.home.database.fetchval("SELECT gateway.now()")) - timedelta(hours=1),
    )  # fmt: skip


async def token(api: Api, connection: str) -> Any:
    return await api("GET", f"/v1/connections/{connection}/token")


async def page(api: Api, after: str = "earliest") -> Any:
    return await api("GET", "/v1/events", params={"after": after, "limit": 500})


async def test_restored_into_another_cluster(
    cluster: postgres.Server,
    api: Api,
    toy: Toy,
    settings: Settings,
    clock: Clock,
    tmp_path: Path,
    command: Any,
    capsys: Any,
    monkeypatch: Any,
) -> None:
    """Consumers are told where to go on; tokens are handed out while they live, probed, and refreshed on command only."""
    rotated, kept, replaced = (toy.consent(name) for name in ("rotated", "kept", "replaced"))
    one = await connected(api, rotated, 1)
    two = await connected(api, kept, 2)
    three = await connected(api, replaced, 3)
    assert (await api("POST", "/v1/integrations", GOOGLE)).status_code == 201
    [other] = await brought(api, line(4, integration="goog", access_profiles={
        "reader": {"access_token": "a", "refresh_token": "r", "expires_at": LONG_AGO, "scopes": ["openid"]}
    }))  # fmt: skip
    lease = (await api("POST", "/v1/consumers/c/lease", {"worker": "w", "ttl_s": 60})).json()
    before = (await page(api)).json()
    await expired(api, one)

    await dump(settings.database_url.get_secret_value(), tmp_path / "dump.sql")  # type: ignore[union-attr]
    read = await token(api, one)
    assert read.is_success, read.text
    assert read.json()["access_token"] == "at-rotated-0-1"
    toy.rotate(replaced)
    assert (
        await api("POST", "/v1/connections", {"tenant": "acme", "integration": "toy", "external_id": "late"})
    ).is_success
    after = (await page(api)).json()["next_cursor"]
    assert [token for path, token in toy.calls] == ["rt-rotated-0-0"]
    toy.calls.clear()
    await api.gateway.close()

    dsn = await cluster.create("restored")
    await load(dsn, tmp_path / "dump.sql")
    monkeypatch.setenv("POSTHOUSE_DATABASE_URL", dsn)
    restored = await Gateway.open(settings.model_copy(update={"database_url": SecretStr(dsn)}), clock)
    try:
        async with served(restored) as there:
            await _seen_by_consumers(there, before, after, lease)
            for connection in (one, two, three):
                grant = await grant_of(there, connection)
                assert (grant.state, grant.reason, grant.restored) == ("suspect", "restored", True)
            spared = await grant_of(there, other["connection"])
            assert (spared.state, may_refresh(spared)) == ("active", True), "Google's refresh tokens hold"

            # Nothing that anybody does sends a refresh token; what has not run out is handed out.
            assert (await token(there, two)).json()["access_token"] == kept.access
            assert (await token(there, one)).status_code in (409, 503)
            await restored.look_for_restores()
            assert toy.calls == []

            assert await command("restored", "--probe", "toy") == 0
            assert capsys.readouterr().out.startswith("toy: 1 works, 1 refused, 0 undecided\n")
            assert sorted(toy.calls) == [("/me", "at-kept-1-0"), ("/me", "at-replaced-2-0")]
            states = [await grant_of(there, connection) for connection in (one, two, three)]
            assert [(grant.state, grant.reason) for grant in states] == [
                ("suspect", "restored"), ("active", None), ("reauth_required", "token_rejected"),
            ]  # fmt: skip
            assert not any(map(may_refresh, states)), "a working access token says nothing of its refresh token"
            toy.calls.clear()
            await expired(there, two)
            assert (await token(there, two)).status_code in (409, 503)
            assert toy.calls == []
            assert all(family.alive for family in toy.families)

            assert await command("restored", "--release", "toy") == 0
            assert "toy: 3 grants released\nnothing is set aside\n" in capsys.readouterr().out
            assert (await token(there, two)).json()["access_token"] == "at-kept-1-1"
            assert toy.calls == [("/token", "rt-kept-1-0")]
    finally:
        await restored.close()


async def _seen_by_consumers(there: Api, before: Any, after: str, lease: Any) -> None:
    """A cursor of before is told so, with the way on; a stored one goes on; what was delivered since is lost."""
    for cursor in (before["next_cursor"], after):
        told = problem(await page(there, cursor), 410, "cursor_gone")
        again = (await page(there, told["earliest"])).json()
        ids = [one["event"]["id"] for one in again["items"]]
        assert ids[: len(before["items"])] == [one["event"]["id"] for one in before["items"]]
    names = [name for name, _ in await events(there)]
    assert names.count("suspect") == 3
    assert json.dumps(again).count("late") == 0
    leased = await there("POST", "/v1/consumers/c/lease", {"worker": "w", "ttl_s": 60})
    assert len(leased.json()["partitions"]) == len(lease["partitions"])


async def test_files_that_were_copied_back(api: Api, toy: Toy, command: Any, capsys: Any) -> None:
    """Nothing in the database tells: the operator does. A process that has been serving all the while obeys at once."""
    family = toy.consent("a")
    connection = await connected(api, family, 1)
    held = await connected(api, toy.consent("b"), 2, hold=True)
    cursor = (await page(api)).json()["next_cursor"]
    assert await command("restored", "--status") == 0
    assert capsys.readouterr().out == "nothing is set aside\n"
    assert await command("restored") == 0
    assert capsys.readouterr().out.startswith("set aside the grants of 2 connections;")
    problem(await page(api, cursor), 410, "cursor_gone")
    await expired(api, connection)
    assert (await token(api, connection)).status_code in (409, 503)
    assert toy.calls == []
    assert await command("restored", "--release", "nothing") == 1
    assert await command("restored", "--release", "toy", "--probe", "toy") == 1
    assert await command("restored", "--release", "toy") == 0
    assert (await token(api, connection)).json()["access_token"] == family.access == "at-a-0-1"
    assert await command("restored") == 0
    assert await command("restored", "--release-all") == 0
    assert "2 grants released\n" in capsys.readouterr().out
    grant = await grant_of(api, held)
    assert (grant.held, grant.restored, may_refresh(grant)) == (True, False, False), "a hold is another thing"
    assert [name for name, _ in await events(api)][-8:] == ["suspect", "suspect", "repaired", "repaired"] * 2


async def test_an_operators_word_proves_nothing_of_what_is_contested(api: Api, toy: Toy, command: Any) -> None:
    """What a restore has set aside is let go; that a provider says it is over is for a check to decide."""
    connection = await connected(api, toy.consent("a"), 1)
    database = api.gateway.regions.home.database
    await database.execute("UPDATE gateway.grants SET contested = true")
    assert await command("restored") == 0
    assert await command("restored", "--release-all") == 0
    grant = await grant_of(api, connection)
    assert (grant.state, grant.restored, grant.contested) == ("active", False, True)
    assert problem(await token(api, connection), 409, "checking")["do"] == "wait"


async def test_until_all_are_marked_nothing_is_refreshed(api: Api, toy: Toy) -> None:
    """Between the new epoch and the end of the marking, every grant counts as restored, of whatever provider."""
    connection = await connected(api, toy.consent("a"), 1)
    database = api.gateway.regions.home.database
    await database.execute("UPDATE gateway.epoch SET identity = 'another cluster'")
    assert not may_refresh(await grant_of(api, connection))
    await api.gateway.look_for_restores()
    grant = await grant_of(api, connection)
    assert (grant.state, grant.restored) == ("suspect", True)
    [behind] = await database.fetch("SELECT epoch = tokens_epoch AS looked FROM gateway.epoch")
    assert behind["looked"]


async def test_an_integration_that_cannot_make_calls_is_named(api: Api, toy: Toy, command: Any, capsys: Any) -> None:
    """One line, and no grant of it is judged."""
    bare = {"name": "bare", "provider": "toy", "settings": {"base": toy.url}, "access_profiles": {"reader": {}}}
    assert (await api("POST", "/v1/integrations", bare)).status_code == 201
    tokens = {**line(1)["access_profiles"]["reader"], "scopes": []}
    [made] = await brought(api, line(1, integration="bare", access_profiles={"reader": tokens}))
    assert made["result"] == "imported", made
    assert await command("restored") == 0
    capsys.readouterr()
    assert await command("restored", "--probe", "bare") == 1
    assert capsys.readouterr().err.splitlines() == ["posthouse: bare cannot make calls: client_id_missing"]
    assert (await grant_of(api, made["connection"])).state == "suspect"
    assert toy.calls == []
