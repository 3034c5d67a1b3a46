"""Every provider's deliveries, over real sockets, from the first byte to the event in the log."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta

import pytest

from gateway import ids
from providers.registry import all_providers
from tests.flows import raw
from tests.flows.house import House, declare, metric
from tests.signers import SIGNERS
from tests.signers_a import slack_event
from tests.signers_b import hubspot_body, hubspot_event, microsoft_body, microsoft_change
from tests.web.conftest import Api


@pytest.mark.parametrize("name", SIGNERS)
async def test_a_delivery_is_answered_as_its_provider_expects_and_is_on_the_stream(house: House, name: str) -> None:
    """2xx in that provider's shade; the event has the bytes as sent, how it was verified, and no authenticator."""
    await declare(house, name)
    facts = all_providers()[SIGNERS[name].provider].facts
    target, headers, body = house.signed(name)
    answer = await house.ask(raw.request(target, headers, body))
    assert (answer.status, answer.body) == (SIGNERS[name].ack_status or facts.ack_status, b"")
    [event] = await house.kept()
    assert event.type.startswith(f"posthouse.delivery.{facts.name}.")
    assert event.integration == house.integration(name).id
    if name.startswith("microsoft"):
        assert len(event.data) == len(body) - len(b'{"value":[]}')
    elif name == "slack":
        assert event.data == body.replace(b"Jhj5dZrVaK7ZwHHjRyZWjbDl", b"*" * 24)
    elif name == "hubspot":
        assert json.loads(body) == [json.loads(event.data)]
    else:
        assert event.data == SIGNERS[name].told(body)
    assert event.delivery["request"]["digest"] == "sha256:" + hashlib.sha256(body).hexdigest()
    assert event.delivery["request"].get("endpoint") == (
        ids.show(ids.ENDPOINT, house.endpoints[name]) if SIGNERS[name].endpoint else None
    )
    assert event.delivery["verification"]["secret"] == 0
    assert not set(facts.signature_headers) & set(event.delivery["headers"])
    assert event.delivery["headers"]["user-agent" if "user-agent" in headers else "webhook-id"]


async def test_forged_and_stale_ones_are_refused_as_their_provider_expects(house: House) -> None:
    """Signed with another app's secret, or truly signed two hours ago or ahead: counted by reason, nothing kept."""
    for name, signer in SIGNERS.items():
        await declare(house, name)
        provider = all_providers()[signer.provider]
        labels = {"provider": signer.provider, "integration": name.replace("/", "-"), "reason": "signature_mismatch"}
        before = metric("posthouse_refused_total", **labels)
        forged = await house.deliver(name, secret=signer.secrets[2])
        assert (name, forged.status) == (name, signer.refused_status or provider.facts.refused_status)
        assert (name, metric("posthouse_refused_total", **labels)) == (name, before + 1)
        for late_s in (7200, -7200) if signer.signs_time else ():
            stale = await house.deliver(name, at=house.gateway.clock.now() - timedelta(seconds=late_s))
            assert (name, stale.status, stale.body) == (name, 401, b"timestamp_out_of_range")
    assert await house.kept() == []


async def test_a_delivery_that_comes_again_is_acknowledged_and_kept_once(house: House) -> None:
    """Also when it comes on eight connections at once."""
    names = (
        *("slack", "github", "stripe", "standard-webhooks", "hubspot", "gitlab", "google"),
        *("shopify", "shopify/events", "zoom", "linear"),
    )
    for number, name in enumerate(names, 1):
        await declare(house, name)
        target, headers, body = house.signed(name)
        answers = await asyncio.gather(*(house.ask(raw.request(target, headers, body)) for _ in range(8)))
        again = await house.ask(raw.request(target, headers, body))
        assert {answer.status for answer in (*answers, again)} == {
            all_providers()[SIGNERS[name].provider].facts.ack_status
        }
        assert (name, len(await house.kept())) == (name, number)


async def test_what_carries_no_id_is_not_deduplicated(house: House) -> None:
    """Two `missed` of Graph's look the same, and are two."""
    await declare(house, "microsoft")
    body = microsoft_body(microsoft_change(changeType=None, resource=None, lifecycleEvent="missed"))
    for _ in range(2):
        assert (await house.deliver("microsoft", body)).status == 202
    first, second = await house.kept()
    assert first.data == second.data


