"""Signers of security event tokens: Google's (RISC), and any transmitter's (SSF, CAEP). `tests.signing` says what a signer is.

Written against RFC 8417, RFC 8935 and Google's documentation with joserfc, not with the code under test. As in
`signers_b`, the "secrets" are names of keys, of which the last is not published and says that it is the newest.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from tests.signers_b import GENERIC_SETTINGS, GOOGLE_KEYS, GOOGLE_PUBLISHED
from tests.signing import Signer

RISC, OAUTH, CAEP = (f"https://schemas.openid.net/secevent/{of}/event-type/" for of in ("risc", "oauth", "caep"))
GOOGLE_CLIENT = "123456789-abcedfgh.apps.googleusercontent.com"
GOOGLE_SUB = "110169484474386276334"
TRANSMITTER = "https://signals.example.com"
AUDIENCE = "https://hooks.example.com/hooks/ssf"
PREFIX = "1//0gLu3k9_sEcRe"  # the first 16 characters of a refresh token
LONG_AGO = 1508184845  # what happened stays true

_RSA = (b"rsa-key-of-google-new", b"rsa-key-of-google-old", b"rsa-key-of-google-other")
_EC = {b"ec-key-new": 0x5EC1, b"ec-key-old": 0x5EC2, b"ec-key-other": 0x5EC3}


@cache
def key_of(secret: bytes) -> tuple[str, str, RSAKey | ECKey]:
    """Algorithm, `kid` and key of that name."""
    name = secret.decode()
    if secret in _EC:
        private = ec.derive_private_key(_EC[secret], ec.SECP256R1())
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return "ES256", name.replace("other", "new"), ECKey.import_key(pem)
    kid = GOOGLE_KEYS[name.replace("other", "new")]["kid"]
    return "RS256", kid, RSAKey.import_key(GOOGLE_KEYS[name]["private"])


def jwks(*secrets: bytes) -> dict[str, dict[str, Any]]:
    """These keys by key id, as a transmitter publishes them."""
    found = {}
    for secret in secrets:
        algorithm, kid, key = key_of(secret)
        found[kid] = {**key.as_dict(private=False), "kid": kid, "alg": algorithm, "use": "sig"}
    return found


PUBLISHED = jwks(*_RSA[:2], b"ec-key-new", b"ec-key-old")


def _sealed(body: bytes, secret: bytes, now: datetime) -> bytes:
    return sealed(body, secret)


def sealed(body: bytes, secret: bytes, **header: Any) -> bytes:
    """The token that says `body`; `header` is put over its own."""
    algorithm, kid, key = key_of(secret)
    head = {"alg": algorithm, "kid": kid, "typ": "secevent+jwt", **header}
    return jws.serialize_compact(head, body, key, algorithms=[str(head["alg"])]).encode()


def told(body: bytes) -> bytes:
    """What a token says."""
    part = body.split(b".")[1]
    return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def pushed(body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]:
    return {"content-type": "application/secevent+jwt", "accept": "application/json", "user-agent": "SET-Sender/1"}


def person(issuer: str, sub: str) -> dict[str, Any]:
    """A subject as Google and older drafts write it."""
    return {"subject_type": "iss-sub", "iss": issuer, "sub": sub}


def by_token(token: str = PREFIX, how: str = "prefix") -> dict[str, Any]:
    """The subject of token-revoked."""
    return {
        "subject_type": "oauth_token", "token_type": "refresh_token", "token_identifier_alg": how, "token": token,
    }  # fmt: skip


def claims(events: dict[str, Any], **changed: Any) -> bytes:
    """What a SET says; a claim that is changed to None is left out."""
    said = {"iat": LONG_AGO, "jti": "756E69717565206964656E746966696572", "events": events, **changed}
    return json.dumps({name: value for name, value in said.items() if value is not None}, ensure_ascii=False).encode()


def google_event(delivery_id: str = "756E69717565", uri: str = OAUTH + "tokens-revoked", **said: Any) -> bytes:
    """An event of Google's, of a person if it does not say of what."""
    # https://developers.google.com/identity/protocols/risc shows the issuer with a slash at its end, and without
    about = {"subject": person("https://accounts.google.com/", GOOGLE_SUB), **said}
    return claims({uri: about}, iss="https://accounts.google.com/", aud=GOOGLE_CLIENT, jti=delivery_id)


def ssf_event(
    delivery_id: str = "4d3559ec67504aaba65d40b0363faad8", uri: str = CAEP + "session-revoked", **said: Any
) -> bytes:
    """An event of a transmitter's as SSF 1.0 has it: the subject stands beside `events`."""
    subject = {"format": "iss_sub", "iss": TRANSMITTER, "sub": "zoë-7"}
    about = {"event_timestamp": LONG_AGO - 5, **said}
    return claims({uri: about}, iss=TRANSMITTER, aud=[AUDIENCE], jti=delivery_id, sub_id=subject, txn="8675309")


SIGNERS: dict[str, Signer] = {
    "google/secevent": Signer(
        provider="google",
        secrets=_RSA,
        bodies=(
            google_event(),
            google_event("1", OAUTH + "token-revoked", subject=by_token()),
            google_event("2", RISC + "verification", subject=None, state="some-state"),
        ),
        headers=pushed,
        fresh=google_event,
        sealed=_sealed,
        told=told,
        signs_time=False,
        client_id=GOOGLE_CLIENT,
        keys=GOOGLE_PUBLISHED,
        ack_status=202,
        refused_status=400,
    ),
    "ssf": Signer(
        provider="ssf",
        secrets=(b"ec-key-new", b"ec-key-old", b"ec-key-other"),
        bodies=(ssf_event(), ssf_event("1", CAEP + "credential-change", subject={"format": "email", "email": "Z@Example.com"})),
        headers=pushed,
        fresh=ssf_event,
        sealed=_sealed,
        told=told,
        signs_time=False,
        settings={
            "issuer": TRANSMITTER,
            "keys_url": TRANSMITTER + "/jwks.json",
            "audiences": [AUDIENCE],
            "algorithms": ["ES256"],
        },
        keys=PUBLISHED,
    ),
    "generic-oauth2/secevent": Signer(
        provider="generic-oauth2",
        secrets=_RSA,
        bodies=(ssf_event(), ssf_event("1", OAUTH + "token-revoked", subject=by_token())),
        headers=pushed,
        fresh=ssf_event,
        sealed=_sealed,
        told=told,
        signs_time=False,
        settings={
            **GENERIC_SETTINGS,
            "ssf_issuer": TRANSMITTER,
            "ssf_keys_url": TRANSMITTER + "/jwks.json",
            "ssf_audiences": [AUDIENCE],
        },
        keys=PUBLISHED,
        ack_status=202,
        refused_status=400,
    ),
}  # fmt: skip
