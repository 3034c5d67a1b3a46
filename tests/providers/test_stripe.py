"""Stripe: what its SDK signs we accept, several signatures, thin events, whose an event is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe import SignatureVerificationError, WebhookSignature

from providers import stripe
from providers.contract import Delivery, Item, Trust
from providers.errors import Malformed, Refused, SignatureMismatch, TimestampOutOfRange
from providers.signatures import hmac_hex
from tests import vectors
from tests.providers.properties import PROPERTY
from tests.signers import SIGNERS
from tests.signers_a import stripe_event, stripe_thin_event
from tests.signing import NOW, signed, trusting

STRIPE = SIGNERS["stripe"]
AT = int(NOW.timestamp())


def item(body: bytes) -> Item:
    """The one item of a signed `body`."""
    delivery = signed(STRIPE, body)
    (found,) = stripe.items(delivery, stripe.verify(delivery, trusting(STRIPE), NOW))
    return found


def with_header(value: str, body: bytes = b"{}") -> Delivery:
    """A delivery with this `Stripe-Signature`."""
    return Delivery("POST", "", "", "", {"stripe-signature": value}, body)


def test_published_primitives() -> None:
    """Stripe publishes no whole header, only the HMAC of three payloads."""
    published = vectors.load("stripe")
    for vector in published["primitives"]:
        assert hmac_hex(published["secret"].encode(), vector["payload"].encode()).decode() == vector["hex"]


def theirs(payload: bytes, header: str, secret: str) -> bool:
    """What the SDK says of the signature; its clock is left out, since it lets the future pass."""
    try:
        return bool(WebhookSignature.verify_header(payload, header, secret, tolerance=None))
    except SignatureVerificationError:
        return False


def ours(payload: bytes, header: str, secret: str) -> bool:
    """What we say at the time that was signed."""
    try:
        stripe.verify(with_header(header, payload), Trust((secret.encode(),), False), NOW)
    except Refused:
        return False
    return True


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=50)


@PROPERTY
@given(
    payload=st.text(max_size=200),
    secret=secrets,
    spoil=st.sampled_from(["", "payload", "secret"]),
    before=st.sampled_from(["", "v1=" + "0" * 64 + ",", "v0=" + "0" * 64 + ",", "v1=,", "v2=x,"]),
    after=st.sampled_from(["", ",v0=6ffbb59b", ",v1=" + "f" * 64, ",x", ","]),
)
def test_we_and_the_sdk_agree(payload: str, secret: str, spoil: str, before: str, after: str) -> None:
    """Over any text and secret, with other signatures around ours: accepted by both or by neither."""
    payload = payload.encode("utf-8", "replace").decode()
    made = WebhookSignature.generate_signature_header(payload, secret, AT)
    time, _, signature = made.partition(",")
    header = f"{time},{before}{signature}{after}"
    sent = (payload + ("x" if spoil == "payload" else "")).encode()
    used = secret + ("x" if spoil == "secret" else "")
    assert ours(sent, header, used) == theirs(sent, header, used) == (not spoil)


def test_odd_text_beside_a_good_signature_does_no_harm() -> None:
    """The SDK raises a TypeError here."""
    good = hmac_hex(STRIPE.secrets[0], str(AT).encode(), b".{}").decode()
    assert stripe.verify(with_header(f"t={AT},v1=é,v1={good}"), trusting(STRIPE), NOW).secret == 0


@pytest.mark.parametrize(
    "header",
    [
        "v1={good}",
        "t={at}",
        "t={at},v0={good}",
        "t={at},v1={GOOD}",
        "t={at},v1={good}=",
        "t={at}, v1={good}",
        "t={at},v1",
        "t=,v1={good}",
        "t=+{at},v1={good}",
        "t={at}.0,v1={good}",
        "t=x,v1={good}",
        "t={at},t={at},v1={good}",
        "t={at},t=1,v1={good}",
        "t={at};v1={good}",
        "T={at},v1={good}",
    ],
)
def test_headers_of_another_form_are_a_mismatch(header: str) -> None:
    """Among them two timestamps, of which the SDK takes the first: one of them was not signed."""
    good = hmac_hex(STRIPE.secrets[0], str(AT).encode(), b".{}").decode()
    right = with_header(f"t={AT},v1={good}")
    assert stripe.verify(right, trusting(STRIPE), NOW).signed_at == NOW
    with pytest.raises(SignatureMismatch):
        stripe.verify(with_header(header.format(at=AT, good=good, GOOD=good.upper())), trusting(STRIPE), NOW)


def test_while_a_secret_rolls_either_signature_will_do() -> None:
    """Stripe signs with both secrets for up to a day; we may know either, or both."""
    new, old, other = STRIPE.secrets
    both = ",".join("v1=" + hmac_hex(secret, str(AT).encode(), b".{}").decode() for secret in (old, new))
    delivery = with_header(f"t={AT},{both}")
    assert stripe.verify(delivery, trusting(STRIPE, new), NOW).secret == 0
    assert stripe.verify(delivery, trusting(STRIPE, old), NOW).secret == 0
    assert stripe.verify(delivery, trusting(STRIPE, other, old), NOW).secret == 1
    with pytest.raises(SignatureMismatch):
        stripe.verify(delivery, trusting(STRIPE, other), NOW)


def test_the_future_is_refused_although_the_sdk_takes_it() -> None:
    """A signature dated a year ahead would be good for a year."""
    header = WebhookSignature.generate_signature_header("{}", STRIPE.secrets[0].decode(), AT + 365 * 24 * 3600)
    assert WebhookSignature.verify_header(b"{}", header, STRIPE.secrets[0].decode(), tolerance=300)
    with pytest.raises(TimestampOutOfRange):
        stripe.verify(with_header(header), trusting(STRIPE), NOW)


def test_an_event_of_a_connected_account() -> None:
    """Named by its type, once by its id, the account's by the top-level `account`."""
    found = item(stripe_event("evt_1"))
    assert found.event == "invoice.paid"
    assert found.dedupe == "evt_1"
    assert found.accounts == ("account:acct_1032D82eZvKYlo2C",)
    assert found.occurred_at == NOW - timedelta(seconds=1)
    assert not found.signal


