"""Slack's three kinds of request: what they become, whose they are, what is blanked in them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from providers import slack
from providers.contract import Item
from providers.errors import Malformed
from tests import vectors
from tests.signers import SIGNERS
from tests.signers_a import slack_command, slack_event, slack_interaction
from tests.signing import NOW, signed, trusting

SLACK = SIGNERS["slack"]
PUBLISHED = vectors.load("slack")


def item(body: bytes) -> Item:
    """The one item of a signed `body`."""
    delivery = signed(SLACK, body)
    (found,) = slack.items(delivery, slack.verify(delivery, trusting(SLACK), NOW))
    return found


def event(**members: Any) -> Item:
    """The item of an Events API body, with members of the envelope replaced."""
    return item(json.dumps({**json.loads(slack_event("Ev1")), **members}).encode())


# Events


def test_an_event_is_named_by_its_inner_type() -> None:
    """Its id is what a retry repeats, its time is Slack's, its team says whose it is."""
    found = item(slack_event("Ev08MFMKH6", type="app_mention", user="U9", channel="C1"))
    assert found.event == "app_mention"
    assert found.dedupe == "Ev08MFMKH6"
    assert found.occurred_at == datetime(2026, 11, 23, 11, 59, 59, tzinfo=UTC)
    assert found.accounts == ("team:T1DC2JH3J",)
    assert found.content_type == "application/json"
    assert not found.signal


def test_the_actor_is_not_an_account() -> None:
    """A user who wrote a message did not thereby authorize anybody to read it."""
    assert event(event={"type": "message", "user": "U9"}).accounts == ("team:T1DC2JH3J",)


def authorization(**members: Any) -> dict[str, Any]:
    """One entry of `authorizations`."""
    known = {"enterprise_id": None, "team_id": "T1", "user_id": "U1", "is_bot": True, "is_enterprise_install": False}
    return {**known, **members}


@pytest.mark.parametrize(
    ("members", "accounts"),
    [
        ({"team_id": "T1", "authorizations": []}, ("team:T1",)),
        ({"team_id": "T1", "authorizations": [authorization()]}, ("team:T1",)),
        # a user's token lets the app see it: that user's connection too
        ({"team_id": "T1", "authorizations": [authorization(is_bot=False)]}, ("team:T1", "user:T1/U1")),
        # a shared channel: it happened at T2, our installation is T1's
        ({"team_id": "T2", "authorizations": [authorization()]}, ("team:T2", "team:T1")),
        # installed for the whole organization
        (
            {"team_id": "T1", "authorizations": [authorization(enterprise_id="E1", is_enterprise_install=True)]},
            ("team:T1", "enterprise:E1"),
        ),
        ({"team_id": None, "enterprise_id": "E1", "authorizations": []}, ("enterprise:E1",)),
        (
            {"team_id": None, "enterprise_id": "E1", "authorizations": [authorization(team_id=None)]},
            ("enterprise:E1",),
        ),
        # a workspace of an organization, installed by itself: the organization's installation is another
        ({"team_id": "T1", "enterprise_id": "E1", "authorizations": [authorization(enterprise_id="E1")]}, ("team:T1",)),
        # shapes that Slack does not send
        ({"team_id": 7, "authorizations": "T1"}, ("team:7",)),
        ({"team_id": ["T1"], "authorizations": [None, 7, "T2", {}]}, ()),
    ],
)
def test_whose_an_event_is(members: dict[str, Any], accounts: tuple[str, ...]) -> None:
    """Workspace, organization where the install is one, users whose tokens see it."""
    assert event(**members).accounts == accounts


def test_revoked_tokens_name_their_users() -> None:
    """`tokens.oauth` holds user ids; a bot's token is the workspace's installation."""
    found = item(slack_event("Ev1", type="tokens_revoked", tokens={"oauth": ["U1", "U2"], "bot": ["UB"]}))
    assert found.accounts == ("team:T1DC2JH3J", "user:T1DC2JH3J/U1", "user:T1DC2JH3J/U2")
    assert found.signal
    assert found.event == "tokens_revoked"


def test_uninstalling_is_a_signal() -> None:
    """Of a workspace, or of an organization; and of one workspace within it."""
    assert item(slack_event("Ev1", type="app_uninstalled")).signal
    gone = event(team_id=None, enterprise_id="E1", event={"type": "app_uninstalled"}, authorizations=None)
    assert (gone.accounts, gone.signal) == (("enterprise:E1",), True)
    left = event(team_id=None, enterprise_id="E1", event={"type": "team_access_revoked", "team_ids": ["T1", "T2"]})
    assert {"enterprise:E1", "team:T1", "team:T2"} <= set(left.accounts)
    assert left.signal


