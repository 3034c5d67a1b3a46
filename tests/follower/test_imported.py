"""Of an imported grant nothing is known but that it came: what is said to have happened before decides nothing alone."""

from __future__ import annotations

import pytest

from tests.follower.conftest import Street
from tests.follower.test_payload_to_event import TEAM
from tests.follower.test_repeated import uninstalled
from tests.web.conftest import problem


@pytest.mark.parametrize("lives", [True, False])
async def test_an_old_signed_word_is_contested(street: Street, lives: bool) -> None:
    """Its user may have consented anew to the system that it came from; or that word was the end of it."""
    await street.connected("acme", "acme", "slack", (f"team:{TEAM}",), "bot", refresh=None)
    await street.db.execute("UPDATE gateway.grants SET alive_at = 'epoch'")  # as an import puts it
    if not lives:
        street.slack.dead.add("acme bot")
    await street.deliver(uninstalled((await street.now()).timestamp() - 3600))
    await street.follow()
    problem(await street.read("acme"), 409, "checking")
    assert await street.check() == 1
    assert await street.moved() == ({} if lives else {"acme": {"bot": "revoked"}})


async def test_what_happened_since_is_proof(street: Street) -> None:
    """By the time that is signed."""
    await street.connected("acme", "acme", "slack", (f"team:{TEAM}",), "bot", refresh=None)
    await street.db.execute("UPDATE gateway.grants SET alive_at = 'epoch', granted_at = gateway.now() - interval '1 h'")
    await street.deliver(uninstalled((await street.now()).timestamp()))
    await street.follow()
    assert await street.moved() == {"acme": {"bot": "revoked"}}
