"""The record of token sets, and what it shows of refresh tokens that somebody else has."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway import ids
from gateway.adoption.importing import bring_in
from gateway.adoption.lines import Line, Outcome, TokenLine
from gateway.connections import rotations
from gateway.connections.retention import Retention
from gateway.settings import Settings
from providers.registry import all_providers
from tests.clock import FakeClock
from tests.fakes.misbehaving import error
from tests.flows.house import metric
from tests.tokens.conftest import Account
from tests.tokens.scene import HOUR_S, Scene, consent, playing
from tests.web.conftest import problem

TENANT = """INSERT INTO control.tenants (id, region, created_at, updated_at) VALUES ($1, 'default', now(), now())
            ON CONFLICT DO NOTHING"""
SECURITY = "posthouse.security."
Play = Callable[..., AbstractAsyncContextManager[Scene]]


@pytest.fixture
def play(settings: Settings, dsn: str, clock: FakeClock) -> Play:
    def of(rotation: Any = "strict", **more: Any) -> AbstractAsyncContextManager[Scene]:
        return playing(settings, dsn, clock, rotation, **more)

    return of


@pytest.fixture
async def heard(play: Play) -> AsyncIterator[Scene]:
    """Its provider rotates strictly and says when a user withdraws; the grant has been refreshed once."""
    async with play(hears=True) as scene:
        assert await scene.read(scene.a) == "version 2"
        yield scene


# The record.


async def test_each_token_set_is_on_record_with_how_it_came(account: Account) -> None:
    """Newest first, in pages; no token and no hash of one."""
    town = account.town
    for _ in range(2):
        await town.pass_s(3600)
        assert (await account.read()).status_code == 200
    first = (await town.api("GET", f"{account.path}/rotations?limit=2")).json()
    rest = (await town.api("GET", f"{account.path}/rotations", params={"cursor": first["next_cursor"]})).json()
    shown = [*first["items"], *rest["items"]]
    assert [(one["source"], one["token_version"], one["rotated"]) for one in shown] == [
        ("refresh", 3, True), ("refresh", 2, True), ("consent", 1, True),
    ]  # fmt: skip
    assert (rest["next_cursor"], shown[0]["reuse"]) == (None, None)
    assert set(shown[0]) == {
        "at", "access_profile", "generation", "token_version", "source", "rotated", "reuse", "reuse_at",
    }  # fmt: skip
    nobody = await town.api("GET", f"/v1/connections/conn_{'0' * 32}/rotations")
    problem(nobody, 404, "not_found")
    problem(await town.api("GET", f"{account.path}/rotations?cursor=abc"), 422, "invalid")


async def test_a_refresh_token_that_goes_on_is_no_rotation(play: Play) -> None:
    async with play("none") as scene:
        for version in (2, 3):
            assert await scene.read(scene.a) == f"version {version}"
            await scene.pass_s(HOUR_S)
        kept = await rotations.page(scene.database, scene.connection, before=None, limit=9)
        assert [(one.source, one.rotated) for one in kept] == [
            ("refresh", False),
            ("refresh", False),
            ("consent", True),
        ]


async def test_the_newest_twenty_are_kept_and_those_for_their_days(heard: Scene) -> None:
    for _ in range(rotations.KEPT + 3):
        await heard.pass_s(HOUR_S)
        await heard.read(heard.a)
    kept = await rotations.page(heard.database, heard.connection, before=None, limit=99)
    assert (len(kept), kept[0].token_version) == (rotations.KEPT, rotations.KEPT + 5)
    await heard.pass_s(30 * 24 * HOUR_S)
    await Retention(heard.database, 31).run_once()
    assert len(await heard.sources()) == rotations.KEPT
    await Retention(heard.database, 29).run_once()
    assert await heard.sources() == []


def test_a_fingerprint_is_keyed_and_of_one_integration(keyring: Any) -> None:
    """The same token is the same fingerprint in every region; at another integration it is another one."""
    one, other = UUID(int=1), UUID(int=2)
    assert rotations.fingerprint(keyring, one, "t") == rotations.fingerprint(keyring, one, "t")
    assert len({rotations.fingerprint(keyring, of, text) for of in (one, other) for text in ("t", "u")}) == 4
    assert rotations.fingerprint(keyring, one, None) is None


# Reuse: what is a sign of it, and what is none.


async def stolen(scene: Scene) -> None:
    """Somebody else spends the current refresh token at the provider."""
    client = scene.provider.client
    assert client.secret is not None
    form = {"grant_type": "refresh_token", "refresh_token": await scene.refresh_token()}
    async with httpx.AsyncClient(trust_env=False) as http:
        url = f"{scene.provider.base_url}/oauth/token"
        answer = await http.post(url, data=form, auth=(client.id, client.secret))
    assert answer.status_code == 200, answer.text


async def refused_for_good(scene: Scene) -> None:
    """Twice, ten minutes apart."""
    await scene.pass_s(HOUR_S)
    assert await scene.read(scene.a) == "checking"
    assert await scene.told(SECURITY) == []
    await scene.pass_s(601)
    assert await scene.read(scene.b) == "reauth_required"
    assert (await scene.grant()).reason == "refresh_refused"


async def test_a_refresh_token_that_only_we_should_have_is_dead(heard: Scene) -> None:
    """Said once, of the connection, with the token set that it was; no token in it."""
    before = metric("posthouse_refresh_token_reuse_total", kind="refused_current")
    await stolen(heard)
    await refused_for_good(heard)
    assert await heard.told(SECURITY) == ["refresh_token_reuse"]
    assert metric("posthouse_refresh_token_reuse_total", kind="refused_current") == before + 1
    said = await heard.security()
    assert (said["kind"], said["connection"]) == ("refused_current", ids.show(ids.CONNECTION, heard.connection))
    assert (said["token_version"], said["source"], said["code"]) == (2, "refresh", "invalid_grant")
    kept = await rotations.page(heard.database, heard.connection, before=None, limit=9)
    assert [one.reuse for one in kept] == ["refused_current", None]


async def test_what_a_user_withdraws_is_no_theft(heard: Scene) -> None:
    """The provider's message came first: the grant is revoked, and is not asked about."""
    await heard.move("revoked")
    await stolen(heard)
    await heard.pass_s(HOUR_S)
    assert await heard.read(heard.a) == "connection_revoked"
    assert await heard.told(SECURITY) == []