@pytest.mark.parametrize("kind", ["app_rate_limited", "url_verification", "something_new", "tokens_revoked"])
def test_only_an_inner_event_is_a_signal(kind: str) -> None:
    """A user's own words as the envelope's type, or in a message, revoke nothing."""
    assert not item(slack_event("Ev1", type="message", text=kind)).signal
    found = event(type=kind)
    assert found.event == kind
    assert found.signal == (kind == "tokens_revoked")


def test_rate_limits_are_one_for_each_team_and_minute() -> None:
    """They have no event id; retries repeat team and minute."""
    found = item(json.dumps(PUBLISHED["handshakes"]["app_rate_limited"]).encode())
    assert found.event == "app_rate_limited"
    assert found.accounts == ("team:T123456",)
    assert found.dedupe == "app_rate_limited:T123456:1518467820"
    assert found.occurred_at == datetime(2018, 2, 12, 20, 37, tzinfo=UTC)


# Forms


def test_interactions() -> None:
    """A form with JSON in its `payload`: the app was spoken to, so the speaker is named."""
    found = item(slack_interaction())
    assert found.event == "interactive.block_actions"
    assert found.content_type == "application/x-www-form-urlencoded"
    assert found.accounts == ("team:T1DC2JH3J", "user:T1DC2JH3J/U9")
    assert found.dedupe == "trigger:12466734323.1395872398"
    assert found.occurred_at == datetime(2026, 11, 23, 11, 59, 59, 840180, tzinfo=UTC)


def test_interactions_of_organizations_and_without_trigger() -> None:
    """`view_closed` has no trigger: nothing is unique, so nothing is deduplicated."""
    found = item(
        slack_interaction(
            type="view_closed", trigger_id=None, team=None, enterprise={"id": "E1"}, user={"id": "U9"}, actions=[]
        )
    )
    assert found.event == "interactive.view_closed"
    assert found.accounts == ("enterprise:E1", "user:E1/U9")
    assert found.dedupe is None
    both = item(slack_interaction(enterprise={"id": "E1"}, is_enterprise_install=True))
    assert both.accounts == ("team:T1DC2JH3J", "enterprise:E1", "user:T1DC2JH3J/U9")


def test_slash_commands() -> None:
    """A form of its own; `ssl_check` comes to the same URL."""
    found = item(slack_command())
    assert found.event == "slash_command"
    assert found.accounts == ("team:T1DC2JH3J", "user:T1DC2JH3J/U9")
    assert found.dedupe == "trigger:13345224609.738474920.8088930838d88f008e0"
    assert item(b"ssl_check=1&token=abc").event == "ssl_check"


@pytest.mark.parametrize("body", [b"payload=", b"payload=%7B", b"payload=%5B%5D", b"payload=7", b"payload=%FF"])
def test_payloads_that_are_none_are_malformed(body: bytes) -> None:
    """Signed or not."""
    with pytest.raises(Malformed):
        item(body)


def test_bodies_that_are_not_utf8_are_malformed() -> None:
    """Slack signs text; before verifying it there is nothing else to say."""
    with pytest.raises(Malformed):
        item(b'{"type":"\xff"}')


# Redaction


@pytest.mark.parametrize(
    "body",
    [slack_event("Ev1"), slack_interaction(), slack_command(), slack_command(token="+%&=é")],
    ids=["event", "interaction", "command", "odd token"],
)
def test_the_legacy_token_is_blanked(body: bytes) -> None:
    """Old receivers take it as proof; nobody reads it from our log. Everything else stays."""
    blanked = slack.redact(body)
    assert len(blanked) == len(body)
    assert b"Jhj5dZrVaK7ZwHHjRyZWjbDl" not in blanked
    assert b"%26%3D" not in blanked
    delivery = replace(signed(SLACK, body), body=blanked)
    (after,), before = slack.items(delivery, slack.verify(signed(SLACK), trusting(SLACK), NOW)), item(body)
    assert replace(after, data=b"") == replace(before, data=b"")


@pytest.mark.parametrize("secret", [b"xoxb-1234567890-abcdefghij", b"xapp-1-A1-123456-abcdef", b"short", b""])
def test_what_is_no_signing_secret_is_named(secret: bytes) -> None:
    """The token is the usual mix-up."""
    assert slack.check_secret(secret)
