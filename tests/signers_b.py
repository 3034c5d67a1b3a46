"""Signers of Google, Microsoft Graph, HubSpot, GitLab, the sandbox and generic OAuth 2.0. `tests.signing` says what a signer is.

Written against the providers' documentation with the standard library and google-auth, not with the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from google.auth import crypt, jwt

from tests.signers_a import standard
from tests.signing import Signer


def _json(**members: Any) -> bytes:
    return json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()


def _base64_hmac(key: bytes, message: bytes) -> str:
    return base64.b64encode(hmac.digest(key, message, "sha256")).decode()


def _unix(now: datetime) -> str:
    return str(int(now.timestamp()))


def _number(delivery_id: str) -> int:
    """A number instead of `delivery_id`, where the provider counts."""
    return int.from_bytes(hashlib.sha256(delivery_id.encode()).digest()[:6])


# Google: the "secrets" of the OIDC scheme are names of RSA keys, of which the last is not published

GOOGLE_KEYS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parent / "vectors" / "google-keys.json").read_text()
)["keys"]
GOOGLE_PUBLISHED = {
    GOOGLE_KEYS[name]["kid"]: GOOGLE_KEYS[name]["certificate"]
    for name in ("rsa-key-of-google-new", "rsa-key-of-google-old")
}
GOOGLE_SETTINGS = {
    "audience": "https://hooks.example.com/hooks/int_1",
    "service_account_email": "push@our-project.iam.gserviceaccount.com",
}


@cache
def google_signer(name: str) -> crypt.RSASigner:
    """The signer with key `name`; the one that is not published says it is the newest."""
    kid = GOOGLE_KEYS[name.replace("other", "new")]["kid"]
    # google-auth has no types here
    return crypt.RSASigner.from_string(GOOGLE_KEYS[name]["private"], key_id=kid)  # type: ignore[no-untyped-call, no-any-return]


def google_claims(now: datetime, **changed: Any) -> dict[str, Any]:
    """What Pub/Sub says in its token; a claim that is changed to None is left out."""
    issued = int(now.timestamp())
    claims = {
        "aud": GOOGLE_SETTINGS["audience"],
        "azp": "113774264463038321964",
        "email": GOOGLE_SETTINGS["service_account_email"],
        "email_verified": True,
        "exp": issued + 3600,
        "iat": issued,
        "iss": "https://accounts.google.com",
        "sub": "113774264463038321964",
        **changed,
    }
    return {name: value for name, value in claims.items() if value is not None}


def google_token(key: str, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    """A token as google-auth makes them, with `header` put over its own."""
    # google-auth has no types here
    made: bytes = jwt.encode(google_signer(key), claims, header=dict(header or {}))  # type: ignore[no-untyped-call]
    return made.decode()


def google_push(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return {
        "authorization": "Bearer " + google_token(secret.decode(), google_claims(now)),
        "content-type": "application/json",
        "user-agent": "CloudPubSub-Google",
        "from": "noreply@google.com",
    }


def google_message(message_id: str, data: bytes | None = None, **members: Any) -> bytes:
    """A Pub/Sub push body; by default Gmail's notification of a mailbox."""
    data = _json(emailAddress="Zoe@Example.com", historyId=9876543210) if data is None else data
    message = {
        "data": base64.b64encode(data).decode(),
        "messageId": message_id,
        "message_id": message_id,
        "publishTime": "2026-11-23T11:59:58.123456789Z",
        "publish_time": "2026-11-23T11:59:58.123456789Z",
        **members,
    }
    return _json(message=message, subscription="projects/our-project/subscriptions/gmail-push")


