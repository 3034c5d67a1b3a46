"""Refreshing what has expired: once, without losing anything, and never concluding more than was said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from gateway import exchange, ids
from gateway.connections import grants
from gateway.connections.scopes import Ledger
from gateway.settings import Settings
from gateway.vault.tokens import Place
from providers.errors import Misconfigured
from providers.oauth import SHORT_S, App, TokenSet
from providers.registry import all_providers
from tests.clock import FakeClock
from tests.connect.conftest import Town
from tests.fakes.misbehaving import changed, error, rate_limited
from tests.flows.house import metric
from tests.stream.lossy import LossyWire, lossy
from tests.tokens.conftest import Account, connected
from tests.web.conftest import problem

HOUR_S = 3600


async def test_one_expired_token_and_any_number_of_callers_are_one_refresh(account: Account) -> None:
    """Waiters get the winner's token; it is stored with its refresh token, which works the next time."""
    first = (await account.read()).json()
    for round in (2, 3):
        await account.town.pass_s(HOUR_S)
        answers = [answer.json() for answer in await asyncio.gather(*(account.read() for _ in range(40)))]
        assert {answer["access_token"] for answer in answers} == {await account.town.token(await account.grant())}
        assert {answer["token_version"] for answer in answers} == {round}
        assert account.refreshes == round - 1
    assert first["access_token"] != answers[0]["access_token"]
    assert answers[0]["access_token"] in account.town.provider.sandbox.tokens
    assert [name for name, _ in await account.town.events()] == ["active"]


async def test_what_lives_long_enough_is_not_refreshed(account: Account) -> None:
    """`min_ttl_s` counts up to half of a token's life: asking for more does not burn a new one with each read."""
    assert (await account.read(min_ttl_s=86400)).json()["token_version"] == 1
    await account.town.pass_s(HOUR_S - 100)
    assert (await account.read(min_ttl_s=60)).json()["token_version"] == 1
    assert (await account.read(min_ttl_s=86400)).json()["token_version"] == 2
    assert account.refreshes == 1


TROUBLE: list[tuple[Any, str, int]] = [
    ("html", "provider_unavailable", 5),
    ("server_error", "provider_unavailable", 5),
    ("empty", "provider_unavailable", 5),
    ("no_access_token", "provider_unavailable", 5),
    ("number_for_token", "provider_unavailable", 5),
    (error("a_new_word"), "provider_unavailable", 5),
    (error("temporarily_unavailable", 503), "provider_unavailable", 5),
    (rate_limited(7), "provider_unavailable", 7),
    ("invalid_client", "integration_broken", 60),
    (error("invalid_scope"), "integration_broken", 60),
]


@pytest.mark.parametrize(("how", "code", "after_s"), TROUBLE)
async def test_trouble_moves_no_connection_and_is_not_hammered_at(
    account: Account, clock: FakeClock, how: Any, code: str, after_s: int
) -> None:
    """An unexpired token is served all the while. An expired one: 503 that says when, and one call until then."""
    town = account.town
    town.provider.rules(rotation="none")
    town.provider.misbehave("refresh_token", how, times=None)
    await town.pass_s(HOUR_S - 30)
    assert (await account.read(min_ttl_s=0)).json()["token_version"] == 1
    await town.pass_s(30)
    for _ in range(3):
        answer = await account.read()
        assert problem(answer, 503, code)["title"]
        assert 1 <= int(answer.headers["retry-after"]) <= after_s
        assert "hunter2" not in answer.text
    assert account.refreshes == 1
    assert (await account.grant()).state == "active"
    town.provider.behave()
    clock.move(after_s)
    await town.pass_s(after_s)
    assert (await account.read()).json()["token_version"] == 2
    assert [name for name, _ in await town.events()] == ["active"]


USED = """SELECT EXISTS (SELECT FROM gateway.renewals WHERE connection_id = $1
                          AND used_at > gateway.now() - interval '1 minute')"""


async def test_asking_in_vain_is_use(account: Account) -> None:
    """Who asks during an outage counts as a user: the connection is renewed when it is over, before he asks again."""
    town = account.town
    [region] = town.gateway.regions
    await account.read()
    await region.traffic.run_once()
    town.provider.misbehave("refresh_token", "server_error", times=None)
    await town.pass_s(2 * HOUR_S)
    assert not await region.database.fetchval(USED, account.id)
    assert (await account.read()).status_code == 503
    await region.traffic.run_once()
    assert await region.database.fetchval(USED, account.id)


