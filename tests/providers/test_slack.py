"""Slack: what its SDK signs we accept, what else is refused, and the handshake."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.signature import Clock, SignatureVerifier

from providers import slack
from providers.contract import Delivery, Trust
from providers.errors import HandshakeRefused, Refused, SignatureMismatch, SignatureMissing
from tests import vectors
from tests.providers.properties import PROPERTY
from tests.signers import SIGNERS
from tests.signers_a import slack_command, slack_event
from tests.signing import NOW, signed, trusting

SLACK = SIGNERS["slack"]
PUBLISHED = vectors.load("slack")


@pytest.mark.parametrize("vector", PUBLISHED["vectors"], ids=lambda vector: vector["name"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    """Slack's own sample, and what must fail."""
    trust = Trust(secrets=(vector["secret"].encode(),), endpoint=False)
    if vector["valid"]:
        assert slack.verify(vectors.delivery(vector), trust, vectors.now(vector)).scheme == "v0"
    else:
        with pytest.raises(Refused):
            slack.verify(vectors.delivery(vector), trust, vectors.now(vector))


class At(Clock):
    """The SDK's clock, at one moment."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> float:
        return self._now.timestamp()


@PROPERTY
@given(
    body=st.text(max_size=200),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    skew_s=st.integers(-310, 310),
    spoil=st.sampled_from(["", "body", "signature", "timestamp", "secret"]),
)
def test_we_and_the_sdk_agree(body: str, secret: str, skew_s: int, spoil: str) -> None:
    """Over any text, any secret, any skew: accepted by both or by neither."""
    body = body.encode("utf-8", "replace").decode()
    timestamp = str(int((NOW - timedelta(seconds=skew_s)).timestamp()))
    signature = SignatureVerifier(secret).generate_signature(timestamp=timestamp, body=body)
    assert signature is not None
    if spoil == "signature":
        signature = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    headers = {
        "x-slack-request-timestamp": timestamp + ("0" if spoil == "timestamp" else ""),
        "x-slack-signature": signature,
    }
    raw = (body + ("x" if spoil == "body" else "")).encode()
    used = secret + ("x" if spoil == "secret" else "")
    theirs = SignatureVerifier(used, At(NOW)).is_valid_request(raw, headers)
    try:
        slack.verify(Delivery("POST", "", "", "", headers, raw), Trust((used.encode(),), False), NOW)
    except Refused:
        assert not theirs
    else:
        assert theirs
        assert not spoil


@pytest.mark.parametrize("name", ["x-slack-request-timestamp", "x-slack-signature"])
def test_both_headers_are_needed(name: str) -> None:
    """The timestamp is part of what is signed."""
    delivery = signed(SLACK)
    headers = {key: value for key, value in delivery.headers.items() if key != name}
    with pytest.raises(SignatureMissing):
        slack.verify(replace(delivery, headers=headers), trusting(SLACK), NOW)


def test_a_stale_forgery_is_called_a_forgery() -> None:
    """ "Stale" is only said of what Slack really signed: the operator would look at clocks."""
    old = signed(SLACK, now=NOW - timedelta(hours=1), secret=SLACK.secrets[2])
    with pytest.raises(SignatureMismatch):
        slack.verify(old, trusting(SLACK), NOW)


def test_the_signed_time_is_reported() -> None:
    """It is a fence for signals (PROTOCOLS 4)."""
    assert slack.verify(signed(SLACK), trusting(SLACK), NOW).signed_at == NOW


# Handshake


def handshake(**members: Any) -> Delivery:
    """A signed url_verification, with members replaced."""
    return signed(SLACK, json.dumps({**PUBLISHED["handshakes"]["url_verification"], **members}).encode())


def test_a_signed_challenge_is_echoed() -> None:
    """As plain text, and nothing but the challenge."""
    delivery = handshake()
    slack.verify(delivery, trusting(SLACK), NOW)
    answer = slack.challenge(delivery, trusting(SLACK))
    assert answer is not None
    assert answer.status == 200
    assert answer.content_type == "text/plain"
    assert answer.body == PUBLISHED["handshakes"]["url_verification"]["challenge"].encode()


@pytest.mark.parametrize("challenge", ["<script>", "a b", "", "x" * 129, "é", None, 7, ["x"], {"a": "b"}])
def test_no_other_challenge_is_echoed(challenge: Any) -> None:
    """Our origin does not serve text that somebody else chose."""
    with pytest.raises(HandshakeRefused):
        slack.challenge(handshake(challenge=challenge), trusting(SLACK))


def test_a_message_about_handshakes_is_none() -> None:
    """The words in a text, or in a form, are just words."""
    for body in (
        slack_event("Ev1", type="message", text='{"type":"url_verification"}'),
        slack_command(text="url_verification"),
    ):
        assert slack.challenge(signed(SLACK, body), trusting(SLACK)) is None
