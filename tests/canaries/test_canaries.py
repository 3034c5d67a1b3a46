"""Secrets come through nowhere: a gateway full of canaries is put through everything, and then searched."""

from __future__ import annotations

import gc
import io
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import pytest
import structlog

from gateway import metrics
from gateway.errors import Conflict
from gateway.settings import Settings
from gateway.stream.append import NewEvent, append
from gateway.tokens.check import Read
from gateway.tokens.reading import Token, TokenReads
from gateway.vault import data_keys
from tests.canaries import mishaps, sealed
from tests.canaries.acts import Story, Watched
from tests.canaries.hearing import UNKNOWN_NAME, Canaries, Ear, is_shown
from tests.canaries.search import search, tables
from tests.canaries.strays import stray
from tests.connect.conftest import Town, declare
from tests.postgres import Template

KINDS = {
    "API key", "DSN password", "PKCE verifier", "Vault login", "access token", "browser cookie", "client secret", "code",
    "completion code", "data key", "endpoint secret", "export private key", "id token", "idempotency key", "keyring key",
    "link token", "made endpoint secret", "nonce", "refresh token", "rotated secret", "signing secret", "state",
}  # fmt: skip


@pytest.fixture
async def story(town: Town, settings: Settings) -> Story:
    """A town that is watched, with a second provider, and its first canaries known."""
    canaries = Canaries()
    made = Story(Watched.of(town, Ear(canaries)), canaries, town.gateway.settings.public_url, token_hex(6))
    canaries.add("API key", town.api.admin)
    assert settings.keyring is not None
    assert settings.vault_token is not None
    assert settings.vault_secret_id is not None
    keys = json.loads(settings.keyring.get_secret_value())
    for key in (*keys["keys"].values(), keys["hashing"]):
        canaries.add("keyring key", key, b64decode(key))
    canaries.add("Vault login", settings.vault_token.get_secret_value(), settings.vault_secret_id.get_secret_value())
    assert settings.database_url is not None
    canaries.add("DSN password", settings.database_url.get_secret_value().partition("password=")[2])
    await declare(town, "other")
    return made


async def leaks(story: Story, settings: Settings, lines: io.BytesIO) -> list[str]:
    """Everything that was said and kept, searched for everything that is secret: each leak once."""
    story.finish()
    region = story.town.gateway.regions.home
    for row in await region.database.fetch("SELECT tenant_id, version, wrapped FROM gateway.data_keys"):
        aad = data_keys.aad_of(region.name, row["tenant_id"], row["version"])
        story.canaries.add("data key", region.keyring.open(bytes(row["wrapped"]), aad))
    places = [*story.town.ear.places, ("the log", lines.getvalue())]
    places += [("table " + name, text) for name, text in await tables(_plain(settings), sealed.SEALED)]
    places += _reprs()
    found = [find for find in search(story.canaries.known, places) if not is_shown(find.canary, find.place)]
    return sorted({f"{find.canary.rpartition(' ')[0]} in {find.place} ({find.form})" for find in found})


