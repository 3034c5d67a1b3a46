"""Linear: the minute that a signature lives for, whose delivery it is, and what a revocation says.

Linear publishes no signature (its SDK's tests sign at run time); the signer of `tests.signers_c` follows the SDK's scheme.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers import linear
from providers.contract import Item
from providers.errors import Malformed, SignatureMismatch, SignatureMissing, TimestampOutOfRange
from providers.signals import Said, Signal
from providers.signatures import hmac_hex
from tests.signers import SIGNERS
from tests.signers_c import LINEAR_CLIENT, ORGANIZATION, linear_event, linear_revocation
from tests.signing import NOW, signed, trusting

LINEAR = SIGNERS["linear"]
WHOLE = (f"organization:{ORGANIZATION}",)
PERSON = (f"user:{ORGANIZATION}/u-1",)
OTHER = "c1c2c3c4-0000-4000-8000-000000000001"
CREATED = datetime(2026, 11, 23, 11, 59, 58, 632000, tzinfo=UTC)


def item(body: bytes, *, now: datetime = NOW) -> Item:
    """The one item of a `body` that was signed at `now`."""
    delivery = signed(LINEAR, body, now=now)
    (found,) = linear.items(delivery, linear.verify(delivery, trusting(LINEAR), now))
    return found


def signals(body: bytes, *, now: datetime = NOW, **more: Any) -> list[Signal]:
    """What the item of `body` says about grants."""
    found = item(body, now=now)
    assert found.signal
    asked = {"client_id": LINEAR_CLIENT, **more}
    kept = Said(event=found.event, data=found.data, content_type=found.content_type, headers={}, **asked)
    return list(linear.interpret(kept))


def as_it_is(body: bytes) -> Any:
    """A delivery of exactly this body, truly signed."""
    delivery = signed(LINEAR)
    delivery.body = body
    delivery.headers = {**delivery.headers, "linear-signature": hmac_hex(LINEAR.secrets[0], body).decode()}  # type: ignore[misc]
    return delivery


def test_the_time_in_the_body_counts_and_the_one_in_the_header_does_not() -> None:
    """The header is not signed: with a fresh one in it every old delivery would pass."""
    old = signed(LINEAR, now=NOW - timedelta(seconds=61))
    old.headers = {**old.headers, "linear-timestamp": str(int(NOW.timestamp() * 1000))}  # type: ignore[misc]
    with pytest.raises(TimestampOutOfRange):
        linear.verify(old, trusting(LINEAR), NOW)
    new = signed(LINEAR)
    new.headers = {**new.headers, "linear-timestamp": "0"}  # type: ignore[misc]
    assert linear.verify(new, trusting(LINEAR), NOW).signed_at == NOW


def test_a_body_without_a_time_is_refused_though_it_is_signed() -> None:
    """The SDK lets it pass, whatever its age."""
    with pytest.raises(SignatureMissing):
        linear.verify(as_it_is(b'{"type":"Issue","action":"create"}'), trusting(LINEAR), NOW)
    for body in (b'{"webhookTimestamp":"soon"}', b'{"webhookTimestamp":[1]}', b"[]", b"{"):
        with pytest.raises(Malformed):
            linear.verify(as_it_is(body), trusting(LINEAR), NOW)


def test_a_signature_has_one_spelling() -> None:
    delivery = signed(LINEAR)
    for spelt in (delivery.headers["linear-signature"].upper(), "sha256=" + delivery.headers["linear-signature"]):
        delivery.headers = {**delivery.headers, "linear-signature": spelt}  # type: ignore[misc]
        with pytest.raises(SignatureMismatch):
            linear.verify(delivery, trusting(LINEAR), NOW)


def test_an_issue_is_its_organizations() -> None:
    """Named by type and action; a retry, hours later and signed anew, has the same delivery id."""
    found, again = item(linear_event()), item(linear_event(), now=NOW + timedelta(hours=6))
    assert (found.event, found.accounts, found.signal) == ("issue.create", WHOLE, False)
    assert found.dedupe == again.dedupe == "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    assert found.occurred_at == CREATED
    assert item(linear_event(userId="u-1")).accounts == WHOLE  # who only acted


def test_a_revoked_application_ends_what_the_organization_gave() -> None:
    """At `createdAt`: a retry's own time lies behind a new consent, and would end that too."""
    due = Signal(says="revoked", reason="app_revoked", accounts=WHOLE, knows="time", at=CREATED)
    assert signals(linear_revocation()) == [due]
    assert signals(linear_revocation(), now=NOW + timedelta(hours=1)) == [due]
    [early] = signals(linear_revocation(createdAt="2026-11-23T12:30:00Z"))
    assert early.at == NOW
    [unknown] = signals(linear_revocation(createdAt=None))
    assert (unknown.says, unknown.knows, unknown.at) == ("revoked", "nothing", None)


def test_another_applications_end_is_none_of_ours() -> None:
    """Also by the id that webhooks have for ours, once the operator has told it."""
    assert signals(linear_revocation(oauthClientId="ffffffffffffffffffffffffffffffff")) == []
    assert signals(linear_revocation(oauthClientId=None)) == []
    assert signals(linear_revocation(oauthClientId=5)) == []
    ours = {"oauth_client_id": OTHER}
    assert [one.says for one in signals(linear_revocation(oauthClientId=OTHER), settings=ours)] == ["revoked"]
    assert signals(linear_revocation(oauthClientId=OTHER[:-1] + "2"), settings=ours) == []


def test_an_id_of_the_other_kind_has_the_provider_asked() -> None:
    """Webhooks may name the application by a UUID, which its client id is not: whose it is cannot be told then."""
    assert signals(linear_revocation(oauthClientId=OTHER)) == [
        Signal(says="doubtful", reason="app_revoked", accounts=WHOLE, knows="time", at=CREATED)
    ]
    assert signals(linear_revocation(oauthClientId=OTHER), client_id=OTHER[:-1] + "2") == []


def test_a_persons_authorization_ends_theirs_alone() -> None:
    """With tokens left, which of them went is not told."""
    taken = {"type": "OAuthAuthorization", "userId": "u-1"}
    assert item(linear_revocation(**taken)).accounts == WHOLE + PERSON
    assert signals(linear_revocation(**taken, activeTokensForUser=0)) == [
        Signal(says="revoked", reason="authorization_revoked", accounts=PERSON, knows="time", at=CREATED)
    ]
    for left in (1, None):
        assert signals(linear_revocation(**taken, activeTokensForUser=left)) == [
            Signal(says="doubtful", reason="authorization_revoked", accounts=PERSON, knows="time", at=CREATED)
        ]


def test_who_is_not_named_is_not_guessed() -> None:
    with pytest.raises(Malformed):
        signals(linear_revocation(organizationId=None))
    with pytest.raises(Malformed):
        signals(linear_revocation(type="OAuthAuthorization", userId={}))


@pytest.mark.parametrize("secret", [b"lin_api_0123456789abcdef", b"lin_oauth_0123456789abcdef", b"short"])
def test_what_is_no_signing_secret_is_named(secret: bytes) -> None:
    assert linear.check_secret(secret)
