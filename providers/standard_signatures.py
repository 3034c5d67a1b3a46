"""Standard Webhooks 1.0.0 signatures: HMAC-SHA256 (`v1`) and Ed25519 (`v1a`) over `id.timestamp.body`.

Two providers sign so: `standard-webhooks` itself and GitLab's signing tokens.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from providers.contract import Delivery, Trust, Verified
from providers.errors import NotConfigured, SignatureMismatch
from providers.signatures import MAX_SIGNATURES, equal, header, hmac_base64, raw, signed_time, unbase64, within

# "some allowable tolerance": every SDK of the project takes five minutes, both ways.
TOLERANCE_S = 300
KEY_BYTES = range(24, 65)  # "between 24 bytes (192 bits) and 64 bytes (512 bits)"

# The spec forbids "." in the id, since the signed text would then say two things.
_ID = re.compile(r"[!-\-/-~]{1,256}")


@dataclass(frozen=True, slots=True)
class Key:
    """A configured secret, read: `version` of the signatures that it checks, and the key's bytes."""

    version: str
    key: bytes = field(repr=False)

    def signed(self, message: tuple[bytes, ...], signatures: Iterable[str]) -> bool:
        """Whether one of `signatures` (base64, of this key's version) is this key's for `message`."""
        if self.version == "v1":
            due = hmac_base64(self.key, *message)
            return any(equal(due, raw(signature)) for signature in signatures)
        public = Ed25519PublicKey.from_public_bytes(self.key)
        return any(_ed25519(public, unbase64(signature), message) for signature in signatures)


def parse_secret(secret: bytes) -> Key | str:
    """The key that a secret spells, or what is wrong with it, without quoting it."""
    if secret != secret.strip():
        return "has white space around it (a newline at the end of the file?)"
    prefix, _, encoded = secret.partition(b"_")
    if prefix == b"whsk":
        return "is a private signing key (whsk_): configure its public half (whpk_)"
    if prefix not in (b"whsec", b"whpk"):
        return "must start with whsec_ (HMAC) or whpk_ (Ed25519 public key)"
    key = unbase64(encoded + b"=" * (-len(encoded) % 4))  # some senders show it without its padding
    if key is None:
        return f"is not base64 after {prefix.decode()}_"
    if prefix == b"whpk":
        return Key("v1a", key) if len(key) == 32 else f"is an Ed25519 key of {len(key)} bytes, not 32"
    if len(key) not in KEY_BYTES:
        return f"is a key of {len(key)} bytes, not {KEY_BYTES.start} to {KEY_BYTES.stop - 1}"
    return Key("v1", key)


def complaint(secret: bytes) -> str | None:
    """What is wrong with a secret, for `check_secret`; None if it can be used."""
    parsed = parse_secret(secret)
    return parsed if isinstance(parsed, str) else None


def verify(
    delivery: Delivery, trust: Trust, now: datetime, *, prefix: str = "webhook", tolerance_s: int = TOLERANCE_S
) -> Verified:
    """Check the headers `{prefix}-id`, `-timestamp` and `-signature`: any signature, any secret.

    Raises: SignatureMissing, SignatureMismatch, TimestampOutOfRange, NotConfigured (no secret that can be read).
    """
    message_id = header(delivery, f"{prefix}-id")
    timestamp = header(delivery, f"{prefix}-timestamp")
    listed = header(delivery, f"{prefix}-signature").split(" ")[:MAX_SIGNATURES]
    if not _ID.fullmatch(message_id):
        raise SignatureMismatch("id is not of the allowed form")
    signed_at = signed_time(timestamp)
    message = (f"{message_id}.{timestamp}.".encode(), delivery.body)

    keys = [(index, parse_secret(secret)) for index, secret in enumerate(trust.secrets)]
    readable = [(index, key) for index, key in keys if isinstance(key, Key)]
    if not readable:
        raise NotConfigured("no secret")
    for index, key in readable:
        ours = [signature for version, _, signature in (s.partition(",") for s in listed) if version == key.version]
        if key.signed(message, ours):
            within(signed_at, now, tolerance_s)
            return Verified(scheme=key.version, secret=index, signed_at=signed_at)
    raise SignatureMismatch


def _ed25519(public: Ed25519PublicKey, signature: bytes | None, message: tuple[bytes, ...]) -> bool:
    if signature is None:
        return False
    try:
        public.verify(signature, b"".join(message))
    except InvalidSignature:
        return False
    return True