async def test_a_broken_integration_is_remembered_for_all_its_connections(account: Account) -> None:
    """`invalid_client` is the integration's fault: the next connection does not ask again."""
    other = await connected(account.town)
    account.town.provider.misbehave("refresh_token", "invalid_client", times=None)
    await account.town.pass_s(HOUR_S)
    for one in (account, other, account):
        assert problem(await one.read(), 503, "integration_broken")["provider_code"] == "invalid_client"
    assert account.refreshes == 1


async def test_one_terminal_answer_is_evidence_and_a_second_one_later_is_proof(account: Account) -> None:
    """Suspect at first: 409 with a time, nobody is told to reconnect, the provider is left alone; then `reauth_required`."""
    town = account.town
    town.provider.misbehave("refresh_token", "invalid_grant", times=None)
    await town.pass_s(HOUR_S - 30)
    assert (await account.read()).json()["state"] == "suspect"  # unexpired: handed out
    await town.pass_s(30)
    answer = await account.read()
    problem(answer, 409, "checking")
    assert 500 < int(answer.headers["retry-after"]) <= 600
    assert account.refreshes == 1
    await town.pass_s(600)
    said = problem(await account.read(), 409, "reauth_required")
    assert (said["reason"], said["do"]) == ("refresh_refused", "reconnect")
    assert account.refreshes == 2
    assert [(name, data["cause"]) for name, data in await town.events()] == [
        ("active", "connect"), ("suspect", "refresh_refused"), ("reauth_required", "refresh_refused"),
    ]  # fmt: skip


async def test_a_second_answer_that_is_good_acquits(account: Account) -> None:
    town = account.town
    town.provider.misbehave("refresh_token", "invalid_grant")
    await town.pass_s(HOUR_S)
    problem(await account.read(), 409, "checking")
    await town.pass_s(600)
    told = (await account.read()).json()
    assert (told["state"], told["token_version"]) == ("active", 2)
    assert [name for name, _ in await town.events()] == ["active", "suspect", "repaired"]


async def test_a_no_to_a_token_that_another_process_has_rotated_concludes_nothing(account: Account) -> None:
    """Looked at again under the lock: the grant is another one by now, and the reader gets its token."""
    town = account.town
    town.provider.misbehave("refresh_token", held_then(error("invalid_grant")))
    await town.pass_s(HOUR_S)
    reading = asyncio.create_task(account.read())
    await town.provider.gate.until(1)
    await rotate(account, "of-the-other-process")
    await town.provider.gate.open()
    told = (await reading).json()
    assert (told["access_token"], told["token_version"], told["state"]) == ("of-the-other-process", 2, "active")


async def test_a_revocation_during_a_refresh_stands(account: Account) -> None:
    """What comes back afterwards is not stored, and nobody gets it."""
    town = account.town
    town.provider.misbehave("refresh_token", "slow_answer")
    await town.pass_s(HOUR_S)
    reading = asyncio.create_task(account.read())
    await town.provider.gate.until(1)
    await account.move("revoked", "uninstalled")
    await town.provider.gate.open()
    problem(await reading, 409, "connection_revoked")
    assert (await account.grant()).token_version == 1


async def test_a_switch_of_the_account_during_a_refresh_stands(town: Town) -> None:
    """What comes back is the former account's: it is not stored under the new one's connection."""
    account = await connected(town, access_profiles=["reader", "writer"])
    town.provider.misbehave("refresh_token", "slow_answer")
    await town.pass_s(HOUR_S)
    reading = asyncio.create_task(account.read(access_profile="writer"))
    await town.provider.gate.until(1)
    await town.connect(
        consent={"user": "user-2"}, connection=ids.show(ids.CONNECTION, account.id), access_profiles=["reader"],
        allow_account_switch=True,
    )  # fmt: skip
    await town.provider.gate.open()
    assert problem(await reading, 409, "reauth_required")["reason"] == "account_switched"
    assert (await account.grant("writer")).issued_at is None