async def test_an_array_of_several_portals_is_one_event_each_with_its_own_connections(house: House, api: Api) -> None:
    """HubSpot sends what happened in many accounts in one request; no tenant sees another's item."""
    await declare(house, "hubspot")
    made = {}
    for tenant, portal in (("acme", 62515), ("globex", 62516)):
        await api("PUT", f"/v1/tenants/{tenant}", {})
        asked = {"tenant": tenant, "integration": "hubspot", "accounts": [f"portal:{portal}"]}
        made[portal] = (await api("POST", "/v1/connections", asked)).json()["id"]
    events = [hubspot_event(eventId=n, portalId=portal) for n, portal in enumerate((62515, 62516, 62517, 62515))]
    assert (await house.deliver("hubspot", hubspot_body(*events))).status == 200
    kept = await house.kept()
    assert [json.loads(event.data) for event in kept] == events
    assert [event.delivery["item"] for event in kept] == [{"index": n, "of": 4} for n in range(4)]
    assert [event.tenants for event in kept] == [("acme",), ("globex",), (), ("acme",)]
    assert [[ids.show(ids.CONNECTION, c) for c in event.connections] for event in kept] == [
        [made[62515]], [made[62516]], [], [made[62515]],
    ]  # fmt: skip
    seen = (await api("GET", "/v1/events", params={"tenant": "globex", "type": "posthouse.delivery"})).json()["items"]
    assert [entry["connections"] for entry in seen] == [[made[62516]]]


async def test_an_unknown_slack_team_is_acknowledged_and_counted(house: House) -> None:
    """Slack switches an app off when most answers fail; so a team that nobody connected gets its 200, and we a metric."""
    await declare(house, "slack")
    labels = {"provider": "slack", "integration": "slack"}
    before = metric("posthouse_unattributed_total", **labels)
    assert (await house.deliver("slack", slack_event("Ev1", team_id="T_NOBODY"))).status == 200
    assert metric("posthouse_unattributed_total", **labels) == before + 1
    [event] = await house.kept()
    assert event.connections == ()


async def test_an_integration_that_drops_what_matches_nothing_still_acknowledges(house: House, api: Api) -> None:
    """`unattributed = drop`: 200, counted, not kept."""
    await declare(house, "slack")
    assert (await api("PATCH", "/v1/integrations/slack", {"unattributed": "drop"})).status_code == 200
    dropped = {"provider": "slack", "integration": "slack", "outcome": "dropped"}
    before = metric("posthouse_deliveries_total", **dropped)
    assert (await house.deliver("slack", slack_event("Ev2", team_id="T_NOBODY"))).status == 200
    assert metric("posthouse_deliveries_total", **dropped) == before + 1
    assert await house.kept() == []


async def test_no_authenticator_is_anywhere_in_the_database(house: House) -> None:
    """Slack's legacy token, Graph's clientState, tokens in headers: not in any column of an event, a key or a note."""
    secrets = {b"Jhj5dZrVaK7ZwHHjRyZWjbDl"}
    for name in ("slack", "microsoft", "microsoft/endpoint", "google/channel", "gitlab/token", "google"):
        await declare(house, name)
        signer = SIGNERS[name]
        secrets |= {signer.secrets[0]}
        for body in signer.bodies:
            target, headers, sent = house.signed(name, body)
            assert (await house.ask(raw.request(target, headers, sent))).status < 300
            assert (await house.ask(raw.request(target, {**headers, "content-encoding": "gzip"}, sent))).status == 415
            secrets |= {token[-40:].encode() for token in [headers.get("authorization", "")] if token}
    await house.gateway.write_refusals()
    tables = "gateway.events", "gateway.refusals", "gateway.dedupe", "gateway.hook_endpoints", "control.integrations"
    rows = [
        row
        for table in tables
        for row in await house.gateway.control.fetch(f"SELECT * FROM {table}")  # noqa: S608 ours
    ]
    stored = b"\0".join(v if isinstance(v, bytes) else repr(v).encode() for row in rows for v in row.values())
    assert b"channel.exists" in stored
    assert not [secret for secret in secrets if secret in stored]