def _plain(settings: Settings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()


def _reprs() -> Iterator[tuple[str, bytes]]:
    """How every object of ours that lives just now would show itself in a debugger, or in somebody's log line."""
    for one in gc.get_objects():
        kind = type(one)
        if str(kind.__module__).partition(".")[0] in ("gateway", "providers"):
            with suppress(AttributeError):  # one that was never finished
                yield f"repr of {kind.__module__}.{kind.__qualname__}", repr(one).encode("utf-8", "replace")


async def test_no_secret_comes_through_anywhere(
    story: Story, settings: Settings, lines: io.BytesIO, template: Template, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Every route at its best and its worst, every failure; then logs, metrics, events, answers and tables."""
    token = story.ascii("signing secret")
    await declare(story.town, "gitlab", provider="gitlab", settings={}, signing_secrets=[token],
                  client_secrets=[story.secret("client secret")])  # fmt: skip
    await story.consents()
    await story.hooks(token)
    await story.set_up()
    await story.adopted()
    await story.wrong_consents()
    await story.every_state()
    await story.operated()
    await story.echoed()
    strays = {name: story.ascii(f"stray {name}") for name in ("key", "query", "path", "body")}
    await stray(story.town.api, strays | {"name": story.ascii(UNKNOWN_NAME)})
    await mishaps.faults(story, token)
    await mishaps.spooled(story)
    await mishaps.unreachable(story)
    await mishaps.vault_refuses(story, settings)
    await mishaps.database_away(story, template, settings, token)
    await mishaps.commands(story, settings, tmp_path)
    await story.ended()
    await story.followed()

    assert story.unheard() == [], "a route that no act exercises: add one to acts.py"
    assert await leaks(story, settings, lines) == []
    assert await sealed.wrong(_plain(settings), story.canaries.known) == []
    said = capfd.readouterr()
    assert search(story.canaries.known, [("stdout", said.out.encode()), ("stderr", said.err.encode())]) == []
    assert story.canaries.kinds() >= KINDS


async def into_the_log(story: Story, token: str) -> None:
    structlog.get_logger("planted").debug("a debugging line", found=quote(token, safe=""))


async def into_a_metric(story: Story, token: str) -> None:
    metrics.HTTP_REQUESTS.labels(token, "GET", "200").inc()


async def into_an_event(story: Story, token: str) -> None:
    async with story.town.gateway.regions.home.database.transaction() as tx:
        [row] = await tx.fetch("SELECT id FROM gateway.connections LIMIT 1")
        id, now = story.town.gateway.new_id(), story.town.gateway.clock.now()
        told = json.dumps({"note": token}).encode()
        await append(
            tx, [NewEvent(id, id, 60, "posthouse.connection.planted", now, None, row["id"], (), False, False,
                          "application/json", None, told)],
        )  # fmt: skip


async def into_a_table(story: Story, token: str) -> None:
    hidden = b64encode(b"." + token.encode()).decode()
    await story.town.gateway.regions.home.database.execute("UPDATE gateway.connections SET end_user_id = $1", hidden)


async def into_an_error(story: Story, token: str) -> None:
    raise Conflict(f"The token {token} is not to my liking.")


@pytest.mark.parametrize(
    ("plant", "place"),
    [
        (into_the_log, "access token in the log (url)"),
        (into_a_metric, "access token in GET /metrics 200 (plain)"),
        (into_an_event, "access token in GET /v1/events 200 (plain)"),
        (into_a_table, "access token in table gateway.connections.end_user_id (base64 at 1)"),
        (into_an_error, "access token in GET /v1/connections/{connection_id}/token 409 (plain)"),
    ],
)
async def test_a_planted_leak_turns_it_red(
    story: Story, settings: Settings, lines: io.BytesIO, monkeypatch: pytest.MonkeyPatch, plant: Any, place: str
) -> None:
    """One function that is careless, and the search names the place; without it, it is clean."""
    path, leaked, honest = await story.connected(), [], TokenReads.read

    async def careless(self: TokenReads, asked: Read) -> Token:
        token = await honest(self, asked)
        leaked.append(token.access_token)
        await plant(story, token.access_token)
        return token

    await story.ask("GET", f"{path}/token")
    assert await leaks(story, settings, lines) == []
    monkeypatch.setattr(TokenReads, "read", careless)
    try:
        await story.town.api("GET", f"{path}/token")
        for everywhere in ("/v1/events?after=earliest", "/metrics"):
            await story.ask("GET", everywhere)
        found = await leaks(story, settings, lines)
        assert place in found, found
    finally:
        for token in leaked if plant is into_a_metric else ():
            metrics.HTTP_REQUESTS.remove(token, "GET", "200")


async def test_a_column_that_is_not_sealed_turns_it_red(story: Story, settings: Settings) -> None:
    """A token where its ciphertext should be, a hash without a key, and a column of bytes that nobody has explained."""
    path = await story.connected()
    token = (await story.ask("GET", f"{path}/token"))["access_token"]
    story.finish()
    database = story.town.gateway.regions.home.database
    await database.execute("UPDATE gateway.tokens SET sealed_access = $1", b"\1" + bytes(16) + token.encode())
    await database.execute("UPDATE control.api_keys SET hash = sha256($1)", story.town.api.admin.encode())
    await database.execute("ALTER TABLE gateway.audit ADD COLUMN note bytea")
    faults = [
        fault for fault in await sealed.wrong(_plain(settings), story.canaries.known) if "nothing was" not in fault
    ]
    assert {fault.partition(" (")[0] for fault in faults} == {
        "gateway.audit.note: is it sealed, or open?",
        "control.api_keys.hash: a hash that needs no key",
        "gateway.tokens.sealed_access: access token 1 in gateway.tokens.sealed_access",
    }
