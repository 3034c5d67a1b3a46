"""What an interpreter cannot digest is set aside with its reason, and holds up nobody; it is tried again on command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from gateway import ids
from gateway.follower import store
from providers.registry import all_providers
from providers.signals import Said, Signal
from tests.follower.conftest import Street, follower_of
from tests.follower.test_payload_to_event import TEAM, at_github
from tests.follower.test_repeated import uninstalled
from tests.providers.signal_samples import github, github_installation


async def interpreted_by(street: Street, provider: str, interpret: Any) -> Any:
    """Another interpreter from now on; the one before."""
    known = all_providers()
    before = known[provider].interpret
    known[provider] = replace(known[provider], interpret=interpret)
    await reread(street)
    return before


async def reread(street: Street) -> None:
    """Have the catalog built anew."""
    await street.db.execute("UPDATE control.state SET revision = revision + 1")
    await street.gateway.catalog.refresh()


def stumbling(said: Said) -> Sequence[Signal]:
    raise ZeroDivisionError("hunter2: a text of the body that nobody shall quote")


async def aside(street: Street) -> dict[str, tuple[str, int]]:
    """What is set aside: error and tries by event."""
    return {
        ids.show(ids.EVENT, one.event_id): (one.error, one.tries)
        for one in await store.listed(street.db, after=None, limit=10)
    }


async def test_a_body_that_is_not_what_its_name_says(street: Street) -> None:
    """A signed comment, sent again under the header of an installation's end: `Malformed`, and those behind it go on."""
    await at_github(street)
    comment = github("installation", action="deleted", installation={"id": 957387}, comment={"id": 1})
    await street.deliver(comment)
    await street.deliver(github_installation("deleted", id=7), delivery_id="2")
    await street.follow()
    first, _ = await street.deliveries()
    assert await aside(street) == {first: ("malformed", 1)}
    assert await street.moved() == {"initech": {"installation": "revoked", "user": "revoked"}}
    assert await store.redrive(street.db, UUID(first.removeprefix("evt_"))) == 1
    await street.follow()
    assert await aside(street) == {first: ("malformed", 2)}  # no better than before


async def test_an_interpreter_that_stumbles_is_mended_and_the_event_driven_again(street: Street) -> None:
    """It keeps its original time, so what has happened since counts: stale where the user has reconnected."""
    for name, team in (("acme", "T1"), ("globex", "T2")):
        await street.connected(name, name, "slack", (f"team:{TEAM if team == 'T1' else team}",), "bot")
    real = await interpreted_by(street, "slack", stumbling)
    at = (await street.now()).timestamp()
    first = uninstalled(at)
    await street.deliver(first)
    await street.deliver(replace(first, body=first.body.replace(TEAM.encode(), b"T2").replace(b"Ev1", b"Ev2")))
    await street.deliver(github_installation("deleted"))
    await street.follow()
    assert (await street.moved(), len(await aside(street))) == ({}, 2)
    assert {error for error, _ in (await aside(street)).values()} == {"ZeroDivisionError"}
    await street.follow()
    assert {tries for _, tries in (await aside(street)).values()} == {1}  # only on command
    await interpreted_by(street, "slack", real)
    await street.town.pass_s(120)
    await street.reconnected("globex", "bot")
    assert await store.redrive(street.db, None) == 2
    await street.follow()
    assert await aside(street) == {}
    assert await street.moved() == {"acme": {"bot": "revoked"}}
    assert (await street.outcomes("globex"))[-1] == ("revoked", "stale")
    [(_, told)] = await street.events("acme")
    assert told["evidence"]["event"] == (await street.deliveries())[0]


async def test_an_event_that_is_gone_is_not_tried_for_ever(street: Street) -> None:
    """Retention has dropped it meanwhile: it is off the list. Another process sees none of it being tried."""
    await at_github(street)
    await street.deliver(github("installation", action="deleted", installation={"id": 957387}))
    await street.follow()
    [event] = await aside(street)
    await store.redrive(street.db, None)
    await street.db.execute("UPDATE gateway.set_aside SET seq = seq + 1000000")
    other = follower_of(street.gateway, "another")
    await other.run_once()
    await street.follow()
    assert (await aside(street), event) == ({}, (await street.deliveries())[0])
