"""A provider that refuses the integration, or limits it, met by the real reads of tokens: few calls, and nobody is moved."""

from __future__ import annotations

from starlette.responses import JSONResponse

from tests.checking.crowd import AT_ONCE, Crowd, crowd
from tests.clock import FakeClock
from tests.follower.conftest import Street, bare_town, lines, quiet, street, town
from tests.follower.services import unwell

__all__ = ["bare_town", "lines", "quiet", "street", "town"]  # fixtures


async def looks(many: Crowd) -> None:
    """As every process does by itself, at a notice or each second."""
    gateway = many.street.gateway
    await gateway.catalog.refresh()
    await gateway.breakers["default"].run_once()


async def moved_nobody(many: Crowd) -> None:
    assert await many.states() == {"active": len(many.ids)}
    assert {name for name in await many.said() if name.startswith("connection.")} == set()


async def test_a_wrong_client_secret_is_an_incident_until_it_is_changed(street: Street, clock: FakeClock) -> None:
    """Those that are out when it opens are all; after the change one call is tried, and then everybody's."""
    many = await crowd(street, 30, 5)
    street.github.how = lambda: JSONResponse({"error": "incorrect_client_credentials"})
    assert set(await many.read()) == {"integration_broken"}
    calls = street.github.asked("/token")
    assert 1 <= calls <= AT_ONCE
    assert set(await many.read()) == {"integration_broken"}
    await street.pass_s(clock, 59)
    await looks(many)
    assert set(await many.read()) == {"integration_broken"}
    assert street.github.asked("/token") == calls
    await moved_nobody(many)
    [incident] = (await street.town.api("GET", "/v1/incidents")).json()["items"]
    assert (incident["integration"], incident["code"]) == ("github", "incorrect_client_credentials")
    street.github.how = None
    secret = {"purpose": "client_secrets", "secret": "the right one, at last"}
    answer = await street.town.api("POST", "/v1/integrations/github/secrets", secret)
    assert answer.status_code == 201, answer.text
    await looks(many)
    assert await many.read(many.ids[:1]) == ["served"]
    assert street.github.asked("/token") == calls + 1
    assert (await street.town.api("GET", "/v1/incidents")).json()["items"] == []
    assert set(await many.read()) == {"served"}
    await moved_nobody(many)


async def test_retry_after_is_heeded_to_the_second(street: Street, clock: FakeClock) -> None:
    """Nobody asks before, whoever's token it is; then one does, and then everybody may."""
    many = await crowd(street, 30, 5)
    street.github.how = unwell(429, retry_after="17")
    assert set(await many.read()) == {"provider_unavailable"}
    calls = street.github.asked("/token")
    assert 1 <= calls <= AT_ONCE
    street.github.how = None
    await street.pass_s(clock, 16)
    await looks(many)
    assert set(await many.read()) == {"provider_unavailable"}
    assert street.github.asked("/token") == calls
    await street.pass_s(clock, 1)
    await looks(many)
    assert await many.read(many.ids[-1:]) == ["served"]
    await street.pass_s(clock, 240)  # of those that were refused themselves
    assert set(await many.read()) == {"served"}
    assert street.github.asked("/token") == calls + 30
    await moved_nobody(many)
