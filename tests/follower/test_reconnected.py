"""A reconnect that is under way while a revocation comes: it is of the new grant, too, if the signed time or a check says so."""

from __future__ import annotations

from tests.connect.browser import query_of
from tests.connect.conftest import declare
from tests.follower.conftest import Street
from tests.web.conftest import problem


async def test_revoked_between_the_consent_of_a_reconnect_and_its_completion(street: Street) -> None:
    """The delivery finds the connection as it was, and is heard of that grant; its next one is dead as well."""
    town = street.town
    await declare(town, "sandbox")
    done = await town.connect()
    path = f"/v1/connections/{done['connection']}/token"
    await street.follow()
    made = await town.ask(connection=done["connection"])
    told = query_of(await town.consent(made))
    for grant in town.provider.grants("user-1"):
        await town.provider.revoke(grant)
    await street.follow()
    problem(await town.api("GET", path), 409, "checking")
    await street.check()
    problem(await town.api("GET", path), 409, "connection_revoked")
    await town.complete(made, told["code"])
    await street.follow()
    problem(await town.api("GET", path), 409, "checking")
    assert await street.check() == 1
    problem(await town.api("GET", path), 409, "connection_revoked")