async def test_where_a_withdrawal_shows_as_a_refusal_alone_nothing_is_said(play: Play) -> None:
    """`generic-oauth2` without security events: most of these are users'."""
    async with play() as scene:
        assert await scene.read(scene.a) == "version 2"
        await stolen(scene)
        await refused_for_good(scene)
        assert await scene.told(SECURITY) == []


SILENT: list[tuple[str, str]] = [
    ("no secret to verify messages with", "DELETE FROM control.integration_secrets WHERE purpose = 'signing_secrets'"),
    (
        "its own time is up",
        "UPDATE gateway.tokens SET refresh_expires_at = gateway.now() + interval '1 hour 5 minutes'",
    ),
    ("an answer went missing", "UPDATE gateway.rotations SET unanswered = true"),
    ("the database was put back", "UPDATE gateway.epoch SET epoch = epoch + 1, tokens_epoch = epoch + 1"),
    ("it came with the consent", "UPDATE gateway.rotations SET source = 'consent'"),
    ("it was imported", "UPDATE gateway.rotations SET source = 'import'"),
    ("the record does not know it", "DELETE FROM gateway.rotations"),
]


@pytest.mark.parametrize("how", [sql for _, sql in SILENT], ids=[name for name, _ in SILENT])
async def test_what_else_explains_a_refusal_is_no_theft(heard: Scene, how: str) -> None:
    await heard.database.execute(how)
    await heard.database.execute("UPDATE control.state SET revision = revision + 1")
    for gateway in (heard.a, heard.b):
        await gateway.catalog.refresh()
    await stolen(heard)
    await refused_for_good(heard)
    assert await heard.told(SECURITY) == []


async def test_what_the_provider_says_itself_is_believed_at_once(play: Play) -> None:
    """By a code that its settings name; said once, though it says so again."""
    async with play(reuse_errors=["token_reused"]) as scene:
        assert await scene.read(scene.a) == "version 2"
        scene.provider.misbehave("refresh_token", error("token_reused"), times=None)
        await scene.pass_s(HOUR_S)
        assert await scene.read(scene.a) == "checking"
        assert (await scene.security())["kind"] == "provider_reported"
        await scene.pass_s(601)
        assert await scene.read(scene.a) == "reauth_required"
        assert await scene.told(SECURITY) == ["refresh_token_reuse"]


