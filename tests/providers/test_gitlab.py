"""GitLab: signing tokens by Standard Webhooks' own code and vector, the plain token, and no way down between them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from providers import gitlab
from providers.contract import Delivery, Trust, Verified
from providers.errors import Malformed, NotConfigured, Refused, SignatureMismatch, SignatureMissing
from tests.providers.properties import PROPERTY
from tests.signers_b import SIGNERS, gitlab_push
from tests.signing import NOW, URL, signed, trusting

SIGNING, PLAIN = SIGNERS["gitlab"], SIGNERS["gitlab/token"]
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "standard-webhooks.json").read_text())["vectors"]
TOKEN = Verified("token")


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["name"].startswith("V-SW-1")], ids=lambda v: v["name"])
def test_the_published_vector_and_what_is_wrong_beside_it(vector: dict[str, Any]) -> None:
    """V-SW-1 has a key of 24 bytes, shorter than GitLab's own, and is good all the same."""
    delivery = Delivery("POST", URL, "/hooks/int_1", "", vector["headers"], vector["body"].encode())
    trust = Trust(secrets=(vector["secret"].encode(),), endpoint=False)
    now = datetime.fromtimestamp(vector["now"], UTC)
    if vector["valid"]:
        assert gitlab.verify(delivery, trust, now).scheme == "v1"
    else:
        with pytest.raises(Refused):
            gitlab.verify(delivery, trust, now)


@PROPERTY
@given(st.text(st.characters(codec="utf-8")), st.uuids())
def test_what_the_standards_own_code_signs_is_accepted(body: str, name: object) -> None:
    """Any text as the body."""
    signature = Webhook(SIGNING.secrets[0].decode()).sign(str(name), NOW, body)
    headers = {
        "webhook-id": str(name),
        "webhook-timestamp": str(int(NOW.timestamp())),
        "webhook-signature": signature,
        "idempotency-key": str(name),
    }
    delivery = replace(signed(SIGNING, body.encode()), headers=headers)
    assert gitlab.verify(delivery, trusting(SIGNING), NOW) == Verified("v1", signed_at=NOW)


def test_several_signatures_and_several_secrets_rotate() -> None:
    """Any listed signature by any listed secret; which one is told."""
    new, old, other = SIGNING.secrets
    by_old = signed(SIGNING, secret=old)
    both = signed(SIGNING, secret=other).headers["webhook-signature"] + " " + by_old.headers["webhook-signature"]
    assert gitlab.verify(by_old, trusting(SIGNING, new, old), NOW).secret == 1
    delivery = replace(by_old, headers={**by_old.headers, "webhook-signature": both})
    assert gitlab.verify(delivery, trusting(SIGNING, new, old), NOW).secret == 1


# No downgrade


@pytest.mark.parametrize("signature", ["", "v1,", "v2,x", "v1,AAAA", "nonsense", "v1a,AAAA"])
def test_a_signature_that_came_must_verify(signature: str) -> None:
    """Even beside the right plain token, whether or not a signing token is configured."""
    plain = PLAIN.secrets[0]
    headers = {"webhook-signature": signature, "x-gitlab-token": plain.decode()}
    for secrets in ((plain,), (plain, SIGNING.secrets[0]), (SIGNING.secrets[0], plain)):
        with pytest.raises(Refused):
            gitlab.verify(signed(SIGNING, headers=headers), trusting(SIGNING, *secrets), NOW)


def test_a_true_signature_is_not_accepted_where_only_a_plain_token_is_configured() -> None:
    """It cannot be checked, and the token beside it is no substitute."""
    plain = PLAIN.secrets[0]
    with pytest.raises(NotConfigured):
        gitlab.verify(signed(SIGNING, headers={"x-gitlab-token": plain.decode()}), trusting(PLAIN, plain), NOW)


@pytest.mark.parametrize("order", [1, -1])
def test_where_a_signing_token_is_configured_the_plain_one_is_not_enough(order: int) -> None:
    """Leaving the signature away must not be the way in."""
    secrets = (PLAIN.secrets[0], SIGNING.secrets[0])[::order]
    with pytest.raises(SignatureMissing):
        gitlab.verify(signed(PLAIN), trusting(PLAIN, *secrets), NOW)


def test_an_unreadable_signing_token_does_not_open_the_plain_way() -> None:
    """A typing error in one secret is refused, not worked around."""
    with pytest.raises(Refused):
        gitlab.verify(signed(PLAIN), trusting(PLAIN, b"whsec_???", PLAIN.secrets[0]), NOW)
    with pytest.raises(NotConfigured):
        gitlab.verify(signed(SIGNING), trusting(SIGNING, b"whsec_???", PLAIN.secrets[0]), NOW)


