"""Standard Webhooks signatures: what two SDKs sign we accept, both algorithms, rotation, secrets in their forms."""

from __future__ import annotations

import base64
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from providers import standard_webhooks
from providers.contract import Delivery, Trust
from providers.errors import NotConfigured, Refused, SignatureMismatch, SignatureMissing
from providers.standard_signatures import parse_secret
from tests import vectors
from tests.providers.properties import PROPERTY
from tests.signers import SIGNERS
from tests.signing import NOW, signed, trusting

HMAC = SIGNERS["standard-webhooks"]
ED25519 = SIGNERS["standard-webhooks/ed25519"]
AT = str(int(NOW.timestamp()))


@pytest.mark.parametrize("vector", vectors.load("standard-webhooks")["vectors"], ids=lambda vector: vector["name"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    """The specification's own sample (its key has the shortest length allowed), and what must fail."""
    trust = Trust(secrets=(vector["secret"].encode(),), endpoint=False)
    if vector["valid"]:
        assert standard_webhooks.verify(vectors.delivery(vector), trust, vectors.now(vector)).scheme == "v1"
    else:
        with pytest.raises(Refused):
            standard_webhooks.verify(vectors.delivery(vector), trust, vectors.now(vector))


def theirs(sdk: Any, raw: bytes, headers: dict[str, str]) -> bool:
    """What an SDK says; it reads its own clock."""
    try:
        sdk.verify(raw, headers, **({"json_parse": False} if isinstance(sdk, standardwebhooks.Webhook) else {}))
    except standardwebhooks.WebhookVerificationError:
        return False
    return True


def ours(secret: str, raw: bytes, headers: dict[str, str], now: datetime) -> bool:
    """What we say."""
    try:
        standard_webhooks.verify(Delivery("POST", "", "", "", headers, raw), Trust((secret.encode(),), False), now)
    except Refused:
        return False
    return True


@PROPERTY
@given(
    body=st.text(max_size=200),
    key=st.binary(min_size=24, max_size=64),
    message_id=st.text("abcXYZ0189_-", min_size=1, max_size=40),
    skew_s=st.sampled_from([0, 200, -200, 400, -400, 10**6]),  # far from 300: both read a clock of their own
    spoil=st.sampled_from(["", "body", "id", "secret"]),
    others=st.sampled_from(["", "v1,AAAA ", "v2,zzzz ", "v1a,zzzz "]),
    sdk=st.sampled_from([standardwebhooks.Webhook, svix.webhooks.Webhook]),
    prefix=st.sampled_from(["webhook", "svix"]),
)
def test_we_and_the_sdks_agree(
    body: str, key: bytes, message_id: str, skew_s: int, spoil: str, others: str, sdk: Any, prefix: str
) -> None:
    """Over any text, key and skew, under both names of the headers: accepted by both or by neither."""
    if sdk is standardwebhooks.Webhook:
        prefix = "webhook"
    body = body.encode("utf-8", "replace").decode()
    secret = "whsec_" + base64.b64encode(key).decode()
    now = datetime.now(UTC)
    at = now - timedelta(seconds=skew_s)
    headers = {
        f"{prefix}-id": message_id + ("x" if spoil == "id" else ""),
        f"{prefix}-timestamp": str(int(at.timestamp())),
        f"{prefix}-signature": others + sdk(secret).sign(message_id, at, body),
    }
    raw = (body + ("x" if spoil == "body" else "")).encode()
    another = "whsec_" + base64.b64encode(bytes(byte ^ 1 for byte in key)).decode()
    used = another if spoil == "secret" else secret
    said = theirs(sdk(used), raw, headers)
    assert ours(used, raw, headers, now) == said == (not spoil and abs(skew_s) < 300)


@PROPERTY
@given(body=st.binary(max_size=200), seed=st.binary(min_size=32, max_size=32))
def test_ed25519_over_anything(body: bytes, seed: bytes) -> None:
    """`v1a`, which the SDKs for Python leave out."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = base64.b64encode(private.sign(f"msg_1.{AT}.".encode() + body)).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": AT, "webhook-signature": "v1a," + signature}
    trust = Trust((b"whpk_" + base64.b64encode(public),), False)
    delivery = Delivery("POST", "", "", "", headers, body)
    assert standard_webhooks.verify(delivery, trust, NOW).scheme == "v1a"
    with pytest.raises(SignatureMismatch):
        standard_webhooks.verify(replace(delivery, body=body + b"x"), trust, NOW)


def headers_with(signatures: str) -> dict[str, str]:
    """The three headers of message `msg_1`."""
    return {"webhook-id": "msg_1", "webhook-timestamp": AT, "webhook-signature": signatures}


def signature_of(signer: Any, secret: bytes) -> str:
    """One entry of the list, over an empty body."""
    return str(signer.headers(b"", secret, NOW, delivery_id="msg_1", url="")["webhook-signature"])


def test_any_signature_of_the_list_will_do() -> None:
    """Of several secrets and both algorithms; entries of other versions and broken ones are skipped."""
    new, old, other = HMAC.secrets
    listed = " ".join(
        ["v9,AAAA", "v1", "", "v1,é", "v1a,AAAA", signature_of(HMAC, old), signature_of(ED25519, ED25519.secrets[0])]
    )
    delivery = Delivery("POST", "", "", "", headers_with(listed), b"")
    assert standard_webhooks.verify(delivery, trusting(HMAC, new, old), NOW).secret == 1
    by_key = standard_webhooks.verify(delivery, trusting(HMAC, other, ED25519.secrets[0]), NOW)
    assert (by_key.scheme, by_key.secret) == ("v1a", 1)
    with pytest.raises(SignatureMismatch):
        standard_webhooks.verify(delivery, trusting(HMAC, new, other), NOW)


def test_a_signature_counts_only_under_its_own_version() -> None:
    """A right HMAC called v1a, a right Ed25519 called v1: neither is what it says."""
    for signer in (HMAC, ED25519):
        version, _, signature = signature_of(signer, signer.secrets[0]).partition(",")
        swapped = {"v1": "v1a", "v1a": "v1"}[version] + "," + signature
        with pytest.raises(SignatureMismatch):
            standard_webhooks.verify(Delivery("POST", "", "", "", headers_with(swapped), b""), trusting(signer), NOW)


def test_a_public_key_is_no_hmac_key() -> None:
    """Everyone knows it: what is signed with it as an HMAC secret is refused."""
    public = ED25519.secrets[0].removeprefix(b"whpk_")
    due = hmac.digest(base64.b64decode(public), f"msg_1.{AT}.".encode(), "sha256")
    forged = headers_with("v1," + base64.b64encode(due).decode())
    with pytest.raises(SignatureMismatch):
        standard_webhooks.verify(Delivery("POST", "", "", "", forged, b""), trusting(ED25519), NOW)


@pytest.mark.parametrize("message_id", ["a.b", ".", "a b", "é", "x" * 257])
def test_ids_that_could_say_two_things_are_refused(message_id: str) -> None:
    """`a.b` at 1 and `a` at b.1 would be signed alike."""
    with pytest.raises(SignatureMismatch, match="id is not"):
        standard_webhooks.verify(signed(HMAC, delivery_id=message_id), trusting(HMAC), NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_all_three_headers_are_needed(name: str) -> None:
    """All of them are signed, or sign."""
    delivery = signed(HMAC)
    headers = {key: value for key, value in delivery.headers.items() if key != name}
    with pytest.raises(SignatureMissing):
        standard_webhooks.verify(replace(delivery, headers=headers), trusting(HMAC), NOW)


def test_the_two_families_of_headers_are_not_mixed() -> None:
    """An id from one and a signature from the other were not signed together."""
    delivery = signed(HMAC)
    as_svix = {key.replace("webhook-", "svix-"): value for key, value in delivery.headers.items()}
    assert standard_webhooks.verify(replace(delivery, headers=as_svix), trusting(HMAC), NOW).scheme == "v1"
    mixed = {**as_svix, "webhook-id": delivery.headers["webhook-id"]}
    mixed.pop("svix-id")
    with pytest.raises(SignatureMissing):
        standard_webhooks.verify(replace(delivery, headers=mixed), trusting(HMAC), NOW)
    both = {**as_svix, "webhook-signature": "v1,AAAA", "webhook-id": "msg_2", "webhook-timestamp": AT}
    with pytest.raises(SignatureMismatch):
        standard_webhooks.verify(replace(delivery, headers=both), trusting(HMAC), NOW)


# Secrets


def whsec(length: int) -> bytes:
    """A key of that many bytes."""
    return b"whsec_" + base64.b64encode(b"k" * length)


def test_secrets_in_their_forms() -> None:
    """24 to 64 bytes for HMAC, 32 for Ed25519; padding may be missing, as some senders show it."""
    for secret in (whsec(24), whsec(32), whsec(64), whsec(25).rstrip(b"="), ED25519.secrets[0]):
        assert standard_webhooks.check_secret(secret) is None
    assert "k" * 5 not in repr(parse_secret(whsec(32)))


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        b"whsec_",
        whsec(23),
        whsec(65),
        whsec(32)[6:],
        whsec(32) + b"\n",
        b"whsec_" + b"!" * 40,
        b"WHSEC_" + whsec(32)[6:],
        b"whpk_" + base64.b64encode(b"k" * 31),
        b"whsk_" + base64.b64encode(b"k" * 64),
        b"\xff" * 40,
        b"whsec_\xff\xff",
    ],
)
def test_other_secrets_are_named_and_verify_nothing(secret: bytes) -> None:
    """At `apply` they are a complaint; if one is there all the same, nothing is configured."""
    said = standard_webhooks.check_secret(secret)
    assert said
    assert said.isascii()
    with pytest.raises(NotConfigured):
        standard_webhooks.verify(signed(HMAC), trusting(HMAC, secret), NOW)
    # Beside a good one it is skipped, and the index still counts it.
    assert standard_webhooks.verify(signed(HMAC), trusting(HMAC, secret, HMAC.secrets[0]), NOW).secret == 1
