"""Google's channel notifications, and the wall between them and Pub/Sub push: neither stands in for the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from providers import google
from providers.contract import Verified
from providers.errors import Malformed, NotConfigured, SignatureMismatch, SignatureMissing
from tests.signers_b import GOOGLE_PUBLISHED, GOOGLE_SETTINGS, SIGNERS
from tests.signing import NOW, signed, trusting

PUSH, CHANNEL = SIGNERS["google"], SIGNERS["google/channel"]
NOTIFIED = Verified("channel_token")


def test_a_channel_notification_needs_its_token() -> None:
    """The endpoint's own secret, an older one while it is listed, and no other."""
    assert google.verify(signed(CHANNEL), trusting(CHANNEL), NOW) == NOTIFIED
    new, old, other = CHANNEL.secrets
    assert google.verify(signed(CHANNEL, secret=old), trusting(CHANNEL, new, old), NOW).secret == 1
    with pytest.raises(SignatureMismatch):
        google.verify(signed(CHANNEL, secret=other), trusting(CHANNEL, new, old), NOW)


@pytest.mark.parametrize("absent", ["x-goog-channel-token", "x-goog-channel-id"])
def test_a_channel_notification_without_id_or_token_is_refused(absent: str) -> None:
    """Both are sent with each."""
    with pytest.raises(SignatureMissing):
        google.verify(signed(CHANNEL, headers={absent: ""}), trusting(CHANNEL), NOW)


def test_an_endpoint_without_secret_takes_no_channel() -> None:
    """An empty secret would be matched by an empty token."""
    for secrets in ((), (b"",)):
        with pytest.raises(NotConfigured):
            google.verify(signed(CHANNEL), replace(trusting(CHANNEL), secrets=secrets), NOW)


def test_a_channel_notification_at_the_app_wide_url_is_refused() -> None:
    """Even with a token that some secret of the integration matches, even with a good OIDC token beside it."""
    everything = replace(trusting(PUSH), secrets=CHANNEL.secrets)
    for delivery in (signed(CHANNEL), signed(PUSH, headers=signed(CHANNEL).headers)):
        with pytest.raises(NotConfigured):
            google.verify(delivery, everything, NOW)


def test_a_push_at_a_hook_endpoint_is_refused() -> None:
    """A captured message of one mailbox must not become an event of another's connection; nor may it help a
    channel notification with a wrong token."""
    trust = replace(trusting(CHANNEL), settings=GOOGLE_SETTINGS, keys=GOOGLE_PUBLISHED)
    with pytest.raises(SignatureMissing):
        google.verify(signed(PUSH), trust, NOW)
    forged = signed(CHANNEL, secret=CHANNEL.secrets[2], headers=signed(PUSH).headers)
    with pytest.raises(SignatureMismatch):
        google.verify(forged, trust, NOW)


def test_the_first_message_of_a_channel_is_its_sync() -> None:
    """Empty, and kept: it is the proof that the channel delivers."""
    delivery = signed(
        CHANNEL,
        b"",
        headers={"x-goog-resource-state": "sync", "x-goog-message-number": "1", "x-goog-channel-id": "c/+=1"},
    )
    (item,) = google.items(delivery, NOTIFIED)
    assert (item.event, item.data, item.content_type) == ("channel.sync", b"", "application/octet-stream")
    assert (item.accounts, item.dedupe) == (("channel:c/+=1",), "c/+=1/1")


def test_a_channel_message_without_number_is_not_deduplicated() -> None:
    """All notifications of a channel look alike but for the number."""
    (item,) = google.items(signed(CHANNEL, headers={"x-goog-message-number": ""}), NOTIFIED)
    assert item.dedupe is None
    assert item.event == "channel.exists"


def test_a_channel_message_with_a_broken_body_is_malformed() -> None:
    """Drive and the directory send JSON, Calendar nothing."""
    with pytest.raises(Malformed):
        google.items(signed(CHANNEL, b"{"), NOTIFIED)


def test_authenticators_are_never_kept() -> None:
    """Neither the OIDC token nor the channel's is among the headers that an event may carry."""
    kept = set(google.FACTS.kept_headers) | set(google.FACTS.identity_headers)
    assert not kept & {"authorization", "x-goog-channel-token"}
    assert {"authorization", "x-goog-channel-token"} <= set(google.FACTS.signature_headers)


def test_a_channel_token_longer_than_google_takes_is_complained_about() -> None:
    """256 characters."""
    assert google.check_secret(b"x" * 256) is None
    assert google.check_secret(b"x" * 257)
