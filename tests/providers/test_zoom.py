"""Zoom: raw bytes, the endpoint validation, whose delivery it is, and what a deauthorization says.

Zoom publishes no signature; the signer of `tests.signers_c` follows its description of the scheme.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from providers import zoom
from providers.contract import Item
from providers.errors import HandshakeRefused, Malformed, SignatureMismatch
from providers.signals import Said, Signal
from tests.signers import SIGNERS
from tests.signers_c import zoom_deauthorization, zoom_meeting, zoom_recording, zoom_validation
from tests.signing import NOW, signed, trusting

ZOOM = SIGNERS["zoom"]
HOST = "user:x1yCzABCDEfg23HiJKl4mN"


def item(body: bytes) -> Item:
    """The one item of a signed `body`."""
    delivery = signed(ZOOM, body)
    (found,) = zoom.items(delivery, zoom.verify(delivery, trusting(ZOOM), NOW))
    return found


def signals(body: bytes, **more: Any) -> list[Signal]:
    """What the item of `body` says about grants."""
    found = item(body)
    assert found.signal
    asked = {"client_id": "ABCDEFGHIJKLMNOPQRST", **more}
    return list(
        zoom.interpret(Said(event=found.event, data=found.data, content_type=found.content_type, headers={}, **asked))
    )


def test_the_bytes_that_came_are_what_is_signed() -> None:
    """Zoom's own sample signs JSON that it has made anew, which turns away every body with a space or an umlaut."""
    body = b'{ "event": "meeting.started",  "payload": {"topic": "\xc3\x9cbung \\/"} }'
    assert zoom.verify(signed(ZOOM, body), trusting(ZOOM), NOW).signed_at == NOW
    made_anew = json.dumps(json.loads(body), separators=(",", ":")).encode()
    sent = signed(ZOOM, body)
    sent.body = made_anew
    with pytest.raises(SignatureMismatch):
        zoom.verify(sent, trusting(ZOOM), NOW)


def test_a_signed_validation_is_answered_by_the_secret_that_signed_it() -> None:
    """While the Secret Token is being changed Zoom may sign with the one before."""
    new, old, _ = ZOOM.secrets
    for secret in (new, old):
        delivery = signed(ZOOM, zoom_validation("qgg8vlvZRS6UYooatFL8Aw"), secret=secret)
        answer = zoom.challenge(delivery, trusting(ZOOM, new, old))
        assert answer is not None
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert json.loads(answer.body) == {
            "plainToken": "qgg8vlvZRS6UYooatFL8Aw",
            "encryptedToken": hmac.new(secret, b"qgg8vlvZRS6UYooatFL8Aw", hashlib.sha256).hexdigest(),
        }


@pytest.mark.parametrize("token", ["", "x" * 129, "v0:1795435200:{}", "a.b", "a b", "ä", "a\n", 5, None, ["a"]])
def test_only_plain_tokens_are_answered(token: Any) -> None:
    """Else whoever can have a validation signed has any body signed by us (PROTOCOLS 7)."""
    with pytest.raises(HandshakeRefused):
        zoom.challenge(signed(ZOOM, zoom_validation(token)), trusting(ZOOM))
    assert zoom.challenge(signed(ZOOM, zoom_validation("x" * 128)), trusting(ZOOM)) is not None


def test_what_only_mentions_a_validation_is_none() -> None:
    assert zoom.challenge(signed(ZOOM, zoom_meeting("endpoint.url_validation")), trusting(ZOOM)) is None
    forged = signed(ZOOM, zoom_validation(), secret=ZOOM.secrets[2])
    with pytest.raises(
        SignatureMismatch
    ):  # whoever asks for an answer without asking for the signature gets none either
        zoom.challenge(forged, trusting(ZOOM))


def test_a_meeting_is_the_accounts_and_its_hosts() -> None:
    """Zoom does not say for whose installation it sends."""
    found = item(zoom_meeting("u-1"))
    assert (found.event, found.signal) == ("meeting.started", False)
    assert found.accounts == ("account:AAAAAABBBB", HOST)
    assert found.occurred_at == datetime(2026, 11, 23, 11, 59, 59, tzinfo=UTC)


def test_a_users_own_record_is_theirs_and_the_operators_is_nobodys() -> None:
    payload = {"account_id": "A1", "operator_id": "boss", "object": {"id": "U2"}}
    assert item(zoom_meeting("", event="user.updated", payload=payload)).accounts == ("account:A1", "user:U2")
    assert item(zoom_meeting("", payload=payload)).accounts == ("account:A1",)  # there it is the meeting's number


def test_a_retry_is_known_by_payload_and_time_and_not_by_what_is_new_each_time() -> None:
    """`download_token` stands beside the payload."""
    first, again = item(zoom_recording()), item(zoom_recording(download_token="another"))
    assert first.dedupe == again.dedupe is not None
    others = {
        item(zoom_recording(event_ts=1)).dedupe,
        item(zoom_meeting("u-1")).dedupe,
        item(zoom_meeting("u-2")).dedupe,
    }
    assert len(others | {first.dedupe}) == 4
    assert item(b'{"event":"meeting.started"}').dedupe is None


def test_the_token_that_opens_recordings_is_blanked() -> None:
    body = zoom_recording()
    assert zoom.redact(body) == body.replace(b"eyJ.ab-c.d", b"*" * 10)


def test_a_deauthorization_is_the_users_at_the_time_that_was_signed() -> None:
    """Of the two times the earlier: a later one could end what was connected anew meanwhile."""
    when = datetime(2026, 11, 23, 11, 59, 58, 632000, tzinfo=UTC)
    due = Signal(says="revoked", reason="app_deauthorized", accounts=("user:abcD3ojfdbjfg",), knows="time", at=when)
    assert signals(zoom_deauthorization()) == [due]
    assert signals(zoom_deauthorization(event_ts=1795435300000)) == [due]
    assert signals(zoom_deauthorization(event_ts=None)) == [due]
    early = signals(zoom_deauthorization(event_ts=1795435190000))
    assert [one.at for one in early] == [datetime(2026, 11, 23, 11, 59, 50, tzinfo=UTC)]


def test_without_a_time_it_is_checked_first() -> None:
    """The page that documents the event shows a time without a zone, too: which hour that is nobody can tell."""
    [found] = signals(zoom_deauthorization(event_ts=None, deauthorization_time="2024-09-08 15:58:40"))
    assert (found.knows, found.at) == ("nothing", None)


def test_of_an_app_that_admins_manage_it_is_the_account() -> None:
    """And for all others never: that would end what other users of the account have connected."""
    [found] = signals(zoom_deauthorization(), settings={"managed": "admin"})
    assert found.accounts == ("account:AAAAAABBBB",)
    [found] = signals(zoom_deauthorization(), settings={"managed": "user"})
    assert found.accounts == ("user:abcD3ojfdbjfg",)


def test_another_apps_deauthorization_is_none_of_ours() -> None:
    assert signals(zoom_deauthorization(), client_id="another") == []
    assert len(signals(zoom_deauthorization(client_id=None))) == 1
    assert len(signals(zoom_deauthorization(), client_id=None)) == 1
    with pytest.raises(Malformed):
        signals(zoom_deauthorization(user_id=None))
