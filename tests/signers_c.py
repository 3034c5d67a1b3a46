"""Signers of Shopify, Zoom and Linear. `tests.signing` says what a signer is.

Written against the providers' documentation with the standard library, not with the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from datetime import datetime
from typing import Any

from tests.signing import Signer


def _json(**members: Any) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def _hex(secret: bytes, message: bytes) -> str:
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def _iso(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


# Shopify

SHOP = "shop1.myshopify.com"


def shopify(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return _of_family("x-shopify", body, secret, now, delivery_id)


def shopify_events(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return _of_family("shopify", body, secret, now, delivery_id) | {
        "shopify-handle": "orders",
        "shopify-action": "create",
    }


def _of_family(family: str, body: bytes, secret: bytes, now: datetime, delivery_id: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "user-agent": "Shopify-Captain-Hook",
        f"{family}-topic": "app/uninstalled" if b'"myshopify_domain"' in body else "orders/create",
        f"{family}-shop-domain": SHOP,
        f"{family}-api-version": "2026-10",
        f"{family}-webhook-id": delivery_id,
        f"{family}-event-id": f"event-of-{delivery_id}",
        f"{family}-triggered-at": _iso(now),
        f"{family}-hmac-sha256": base64.b64encode(hmac.digest(secret, body, "sha256")).decode(),
    }


def shopify_order(**members: Any) -> bytes:
    return _json(**{"id": 820982911946154508, "email": "jón@example.com", "total_price": "254.98", **members})


def shopify_shop(**members: Any) -> bytes:
    """The Shop resource, which is the body of app/uninstalled and of shop/update."""
    shop = {"id": 548380009, "name": "Süper Toys", "domain": "toys.example.com", "myshopify_domain": SHOP}
    return _json(**{**shop, **members})


# Zoom


def zoom(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    timestamp = str(int(now.timestamp()))
    return {
        "content-type": "application/json; charset=utf-8",
        "user-agent": "Zoom Marketplace/1.0a",
        "x-zm-trackingid": "v=2.0;clid=us06;rid=WEB_" + delivery_id.replace("-", ""),
        "x-zm-request-timestamp": timestamp,
        "x-zm-signature": "v0=" + _hex(secret, f"v0:{timestamp}:".encode() + body),
    }


def zoom_meeting(uuid: str, **members: Any) -> bytes:
    meeting = {"id": "1234567890", "uuid": uuid, "host_id": "x1yCzABCDEfg23HiJKl4mN", "topic": "Ünsere Meeting"}
    payload = {"account_id": "AAAAAABBBB", "object": meeting}
    return _json(**{"event": "meeting.started", "event_ts": 1795435199000, "payload": payload, **members})


def zoom_recording(**members: Any) -> bytes:
    payload = {
        "account_id": "AAAAAABBBB",
        "object": {"uuid": "4444AAAiAAAAAiAiAiiAii==", "host_id": "x1yCzABCDEfg23HiJKl4mN"},
    }
    said = {
        "event": "recording.completed",
        "event_ts": 1795435199000,
        "payload": payload,
        "download_token": "eyJ.ab-c.d",
    }
    return _json(**{**said, **members})


def zoom_deauthorization(*, event_ts: int | None = 1795435198700, **members: Any) -> bytes:
    """As https://developers.zoom.us/docs/api/marketplace/events/ shows it."""
    payload = {
        "account_id": "AAAAAABBBB",
        "user_id": "abcD3ojfdbjfg",
        "signature": "827edc3452044f0bc86bdd5684afb7d1e6becfa1a767f24df1b287853cf73000",
        "deauthorization_time": "2026-11-23T11:59:58.632Z",
        "client_id": "ABCDEFGHIJKLMNOPQRST",
        **members,
    }
    stamp = {} if event_ts is None else {"event_ts": event_ts}
    return _json(event="app_deauthorized", **stamp, payload={k: v for k, v in payload.items() if v is not None})


def zoom_validation(token: Any = "qgg8vlvZRS6UYooatFL8Aw") -> bytes:
    return _json(event="endpoint.url_validation", event_ts=1795435199000, payload={"plainToken": token})


# Linear

LINEAR_CLIENT = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
ORGANIZATION = "18544a12-e52c-4e40-81e1-766e0c46650e"
_STAMP = re.compile(rb'"webhookTimestamp": ?\d+')


def linear(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return {
        "content-type": "application/json; charset=utf-8",
        "user-agent": "Linear-Webhook",
        "linear-delivery": delivery_id,
        "linear-event": "Issue",
        "linear-timestamp": str(int(now.timestamp() * 1000)),
        "linear-signature": _hex(secret, body),
    }


def linear_sealed(body: bytes, secret: bytes, now: datetime) -> bytes:
    """With the time of this attempt in it, wherever a time can stand."""
    stamp = f'"webhookTimestamp":{int(now.timestamp() * 1000)}'.encode()
    if _STAMP.search(body):
        return _STAMP.sub(stamp, body)
    return b"{" + stamp + b"," + body[1:] if body[:2] == b'{"' else body


def linear_event(**members: Any) -> bytes:
    """A body; a member that is changed to None is left out."""
    said = {
        "action": "create",
        "type": "Issue",
        "createdAt": "2026-11-23T11:59:58.632Z",
        "data": {"id": "2174add1-f7c8-44e3-bbf3-2d60b5ea8bc9", "title": "Fehler beim Öffnen"},
        "organizationId": ORGANIZATION,
        "webhookId": "000042e3-d123-4980-b49f-8e140eef9329",
        "webhookTimestamp": 0,
        **members,
    }
    return _json(**{name: value for name, value in said.items() if value is not None})


def linear_revocation(**members: Any) -> bytes:
    said = {"type": "OAuthApp", "action": "revoked", "oauthClientId": LINEAR_CLIENT, "data": None}
    return linear_event(**{**said, **members})


_SHOPIFY = Signer(
    provider="shopify",
    secrets=(
        b"shpss_0123456789abcdef0123456789abcdef",
        b"hush-hush-and-then-some-more-hush",
        b"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",
    ),
    bodies=(shopify_order(), shopify_shop()),
    headers=shopify,
    signs_time=False,
)

SIGNERS: dict[str, Signer] = {
    "shopify": _SHOPIFY,
    "shopify/events": Signer(
        provider="shopify",
        secrets=_SHOPIFY.secrets,
        bodies=_SHOPIFY.bodies,
        headers=shopify_events,
        signs_time=False,
    ),
    "zoom": Signer(
        provider="zoom",
        secrets=(b"Tk1xQ2Z5R0pWdUhaWDNq", b"b0xkLVpvb20tU2VjcmV0", b"b3RoZXItYXBwLXNlY3JldA"),
        bodies=(zoom_meeting("4444AAAiAAAAAiAiAiiAii=="), zoom_recording(), zoom_deauthorization(), zoom_validation()),
        headers=zoom,
        fresh=zoom_meeting,
    ),
    "linear": Signer(
        provider="linear",
        secrets=(
            b"lin_wh_new_0123456789abcdefghij",
            b"lin_wh_old_0123456789abcdefghij",
            b"lin_wh_xyz_0123456789abcdefghij",
        ),
        bodies=(linear_event(), linear_revocation()),
        headers=linear,
        sealed=linear_sealed,
        client_id=LINEAR_CLIENT,
    ),
}