async def test_what_a_refresh_brings_after_the_end_is_revoked_too(account: Account) -> None:
    """The closing task has the refresh token of before; the one that came while the connection ended must not live on."""
    town = account.town
    town.provider.misbehave("refresh_token", "slow_answer")
    await town.pass_s(HOUR_S)
    reading = asyncio.create_task(account.read())
    await town.provider.gate.until(1)
    assert (await town.api("DELETE", account.path)).status_code == 204
    await town.provider.gate.open()
    problem(await reading, 409, "connection_closed")
    async with asyncio.timeout(20):
        while await town.count("closing_tasks"):
            await town.gateway.closing_worker(town.gateway.regions.home).run_once()
    brought = [token for token in town.provider.sandbox.tokens.values() if token.kind == "refresh_token"]
    assert [token.ended for token in brought] == [True, True], "each was sent, the one that came late too"


async def test_a_suspension_during_a_refresh_keeps_what_came(account: Account) -> None:
    """It stays suspended, and once that is lifted its refresh token is the one that still works."""
    town = account.town
    town.provider.misbehave("refresh_token", "slow_answer")
    await town.pass_s(HOUR_S)
    reading = asyncio.create_task(account.read())
    await town.provider.gate.until(1)
    await account.move("suspended", "by_its_admin")
    await town.provider.gate.open()
    problem(await reading, 409, "connection_suspended")
    grant = await account.grant()
    assert (grant.state, grant.reason, grant.token_version) == ("suspended", "by_its_admin", 2)
    await account.move("active")
    await town.pass_s(HOUR_S)
    assert (await account.read()).json()["token_version"] == 3


@pytest.mark.parametrize(
    ("scope", "state", "names"),
    [
        ("profile", "reauth_required", ["scopes_changed", "reauth_required"]),
        ("profile messages.read", "active", ["scopes_changed"]),
        ("profile messages.read contacts.read", "active", []),
    ],
)
async def test_scopes_are_compared_at_every_refresh(account: Account, scope: str, state: str, names: list[str]) -> None:
    """A required one that is gone: `scopes_lost`, and only the user can give it back. An optional one: said, and active."""
    town = account.town
    town.provider.misbehave("refresh_token", changed(scope=scope))
    await town.pass_s(HOUR_S)
    answer = await account.read()
    grant = await account.grant()
    assert (grant.state, grant.token_version) == (state, 2)
    if state == "active":
        assert set(answer.json()["scopes"]) == set(scope.split())
    else:
        assert problem(answer, 409, "reauth_required")["reason"] == "scopes_lost"
        assert grant.ledger.lost == ("messages.read",)
    assert [name for name, _ in await town.events()] == ["active", *names]


async def test_a_rotated_token_is_kept_whatever_stands_beside_it(account: Account) -> None:
    """Its lifetime is no number: the old one is dead at the provider, so this one is kept, and renewed soon."""
    town = account.town
    town.provider.misbehave("refresh_token", changed(expires_in="soon"))
    await town.pass_s(HOUR_S)
    told = (await account.read()).json()
    assert (told["token_version"], told["state"]) == (2, "active")
    await town.pass_s(SHORT_S)
    assert (await account.read()).json()["token_version"] == 3


async def test_a_refresh_token_goes_on_where_none_comes(account: Account) -> None:
    """RFC 6749 section 6: the old one is stored again, with the life it has left, and works once more."""
    town = account.town
    town.provider.rules(rotation="none")
    old = await town.token(await account.grant(), "refresh")
    for version in (2, 3):
        town.provider.misbehave("refresh_token", "no_refresh_token")
        await town.pass_s(HOUR_S)
        assert (await account.read()).json()["token_version"] == version
        assert await town.token(await account.grant(), "refresh") == old


async def test_held_grants_are_never_refreshed(account: Account) -> None:
    """Two refreshers kill a rotating grant during a cut-over: unexpired tokens only."""
    await account.set(held=True)
    await account.town.pass_s(HOUR_S - 30)
    assert (await account.read()).json()["token_version"] == 1
    await account.town.pass_s(30)
    assert problem(await account.read(), 409, "held")["do"] == "activate"
    assert account.refreshes == 0


async def test_what_cannot_be_refreshed_needs_its_user_once_it_has_expired(account: Account) -> None:
    database = account.town.gateway.regions.home.database
    await database.execute("UPDATE gateway.tokens SET sealed_refresh = NULL, has_refresh = false")
    await account.town.pass_s(HOUR_S - 30)
    assert (await account.read()).status_code == 200
    await account.town.pass_s(30)
    assert problem(await account.read(), 409, "reauth_required")["reason"] == "token_expired"