def test_an_event_of_the_own_account_names_none() -> None:
    """It concerns the platform itself."""
    assert item(stripe_event("evt_1", account=None)).accounts == ()


def test_a_thin_event_names_its_context() -> None:
    """The last step of the path; its time is text."""
    found = item(stripe_thin_event("evt_test_2"))
    assert found.event == "v1.billing.meter.error_report_triggered"
    assert found.dedupe == "evt_test_2"
    assert found.accounts == ("account:acct_1032D82eZvKYlo2C",)
    assert found.occurred_at == datetime(2026, 11, 23, 11, 59, 59, tzinfo=UTC)
    assert item(stripe_thin_event("evt_3", context="acct_5")).accounts == ("account:acct_5",)
    assert item(stripe_thin_event("evt_3", context=None)).accounts == ()


def test_a_deauthorization_names_the_account_and_not_the_application() -> None:
    """`data.object` is the application there, which many get wrong."""
    found = item(
        stripe_event(
            "evt_1", type="account.application.deauthorized", data={"object": {"id": "ca_1", "object": "application"}}
        )
    )
    assert found.signal
    assert found.accounts == ("account:acct_1032D82eZvKYlo2C",)


def test_an_odd_event_is_kept() -> None:
    """Of another API version, or without what we read: verified is worth keeping."""
    found = item(json.dumps({"id": ["x"], "type": 7, "account": {}, "created": "soon"}).encode())
    assert (found.event, found.dedupe, found.accounts, found.occurred_at) == ("unknown", None, (), None)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
def test_what_is_no_object_is_malformed(body: bytes) -> None:
    """Signed or not."""
    with pytest.raises(Malformed):
        item(body)


@pytest.mark.parametrize(
    "secret", [b"sk_live_0123456789abcdef", b"rk_test_0123456789abcdef", b"0123456789abcdef01", b"whsec_"]
)
def test_what_is_no_signing_secret_is_named(secret: bytes) -> None:
    """The API key is the usual mix-up."""
    assert stripe.check_secret(secret)


def test_resends_stay_known_for_thirty_days() -> None:
    """The CLI resends that long."""
    assert stripe.FACTS.dedupe_window_s == timedelta(days=30).total_seconds()
