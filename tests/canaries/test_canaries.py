"""Secrets come through nowhere: a gateway full of canaries is put through everything, and then searched."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest
import structlog

from gateway import metrics
from gateway.errors import Conflict
from gateway.settings import Settings
from gateway.tokens.reading import TokenReads
from tests.canaries import sealed
from tests.canaries.acts import Story, Watched
from tests.canaries.hearing import UNKNOWN_NAME, Canaries, Ear, is_shown
from tests.canaries.search import search, tables
from tests.canaries.strays import stray
from tests.connect.conftest import Town, declare


@pytest.fixture
async def story(town: Town, settings: Settings) -> Story:
    """A town that is watched, with a second provider, and its first canaries known."""
    canaries = Canaries()
    made = Story(Watched.of(town, Ear(canaries)), canaries, town.gateway.settings.public_url, token_hex(6))
    canaries.add("API key", town.api.admin)
    assert settings.keyring is not None and settings.vault_token is not None and settings.vault_secret_id is not None
    keys = json.loads(settings.keyring.get_secret_value())
    canaries.add("keyring key", *keys["keys"].values(), keys["hashing"])
    canaries.add("Vault login", settings.vault_token.get_secret_value(), settings.vault_secret_id.get_secret_value())
    assert settings.database_url is not None
    canaries.add("DSN password", settings.database_url.get_secret_value().partition("password=")[2])
    await declare(town, "other")
    return made


async def leaks(story: Story, settings: Settings, lines: io.BytesIO) -> list[str]:
    """Everything that was said and kept, searched for everything that is secret: each leak once."""
    story.finish()
    assert settings.database_url is not None
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
            yield f"repr of {kind.__module__}.{kind.__qualname__}", repr(one).encode("utf-8", "replace")


async def test_no_secret_comes_through_anywhere(
    story: Story, settings: Settings, lines: io.BytesIO, capfd: pytest.CaptureFixture[str]
) -> None:
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
    await story.echoed()
    strays = {name: story.ascii(f"stray {name}") for name in ("key", "query", "path", "body")}
    await stray(story.town.api, strays | {"name": story.ascii(UNKNOWN_NAME)})
    await story.followed()

    assert story.unheard() == [], "a route that no act exercises: add one to acts.py"
    assert await leaks(story, settings, lines) == []
    assert await sealed.wrong(_plain(settings), story.canaries.known) == []
    said = capfd.readouterr()
    assert search(story.canaries.known, [("stdout", said.out.encode()), ("stderr", said.err.encode())]) == []