async def test_client_credentials_are_minted_anew(account: Account) -> None:
    """No refresh token is sent, none is kept."""
    await account.set(kind="client_credentials")
    await account.town.pass_s(HOUR_S)
    told = (await account.read()).json()
    assert told["token_version"] == 2
    assert account.town.provider.calls["client_credentials"] == 1
    assert account.refreshes == 0
    assert not (await account.grant()).has_refresh


async def test_installations_are_minted_for_the_account_that_the_grant_names() -> None:
    """By the provider's `mint`; a grant that names none, or a provider that mints none, is a fault of the set-up."""
    asked: list[Any] = []

    async def mint(http: Any, app: App, accounts: Any) -> TokenSet:
        asked.append(accounts)
        return TokenSet(access_token="minted")

    provider = replace(all_providers()["github"], mint=mint)
    app = App(client_id="i", client_secret="s")
    accounts = exchange.minted_for({"installation": "42", "host": "example.com"})
    assert (await exchange.mint(None, provider, app, accounts)).access_token == "minted"  # type: ignore[arg-type]
    assert asked == [("installation:42",)]
    for odd, of in ((provider, ()), (replace(provider, mint=None), accounts)):
        with pytest.raises(Misconfigured):
            await exchange.mint(None, odd, app, of)  # type: ignore[arg-type]


@pytest.fixture
async def wire(dsn: str) -> AsyncIterator[LossyWire]:
    async with lossy(dsn) as made:
        yield made


@pytest.fixture
async def settings(settings: Settings, wire: LossyWire) -> Settings:
    """The database at the end of a wire."""
    return settings.model_copy(update={"database_url": SecretStr(wire.dsn)})


async def test_a_rotated_token_outlives_a_database_that_is_away(account: Account, wire: LossyWire) -> None:
    """It came while nobody could write it down: kept in memory, written when the database is back, asked for once."""
    town = account.town
    town.provider.misbehave("refresh_token", "slow_answer")
    await town.pass_s(HOUR_S)
    reading = asyncio.create_task(account.read())
    await town.provider.gate.until(1)
    await wire.close()
    await town.provider.gate.open()
    while not metric_unwritten():  # noqa: ASYNC110 - on a result, not on time
        await asyncio.sleep(0.01)
    await wire.open()
    answer = await reading
    while answer.status_code == 503:
        answer = await account.read()
    assert answer.json()["token_version"] == 2
    assert answer.json()["access_token"] in town.provider.sandbox.tokens
    assert account.refreshes == 1


def metric_unwritten() -> float:
    return metric("posthouse_refreshes_total", integration="sandbox", outcome="unwritten")


def held_then(how: Any) -> Any:
    """`how`, once the test opens the gate."""

    async def held(turn: Any) -> None:
        await turn.gate.wait()
        await how(turn)

    return held


async def rotate(account: Account, access: str) -> None:
    """What another process does: a new token set in the old one's place."""
    region = account.town.gateway.regions.home
    grant = await account.grant()
    place = Place(region.name, "acme", account.id, "reader", grant.generation, grant.token_version + 1)
    sealed = await region.tokens.seal(place, access, "another")
    new = grants.NewTokens(sealed=sealed, token_type="Bearer", expires_in_s=3600, refresh_expires_in_s=None)
    ledger: Ledger = grant.ledger
    async with region.database.transaction() as tx:
        await grants.lock(tx, account.id)
        await grants.rotate(tx, grant, "acme", place.version, ledger=ledger, marks=(), age_s=0.0, new=new)


async def test_a_silent_database_is_a_503_in_time_and_comes_back(account: Account, wire: LossyWire) -> None:
    """No token leaves without its check, whatever is in memory."""
    assert (await account.read()).status_code == 200
    wire.mute()
    began = asyncio.get_running_loop().time()
    problem(await account.read(), 503, "unavailable")
    assert asyncio.get_running_loop().time() - began < 2  # the promise
    await wire.close()
    await wire.open()
    while (answer := await account.read()).status_code == 503:
        pass
    assert answer.json()["token_version"] == 1