def google_channel(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return {
        "content-type": "application/json; charset=UTF-8",
        "user-agent": "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)",
        "x-goog-channel-expiration": "Mon, 30 Nov 2026 12:00:00 GMT",
        "x-goog-channel-id": "4ba78bf0-6a47-11e2-bcfd-0800200c9a66",
        "x-goog-channel-token": secret.decode(),
        "x-goog-message-number": str(_number(delivery_id)),
        "x-goog-resource-id": "ret08u3rv24htgh289g",
        "x-goog-resource-state": "exists",
        "x-goog-resource-uri": "https://www.googleapis.com/calendar/v3/calendars/my@example.com/events?alt=json",
    }


# Microsoft Graph

CLIENT_STATE = b'"clientState":"to be sealed"'


def microsoft(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return {"content-type": "application/json; charset=utf-8", "user-agent": "Microsoft.OData.Core"}


def microsoft_sealed(body: bytes, secret: bytes, now: datetime) -> bytes:
    return body.replace(CLIENT_STATE, b'"clientState":"' + secret + b'"')


def microsoft_change(**changed: Any) -> dict[str, Any]:
    """An element of `value`; a member that is changed to None is left out."""
    change = {
        "subscriptionId": "7f105c7d-2dc5-4530-97cd-4e7ae6534c07",
        "subscriptionExpirationDateTime": "2026-11-26T11:00:00.0000000Z",
        "clientState": "to be sealed",
        "changeType": "created",
        "resource": "Users/622eaaff-0683-4862-9de4-f2ec83c2bd98/Messages/AAMkAGUwNjQ4ZjIxAAA=",
        "tenantId": "84bd8158-6d4d-4958-8b9f-9d6445542f95",
        "resourceData": {
            "@odata.type": "#Microsoft.Graph.Message",
            "@odata.id": "Users/622eaaff-0683-4862-9de4-f2ec83c2bd98/Messages/AAMkAGUwNjQ4ZjIxAAA=",
            "@odata.etag": 'W/"CQAAABYAAADkrWGo7bouTKlsgTZMr9KwAAAUWRHf"',
            "id": "AAMkAGUwNjQ4ZjIxAAA=",
        },
        **changed,
    }
    return {name: value for name, value in change.items() if value is not None}


def microsoft_lifecycle(event: str, **changed: Any) -> dict[str, Any]:
    return microsoft_change(changeType=None, resource=None, resourceData=None, lifecycleEvent=event, **changed)


def microsoft_body(*changes: dict[str, Any]) -> bytes:
    return _json(value=list(changes))


# HubSpot

_HUBSPOT_DECODED = {f"%{ord(character):02X}": character for character in ":/?@!$'()*,;"}


def hubspot(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    timestamp = str(int(now.timestamp() * 1000))
    for escape, character in _HUBSPOT_DECODED.items():
        url = url.replace(escape, character)
    return {
        "content-type": "application/json;charset=utf-8",
        "user-agent": "HubSpot Connect 2.0 (https://dev.hubspot.com/)",
        "x-hubspot-request-timestamp": timestamp,
        "x-hubspot-signature": hashlib.sha256(secret + body).hexdigest(),
        "x-hubspot-signature-v3": _base64_hmac(secret, b"POST" + url.encode() + body + timestamp.encode()),
        "x-hubspot-signature-version": "v1",
    }


def hubspot_event(**changed: Any) -> dict[str, Any]:
    return {
        "appId": 54321,
        "eventId": 100,
        "subscriptionId": 12345,
        "portalId": 62515,
        "occurredAt": 1795435199000,
        "subscriptionType": "contact.creation",
        "attemptNumber": 0,
        "objectId": 123,
        "changeSource": "CRM",
        "changeFlag": "NEW",
        **changed,
    }


def hubspot_body(*events: dict[str, Any]) -> bytes:
    return json.dumps(events, ensure_ascii=False).encode()


# GitLab


def gitlab(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    key = base64.b64decode(secret.removeprefix(b"whsec_"))
    message = f"{delivery_id}.{_unix(now)}.".encode() + body
    return {
        **_gitlab_headers(delivery_id),
        "webhook-id": delivery_id,
        "webhook-timestamp": _unix(now),
        "webhook-signature": "v1," + _base64_hmac(key, message),
    }


def gitlab_token(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return {**_gitlab_headers(delivery_id), "x-gitlab-token": secret.decode()}


def _gitlab_headers(delivery_id: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "idempotency-key": delivery_id,
        "user-agent": "GitLab/18.6.0",
        "x-gitlab-event": "Push Hook",
        "x-gitlab-event-uuid": "13792a34-cac6-4fda-95a8-c58e00a3954e",
        "x-gitlab-instance": "https://gitlab.com",
        "x-gitlab-webhook-uuid": "02affd2d-2cba-4033-917d-ec22d5dc4b38",
    }


def gitlab_push(**members: Any) -> bytes:
    return _json(
        **{
            "object_kind": "push",
            "event_name": "push",
            "before": "95790bf891e76fee5e1747ab589903a6a1f80f22",
            "after": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
            "ref": "refs/heads/main",
            "user_name": "Jürgen",
            "project_id": 15,
            "project": {"id": 15, "path_with_namespace": "mike/diaspora"},
            "commits": [],
            **members,
        }
    )


# The sandbox, and whatever server a configuration describes: both sign as Standard Webhooks

SANDBOX_SETTINGS = {"base_url": "https://sandbox.example.com"}
GENERIC_SETTINGS = {
    "authorize_url": "https://auth.example.com/authorize",
    "token_url": "https://auth.example.com/token",
    "userinfo_url": "https://api.example.com/me",
    "account_pointer": "/data/owner",
}


def sandbox_event(**members: Any) -> bytes:
    return _json(
        **{
            "type": "note.created",
            "account": "user-1",
            "timestamp": "2026-11-23T11:59:59Z",
            "data": {"text": "Grüße"},
            **members,
        }
    )


def generic_event(**members: Any) -> bytes:
    return _json(**{"type": "order.paid", "timestamp": "2026-11-23T11:59:59Z", "data": {"owner": "u-7"}, **members})


def _whsec(seed: str) -> bytes:
    return b"whsec_" + base64.b64encode(hashlib.sha256(seed.encode()).digest())


_MICROSOFT = Signer(
    provider="microsoft",
    secrets=(b"client-state-of-today-4f1c", b"client-state-of-before-9d2e", b"client-state-of-another-77"),
    bodies=(
        microsoft_body(microsoft_change()),
        microsoft_body(microsoft_change(id="lsgTZMr9KwAAA"), microsoft_lifecycle("missed"), microsoft_change()),
    ),
    headers=microsoft,
    fresh=lambda delivery_id: microsoft_body(microsoft_change(id=delivery_id)),
    sealed=microsoft_sealed,
    covers_body=False,
    signs_time=False,
)

SIGNERS: dict[str, Signer] = {
    "google": Signer(
        provider="google",
        secrets=(b"rsa-key-of-google-new", b"rsa-key-of-google-old", b"rsa-key-of-google-other"),
        bodies=(google_message("2070443601311540"), google_message("2070443601311541", b"\xff", attributes={"a": "b"})),
        headers=google_push,
        fresh=google_message,
        covers_body=False,
        settings=GOOGLE_SETTINGS,
        keys=GOOGLE_PUBLISHED,
    ),
    "google/channel": Signer(
        provider="google",
        secrets=(b"channel-token-of-today-1a2b", b"channel-token-of-before-3c4d", b"channel-token-of-another-5e6f"),
        bodies=(b'{"kind":"drive#changes"}', b""),
        headers=google_channel,
        endpoint=True,
        covers_body=False,
        signs_time=False,
    ),
    "microsoft": _MICROSOFT,
    "microsoft/endpoint": replace(_MICROSOFT, endpoint=True),
    "hubspot": Signer(
        provider="hubspot",
        secrets=(
            b"yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy",
            b"oooooooo-oooo-oooo-oooo-oooooooooooo",
            b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
        ),
        bodies=(
            hubspot_body(hubspot_event()),
            hubspot_body(
                hubspot_event(),
                hubspot_event(eventId=101, portalId=62516, subscriptionType="company.propertyChange", propertyName="ö"),
                hubspot_event(eventId=100, portalId=62517),
            ),
        ),
        headers=hubspot,
        fresh=lambda delivery_id: hubspot_body(hubspot_event(eventId=_number(delivery_id))),
        ignored_headers=frozenset({"x-hubspot-signature", "x-hubspot-signature-version"}),
    ),
    "gitlab": Signer(
        provider="gitlab",
        secrets=(_whsec("new"), _whsec("old"), _whsec("other")),
        bodies=(gitlab_push(), gitlab_push(object_kind="merge_request", group_id=7)),
        headers=gitlab,
    ),
    "gitlab/token": Signer(
        provider="gitlab",
        secrets=(b"plain-token-of-today", b"plain-token-of-before", b"plain-token-of-another"),
        bodies=(gitlab_push(),),
        headers=gitlab_token,
        covers_body=False,
        signs_time=False,
    ),
    "sandbox": Signer(
        provider="sandbox",
        secrets=(_whsec("sandbox-new"), _whsec("sandbox-old"), _whsec("sandbox-other")),
        bodies=(sandbox_event(), sandbox_event(type="grant.revoked", data={})),
        headers=standard,
        settings=SANDBOX_SETTINGS,
    ),
    "generic-oauth2": Signer(
        provider="generic-oauth2",
        secrets=(_whsec("generic-new"), _whsec("generic-old"), _whsec("generic-other")),
        bodies=(generic_event(),),
        headers=standard,
        settings=GENERIC_SETTINGS,
    ),
}
