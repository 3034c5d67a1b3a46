"""Platform code says that a token was refused: evidence that is checked, about one token version."""

from __future__ import annotations

from tests.connect.conftest import Town
from tests.fakes.misbehaving import GONE, changed, status
from tests.tokens.conftest import Account, connected
from tests.web.conftest import problem


async def test_a_report_about_an_older_token_is_stale_and_changes_nothing(account: Account) -> None:
    """Nobody is asked; it stands in the audit."""
    old = (await account.read()).json()
    await account.town.pass_s(3600)
    assert (await account.read()).json()["token_version"] == 2
    calls = account.town.provider.calls.copy()
    told = await account.report(old)
    assert (told["outcome"], told["token_version"], told["state"]) == ("stale", 2, "active")
    assert account.town.provider.calls == calls
    assert ("signal.stale", 1) in await account.audited()
    assert (await account.grant()).token_version == 2


async def test_a_token_that_works_is_left_alone(account: Account) -> None:
    """The provider takes it: the call was refused for another reason, and no refresh token is spent for it."""
    told = await account.report((await account.read()).json(), status=401, access_profile="reader")
    assert (told["outcome"], told["token_version"]) == ("works", 1)
    assert account.refreshes == 0
    assert ("signal.token_rejected", 1) in await account.audited()


async def test_a_dead_access_token_is_replaced(account: Account) -> None:
    """A probe confirms it, a refresh mends it."""
    account.town.provider.misbehave("me", status(401))
    token = (await account.read()).json()
    told = await account.report(token, status=401)
    assert (told["outcome"], told["token_version"]) == ("refreshed", 2)
    assert (await account.read()).json()["access_token"] != token["access_token"]


async def test_a_dead_grant_is_suspect_at_first_and_ends_when_it_is_confirmed(account: Account) -> None:
    """The user has revoked it at the provider: probe and refresh agree, and so does a second look ten minutes later."""
    town = account.town
    token = (await account.read()).json()
    [grant] = town.provider.grants("user-1")
    await town.provider.revoke(grant, tell=False)
    assert (await account.report(token, status=401))["outcome"] == "suspect"
    asked = account.refreshes
    assert (await account.report(token, status=401))["outcome"] == "suspect"
    assert account.refreshes == asked  # it is left alone until a second answer would prove something
    await town.pass_s(600)
    assert (await account.report(token, status=401))["outcome"] == "not_issued"
    problem(await account.read(), 409, "reauth_required")


async def test_one_that_cannot_be_refreshed_is_judged_by_probes(account: Account) -> None:
    """Dead once: suspect; alive again: acquitted; dead twice, ten minutes apart: only the user can mend it."""
    town = account.town
    await town.gateway.regions.home.database.execute(
        "UPDATE gateway.tokens SET sealed_refresh = NULL, has_refresh = false, expires_at = NULL"
    )
    token = (await account.read()).json()
    town.provider.misbehave("me", status(401))
    assert (await account.report(token))["outcome"] == "suspect"
    assert (await account.report(token))["outcome"] == "works"
    assert (await account.grant()).state == "active"
    town.provider.misbehave("me", status(401), times=None)
    assert (await account.report(token))["outcome"] == "suspect"
    await town.pass_s(600)
    assert (await account.report(token))["outcome"] == "not_issued"
    assert problem(await account.read(), 409, "reauth_required")["reason"] == "token_rejected"


async def test_a_403_asks_for_the_scopes_and_a_probe_that_tells_them_suffices(account: Account) -> None:
    town = account.town
    token = (await account.read()).json()
    assert (await account.report(token, status=403))["outcome"] == "works"
    town.provider.misbehave("me", changed(scopes=[]))
    assert (await account.report(token, status=403))["outcome"] == "not_issued"
    assert (await account.grant()).reason == "scopes_lost"
    assert account.refreshes == 0


async def test_where_no_probe_tells_them_a_new_token_is_not_burnt_for_each_403(account: Account) -> None:
    """A refresh tells the scopes; but one that came a moment ago told them already."""
    town = account.town
    town.provider.misbehave("me", changed(scopes=GONE), times=None)
    token = (await account.read()).json()
    assert (await account.report(token, status=403))["outcome"] == "too_new"
    assert account.refreshes == 0
    await town.pass_s(60)
    town.provider.misbehave("refresh_token", "fewer_scopes")
    assert (await account.report(token, status=403))["outcome"] == "refreshed"
    assert (await account.grant()).reason == "scopes_lost"


async def test_a_provider_that_is_away_decides_nothing(account: Account) -> None:
    account.town.provider.misbehave("me", "server_error")
    assert (await account.report((await account.read()).json()))["outcome"] == "unchecked"
    assert (await account.grant()).state == "active"


async def test_what_cannot_be_reported(town: Town) -> None:
    account = await connected(town, access_profiles=["reader", "writer"])
    for body, code in (
        ({"token_version": 1}, "access_profile_needed"),
        ({"token_version": 1, "access_profile": "other"}, "no_grant"),
    ):
        problem(await town.api("POST", f"{account.path}/signals", {"type": "token_rejected", **body}), 409, code)
    for odd in ({"token_version": 2}, {"token_version": 0}, {"token_version": 1, "type": "other"}, {}):
        body = {"type": "token_rejected", "access_profile": "reader", **odd}
        problem(await town.api("POST", f"{account.path}/signals", body), 422, "invalid")
    body = {"type": "token_rejected", "access_profile": "reader", "token_version": 1}
    key = await town.api.key("reader")
    problem(await town.api("POST", f"{account.path}/signals", body, key=key), 403, "forbidden")
    await account.move("revoked", None, "reader")
    assert (await town.api("POST", f"{account.path}/signals", body)).json()["outcome"] == "not_issued"
    await town.api("DELETE", account.path)
    problem(await town.api("POST", f"{account.path}/signals", body), 409, "connection_closed")