def test_where_a_refusal_says_something() -> None:
    """Providers that rotate, and tell by a message of their own when a user withdraws. The others are left out on purpose."""
    rotating = [each for each in all_providers().values() if each.oauth is not None and each.oauth.rotation != "none"]
    told = {each.facts.name for each in rotating if any("revoked" in tells.says for tells in each.facts.signals)}
    assert told == {"github", "linear", "shopify", "slack", "zoom", "sandbox", "generic-oauth2"}
    assert {each.facts.name for each in rotating} - told == {"gitlab", "microsoft"}


async def imported(
    scene: Scene, token: str, *, dry_run: bool = False, external_id: str = "e-1", tenant: str = "globex"
) -> list[Outcome]:
    """A tenant brings that refresh token as its own."""
    line = Line(
        tenant=tenant, integration="theirs", external_id=external_id,
        access_profiles={"reader": TokenLine(access_token="a", refresh_token=token)},
    )  # fmt: skip
    for each in ("acme", "globex"):
        await scene.database.execute(TENANT, each)
    return await bring_in(
        scene.a, [line], hold=False, unrefreshable=True, dry_run=dry_run, new_id=scene.a.new_id
    )  # fmt: skip


async def test_a_superseded_refresh_token_that_is_imported_is_known_again(play: Play) -> None:
    """The event is of the connection that had it, and names no other; the current one, or one that we never had, is none."""
    async with play() as scene:
        old = await scene.refresh_token()
        assert await scene.read(scene.a) == "version 2"
        await imported(scene, old, dry_run=True)
        await imported(scene, "never seen", external_id="e-2")
        await imported(scene, await scene.refresh_token(), external_id="e-3")
        assert await scene.told(SECURITY) == []
        [outcome] = await imported(scene, old)
        assert outcome.result == "imported"
        said = await scene.security()
        assert (said["kind"], said["tenant"], said["token_version"]) == ("superseded_import", "acme", 1)
        assert said["connection"] == ids.show(ids.CONNECTION, scene.connection)
        await imported(scene, old, external_id="e-4")
        assert await scene.told(SECURITY) == ["refresh_token_reuse"]
        rows = await scene.database.fetch("SELECT tenants FROM gateway.events WHERE type LIKE 'posthouse.security.%'")
        assert [row["tenants"] for row in rows] == [["acme"]]


async def test_a_line_that_is_refused_has_brought_it_all_the_same(play: Play) -> None:
    """An old file for a grant that is refreshed here: refused, and said."""
    async with play() as scene:
        await scene.database.execute("UPDATE gateway.connections SET external_id = 'e-1'")
        old = await scene.refresh_token()
        assert await scene.read(scene.a) == "version 2"
        [outcome] = await imported(scene, old, tenant="acme")
        assert (outcome.result, outcome.reason) == ("refused", "in_use")
        assert (await scene.security())["kind"] == "superseded_import"


@pytest.mark.parametrize(
    "rounds", [pytest.param(300, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.long)]
)
async def test_silent_over_any_number_of_rotations_and_lost_answers(heard: Scene, rounds: int) -> None:
    """One in six goes wrong somehow; when the grant is lost its user consents anew. And then a theft is heard at once."""
    chance, generation = random.Random(5), 1
    ways = ("answer_lost", "close", "server_error", "html", "empty", "close", "invalid_grant")
    lost = 0
    for number in range(rounds):
        await heard.run_out()
        if number % 50 == 0:
            await heard.pass_s(60, heard.a, heard.b)
            await heard.a.regions.home.upkeep.ready()
        if chance.random() < 1 / 6:
            heard.provider.misbehave("refresh_token", chance.choice(ways))
        for _ in range(4):
            reader = chance.choice((heard.a, heard.b))
            if (said := await heard.read(reader)).startswith("version") or said == "reauth_required":
                break
            await heard.pass_s(601, heard.a, heard.b)
        heard.provider.behave()
        grant = await heard.grant()
        if grant.state == "reauth_required":
            lost, generation = lost + 1, generation + 1
            await consent(
                heard.a, heard.provider, heard.integration, heard.connection, generation, grant.token_version + 1
            )
    assert lost > rounds / 100
    assert await heard.told(SECURITY) == []
    await heard.run_out()
    assert (await heard.read(heard.a)).startswith("version")
    await stolen(heard)
    await refused_for_good(heard)
    assert await heard.told(SECURITY) == ["refresh_token_reuse"]