def test_a_signing_token_sent_as_plain_token_is_refused() -> None:
    """A secret that was meant for signing is never compared with what a request brings."""
    new = SIGNING.secrets[0]
    with pytest.raises(SignatureMissing):
        gitlab.verify(signed(PLAIN, secret=new), trusting(PLAIN, new), NOW)


@pytest.mark.parametrize(
    "value", ["", " ", "plain-token-of-toda", "plain-token-of-today ", "Plain-token-of-today", "é"]
)
def test_a_wrong_plain_token_is_refused(value: str) -> None:
    """Compared whole, as bytes."""
    with pytest.raises((SignatureMissing, SignatureMismatch)):
        gitlab.verify(signed(PLAIN, headers={"x-gitlab-token": value}), trusting(PLAIN), NOW)


# Items


@pytest.mark.parametrize(
    ("payload", "header", "event"),
    [
        ({"object_kind": "push"}, "Push Hook", "push"),
        ({"object_kind": "tag_push"}, "Push Hook", "tag_push"),
        ({"object_kind": "issue"}, "Confidential Issue Hook", "issue"),
        ({"event_name": "project_create"}, "System Hook", "project_create"),
        ({"event_name": "user_add_to_group"}, "Member Hook", "user_add_to_group"),
        ({}, "Merge Request Hook", "merge_request"),
        ({"object_kind": 7}, "Push Hook", "push"),
        ({}, "", "unknown"),
    ],
)
def test_an_event_is_named_by_the_body_that_is_signed(payload: dict[str, Any], header: str, event: str) -> None:
    """The header is not signed: it names only what the body leaves open."""
    delivery = signed(SIGNING, json.dumps(payload).encode(), headers={"x-gitlab-event": header})
    (item,) = gitlab.items(delivery, TOKEN)
    assert item.event == event


@pytest.mark.parametrize(
    ("payload", "accounts"),
    [
        ({"project_id": 15, "project": {"id": 15}}, ("project:15",)),
        ({"project": {"id": 3}, "group": {"id": 7}}, ("project:3", "group:7")),
        ({"group_id": 78}, ("group:78",)),
        ({"group": {"group_id": 10}}, ("group:10",)),
        ({"project": None, "project_id": True}, ()),
    ],
)
def test_an_event_names_project_and_group(payload: dict[str, Any], accounts: tuple[str, ...]) -> None:
    """Where GitLab puts them, which depends on the event."""
    (item,) = gitlab.items(signed(SIGNING, json.dumps(payload).encode()), TOKEN)
    assert item.accounts == accounts


def test_a_resend_is_known_by_its_id_and_hooks_that_call_hooks_are_not_lost() -> None:
    """`webhook-id` or, unsigned, `Idempotency-Key`; the event UUID is shared by every delivery of a chain."""
    for signer in (SIGNING, PLAIN):
        (one,), (again,), (other,) = (
            gitlab.items(signed(signer, delivery_id=name), TOKEN) for name in ("one", "one", "other")
        )
        assert one.dedupe == again.dedupe == "one"
        assert other.dedupe == "other"
    (unlike,) = gitlab.items(signed(SIGNING, delivery_id="signed", headers={"idempotency-key": "unsigned"}), TOKEN)
    assert unlike.dedupe == "signed"
    (old,) = gitlab.items(signed(PLAIN, headers={"idempotency-key": ""}), TOKEN)
    assert old.dedupe is None


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'"push"', b"payload=%7B%7D"])
def test_a_body_that_is_no_object_is_malformed(body: bytes) -> None:
    """Signed or not."""
    with pytest.raises(Malformed):
        gitlab.items(signed(SIGNING, body), TOKEN)


def test_the_body_is_the_item() -> None:
    """Byte for byte."""
    body = b" " + gitlab_push() + b"\n"
    (item,) = gitlab.items(signed(SIGNING, body), TOKEN)
    assert item.data == body


@pytest.mark.parametrize(
    ("secret", "good"),
    [
        (b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", True),
        (b"whsec_MfKQ9r8G", False),
        (b"whsec_not base64!", False),
        (b"whsec_", False),
        (b"0123456789abcdef", True),
        (b"short", False),
        ("käse-0123456789".encode(), False),
    ],
)
def test_secrets_are_looked_over(secret: bytes, good: bool) -> None:
    """A signing token by its key, a plain token by its text."""
    assert (gitlab.check_secret(secret) is None) is good
