"""Signers of Slack, GitHub, Stripe and Standard Webhooks. `tests.signing` says what a signer is.

Written against the providers' documentation with the standard library, not with the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.signing import Signer

FORM = "application/x-www-form-urlencoded"


def _json(**members: Any) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def _form(**fields: str) -> bytes:
    return urlencode(fields).encode()


def _content_type(body: bytes) -> str:
    """Slack and GitHub send JSON or a form; the first byte tells."""
    return "application/json" if body[:1] == b"{" else FORM


def _hex(secret: bytes, message: bytes) -> str:
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def _unix(now: datetime) -> str:
    return str(int(now.timestamp()))


# Slack


def slack(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    timestamp = _unix(now)
    return {
        "content-type": _content_type(body),
        "user-agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
        "x-slack-request-timestamp": timestamp,
        "x-slack-signature": "v0=" + _hex(secret, f"v0:{timestamp}:".encode() + body),
    }


def slack_event(event_id: str, *, team_id: str | None = "T1DC2JH3J", **event: Any) -> bytes:
    """An Events API body; `event` is the inner event, by default a message."""
    inner = event or {"type": "message", "channel": "C1", "user": "U9", "text": "héllo", "ts": "1795435199.000100"}
    return _json(
        token="Jhj5dZrVaK7ZwHHjRyZWjbDl",
        team_id=team_id,
        api_app_id="A1",
        event=inner,
        type="event_callback",
        event_id=event_id,
        event_time=1795435199,
        authorizations=[
            {
                "enterprise_id": None,
                "team_id": team_id,
                "user_id": "U2BOT",
                "is_bot": True,
                "is_enterprise_install": False,
            }
        ],
        is_ext_shared_channel=False,
    )


def slack_interaction(**members: Any) -> bytes:
    """A form with the JSON in its one field `payload`."""
    payload = {
        "type": "block_actions",
        "user": {"id": "U9", "username": "ro é", "team_id": "T1DC2JH3J"},
        "api_app_id": "A1",
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "trigger_id": "12466734323.1395872398",
        "team": {"id": "T1DC2JH3J", "domain": "x"},
        "enterprise": None,
        "is_enterprise_install": False,
        "actions": [{"action_id": "go", "type": "button", "action_ts": "1795435199.840180"}],
        **members,
    }
    return _form(payload=json.dumps(payload, ensure_ascii=False))


def slack_command(**fields: str) -> bytes:
    known = {
        "token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "team_id": "T1DC2JH3J",
        "user_id": "U9",
        "command": "/weather",
        "text": "94070 & süd",
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
        "api_app_id": "A1",
    }
    return _form(**{**known, **fields})


# GitHub


def github(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return {
        "content-type": _content_type(body),
        "user-agent": "GitHub-Hookshot/044aadd",
        "x-github-delivery": delivery_id,
        "x-github-event": "pull_request",
        "x-github-hook-id": "292430182",
        "x-github-hook-installation-target-id": "79929171",
        "x-github-hook-installation-target-type": "repository",
        "x-hub-signature": "sha1=" + hmac.new(secret, body, hashlib.sha1).hexdigest(),
        "x-hub-signature-256": "sha256=" + _hex(secret, body),
    }


def github_pull_request(**members: Any) -> bytes:
    return _json(
        **{
            "action": "opened",
            "number": 2,
            "pull_request": {"id": 279147437, "title": "Update the README — ünïcode"},
            "repository": {"id": 186853002, "owner": {"id": 21031067, "type": "User"}},
            "organization": {"id": 38302899},
            "sender": {"id": 21031067, "login": "Codertocat"},
            "installation": {"id": 957387},
            **members,
        }
    )


# Stripe


def stripe(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    timestamp = _unix(now)
    due = _hex(secret, f"{timestamp}.".encode() + body)
    return {
        "content-type": "application/json; charset=utf-8",
        "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        "stripe-signature": f"t={timestamp},v1={due}",
    }


def stripe_event(event_id: str, **members: Any) -> bytes:
    return _json(
        **{
            "id": event_id,
            "object": "event",
            "account": "acct_1032D82eZvKYlo2C",
            "api_version": "2026-10-29.clover",
            "created": 1795435199,
            "type": "invoice.paid",
            "livemode": False,
            "data": {"object": {"id": "in_1", "object": "invoice", "description": "Ünï"}},
            **members,
        }
    )


def stripe_thin_event(event_id: str, **members: Any) -> bytes:
    return _json(
        **{
            "id": event_id,
            "object": "v2.core.event",
            "type": "v1.billing.meter.error_report_triggered",
            "created": "2026-11-23T11:59:59.000Z",
            "context": "org_1/acct_1032D82eZvKYlo2C",
            "livemode": True,
            **members,
        }
    )


# Standard Webhooks


def standard(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    message = f"{delivery_id}.{_unix(now)}.".encode() + body
    key = base64.b64decode(secret.removeprefix(b"whsec_"))
    return _standard_headers(
        body, now, delivery_id, "v1," + base64.b64encode(hmac.digest(key, message, "sha256")).decode()
    )


def standard_ed25519(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    """`secret` is what we are given: the public key. The private one is found by it."""
    message = f"{delivery_id}.{_unix(now)}.".encode() + body
    return _standard_headers(body, now, delivery_id, "v1a," + base64.b64encode(_PRIVATE[secret].sign(message)).decode())


def _standard_headers(body: bytes, now: datetime, delivery_id: str, signature: str) -> dict[str, str]:
    return {
        "content-type": "application/json" if body[:1] == b"{" else "text/plain; charset=utf-8",
        "webhook-id": delivery_id,
        "webhook-timestamp": _unix(now),
        "webhook-signature": signature,
    }


def _whsec(seed: str) -> bytes:
    return b"whsec_" + base64.b64encode(hashlib.sha256(seed.encode()).digest())


def _whpk(seed: str) -> tuple[bytes, Ed25519PrivateKey]:
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return b"whpk_" + base64.b64encode(public), private


_PRIVATE = dict(_whpk(seed) for seed in ("new", "old", "other"))
_NEW, _OLD, _OTHER = _PRIVATE

_STANDARD_BODIES = (
    _json(type="contact.created", timestamp="2026-11-23T11:59:59Z", data={"id": "1f81eb52", "name": "Zoë"}),
    b"not JSON, and signed all the same \xff",
)

SIGNERS: dict[str, Signer] = {
    "slack": Signer(
        provider="slack",
        secrets=(
            b"8f742231b10e8888abcd99ab12785a55",
            b"00d61c2a1b9d4e0f8a7c6b5d4e3f2a1b",
            b"ffffeeeeddddccccbbbbaaaa99998888",
        ),
        bodies=(slack_event("Ev08MFMKH6"), slack_interaction(), slack_command()),
        headers=slack,
        fresh=slack_event,
    ),
    "github": Signer(
        provider="github",
        secrets=(b"It's a Secret to Everybody", b"an older secret, still known", b"a secret of another app"),
        bodies=(github_pull_request(), _form(payload=github_pull_request().decode())),
        headers=github,
        ignored_headers=frozenset({"x-hub-signature"}),
        signs_time=False,
    ),
    "stripe": Signer(
        provider="stripe",
        secrets=(b"whsec_test_secret_new", b"whsec_test_secret_old", b"whsec_test_secret_other"),
        bodies=(stripe_event("evt_1NG8Du2eZvKYlo2CUI79vXWy"), stripe_thin_event("evt_test_65R9Ijk8dKEYZcXeRWn16R9A7j")),
        headers=stripe,
        fresh=stripe_event,
    ),
    "standard-webhooks": Signer(
        provider="standard-webhooks",
        secrets=(_whsec("new"), _whsec("old"), _whsec("other")),
        bodies=_STANDARD_BODIES,
        headers=standard,
    ),
    "standard-webhooks/ed25519": Signer(
        provider="standard-webhooks",
        secrets=(_NEW, _OLD, _OTHER),
        bodies=_STANDARD_BODIES,
        headers=standard_ed25519,
    ),
}
