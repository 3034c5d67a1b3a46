"""Handshakes: signed ones are answered after their signature, an unsigned one only where somebody waits for it."""

from __future__ import annotations

import json

from tests.flows import raw
from tests.flows.house import House, declare
from tests.signers_a import slack_command
from tests.web.conftest import Api

TOKEN = "Validation: Testing client application reachability for subscription Request-Id: 12ab-34cd"
ECHO = "validationToken=Validation%3A+Testing+client+application+reachability+for+subscription+Request-Id%3A+12ab-34cd"


def safe(answer: raw.Answer) -> bool:
    """Whether no browser would make anything of it; each header once, for two would be read as neither."""
    media = answer.header("content-type")
    assert media is not None
    return (
        media.startswith("text/plain")
        and answer.header("x-content-type-options") == "nosniff"
        and (answer.header("content-security-policy") or "").startswith("sandbox")
    )


async def test_slack_s_url_verification_is_answered_once_it_is_verified(house: House) -> None:
    """The challenge as text; a forged one, or one of another alphabet, is not repeated; nothing goes on the stream."""
    await declare(house, "slack")
    challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    body = json.dumps({"token": "x", "challenge": challenge, "type": "url_verification"}).encode()
    answer = await house.deliver("slack", body)
    assert (answer.status, answer.body.decode()) == (200, challenge)
    assert safe(answer)
    forged = await house.deliver("slack", body, secret=b"ffffeeeeddddccccbbbbaaaa99998888")
    assert (forged.status, forged.body) == (401, b"signature_mismatch")
    page = json.dumps({"challenge": "<script>alert(1)</script>", "type": "url_verification"}).encode()
    odd = await house.deliver("slack", page)
    assert (odd.status, odd.body) == (403, b"handshake_refused")
    assert await house.kept() == []


async def test_a_form_of_slack_s_is_a_delivery_whatever_it_says(house: House) -> None:
    """A slash command whose text is `url_verification` is not a handshake."""
    await declare(house, "slack")
    answer = await house.deliver("slack", slack_command(text="url_verification", challenge="x"))
    assert (answer.status, answer.body) == (200, b"")
    [event] = await house.kept()
    assert event.type == "posthouse.delivery.slack.slash_command"


async def test_graph_s_handshake_is_answered_only_at_an_endpoint_that_waits_for_it(house: House, api: Api) -> None:
    """By POST at a confirming endpoint: the token as plain text. At the app-wide URL, by GET, or once it is live: 403."""
    await declare(house, "microsoft/endpoint", state="confirming")
    await declare(house, "microsoft")
    waiting = f"{house.targets['microsoft/endpoint']}?{ECHO}"
    answer = await house.ask(raw.request(waiting))
    assert (answer.status, answer.body.decode()) == (200, TOKEN)
    assert safe(answer)
    for other in (
        raw.request(f"{house.targets['microsoft']}?{ECHO}"),
        raw.request(waiting, method="GET"),
        raw.request(waiting, method="OPTIONS"),
        raw.request(f"{waiting}&{ECHO}"),
        raw.request(waiting, body=b"x" * 5000),
        raw.request(f"{house.targets['microsoft/endpoint']}?validationToken=%3Cscript%3E"),
        raw.request(f"{house.targets['microsoft/endpoint']}?validationToken=%00"),
    ):
        refused = await house.ask(other)
        assert (refused.status, refused.body) == (403, b"handshake_refused"), other
    endpoint = house.targets["microsoft/endpoint"].rpartition("/")[2]
    assert (await api("PATCH", f"/v1/endpoints/{endpoint}", {"state": "live"})).status_code == 200
    assert (await house.ask(raw.request(waiting))).status == 403
    assert await house.kept() == []


async def test_an_endpoint_that_was_not_confirmed_in_time_is_gone(house: House) -> None:
    """`confirming` ends by the region's clock: 404 then, like any URL that is not ours."""
    await declare(house, "microsoft/endpoint", state="confirming", confirm_ttl_s=600)
    await house.gateway.regions.home.database.execute("UPDATE gateway.clock SET shifted_by = '601 seconds'")
    answer = await house.ask(raw.request(f"{house.targets['microsoft/endpoint']}?{ECHO}"))
    assert answer.status == 404


async def test_a_notification_may_come_before_the_endpoint_is_confirmed(house: House) -> None:
    """Graph may send at once; its clientState proves it. And the next endpoint's clientState does not."""
    await declare(house, "microsoft/endpoint", state="confirming")
    assert (await house.deliver("microsoft/endpoint")).status == 202
    forged = await house.deliver("microsoft/endpoint", secret=b"client-state-of-another-77")
    assert (forged.status, forged.body) == (401, b"signature_mismatch")
    assert len(await house.kept()) == 1
