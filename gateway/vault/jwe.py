"""Sealing to somebody else's public key: JWE (RFC 7516), ECDH-ES with X25519 (RFC 8037) and A256GCM, compact form.

Why JWE and not our own boxes: whoever leaves takes the file elsewhere, and every JOSE library of every language opens
it, without a line of ours. HPKE (RFC 9180) would do, but says nothing of how it lies in a file. One message a line, each
under an ephemeral key of its own: an export of any size is written and read line by line, in constant memory.

The recipient is 32 bytes in base64url: the `x` of an OKP JWK. The private key is that JWK with its `d`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

from gateway.clock import random_bytes
from gateway.errors import Invalid

ALGORITHM, ENCRYPTION, CURVE = "ECDH-ES", "A256GCM", "X25519"
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16


class NotForUs(Exception):
    """The message does not open: made for another key, changed, cut short, or of another kind."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom something is sealed to."""

    key: X25519PublicKey = field(repr=False)
    x: str  # base64url, as in its JWK
    thumbprint: str  # RFC 7638: `kid` of every message

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """From base64url of 32 bytes.    Raises: Invalid, it is no key that could keep a secret."""
        raw = _decoded(text)
        if raw is None or len(raw) != KEY_BYTES or _text(raw) != text:
            raise Invalid(
                "a recipient is 32 bytes in base64url, 43 characters, as `posthouse connections keygen` prints it"
            )
        key = X25519PublicKey.from_public_bytes(raw)
        try:
            X25519PrivateKey.generate().exchange(key)
        except ValueError:  # a point of low order: what is sealed to it opens for anybody
            raise Invalid("this recipient is no X25519 key") from None
        return cls(key, text, thumbprint(text))


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """What opens messages to its `recipient`. Its repr shows nothing of it."""

    recipient: Recipient
    key: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> PrivateKey:
        return cls.of(X25519PrivateKey.generate())

    @classmethod
    def of(cls, key: X25519PrivateKey) -> PrivateKey:
        return cls(Recipient.parse(_text(key.public_key().public_bytes_raw())), key)

    @classmethod
    def parse(cls, text: str) -> PrivateKey:
        """From a JWK.    Raises: Invalid; nothing of the text stands in the error."""
        try:
            jwk: Any = orjson.loads(text)
        except orjson.JSONDecodeError:
            jwk = None
        raw = _decoded(jwk.get("d")) if isinstance(jwk, dict) and jwk.get("crv") == CURVE else None
        if raw is None or len(raw) != KEY_BYTES:
            raise Invalid(
                "that is no private key: an OKP JWK of X25519 is wanted, as `posthouse connections keygen` makes it"
            )
        return cls.of(X25519PrivateKey.from_private_bytes(raw))

    def to_json(self) -> str:
        """The JWK. This *is* the secret: for writing to a file, never for a log."""
        jwk = {"kty": "OKP", "crv": CURVE, "x": self.recipient.x, "d": _text(self.key.private_bytes_raw())}
        return orjson.dumps(jwk).decode() + "\n"

    def open(self, message: str) -> bytes:
        """The plaintext of one message.    Raises: NotForUs."""
        parts = message.strip().split(".")
        raw = [_decoded(part) for part in parts]
        if len(parts) != 5 or any(part is None for part in raw) or parts[1]:
            raise NotForUs("it is no sealed line")
        head, _, nonce, ciphertext, tag = (part or b"" for part in raw)
        header = _header(head)
        if header.get("kid") != self.recipient.thumbprint:
            raise NotForUs("it was sealed to another key")
        ephemeral = _decoded(header["epk"].get("x"))
        try:
            shared = self.key.exchange(X25519PublicKey.from_public_bytes(ephemeral or b""))
            if len(nonce) != NONCE_BYTES or len(tag) != TAG_BYTES:
                raise ValueError
            return AESGCM(_derived(shared)).decrypt(nonce, ciphertext + tag, parts[0].encode())
        except (ValueError, InvalidTag):
            raise NotForUs("it was changed on its way") from None


def seal(recipient: Recipient, plaintext: bytes) -> str:
    """One message in compact form, 7-bit text without spaces."""
    ephemeral = X25519PrivateKey.generate()
    epk = {"kty": "OKP", "crv": CURVE, "x": _text(ephemeral.public_key().public_bytes_raw())}
    header = {"alg": ALGORITHM, "enc": ENCRYPTION, "kid": recipient.thumbprint, "epk": epk}
    head = _text(orjson.dumps(header))
    nonce = random_bytes(NONCE_BYTES)
    sealed = AESGCM(_derived(ephemeral.exchange(recipient.key))).encrypt(nonce, plaintext, head.encode())
    return ".".join((head, "", _text(nonce), _text(sealed[:-TAG_BYTES]), _text(sealed[-TAG_BYTES:])))


def thumbprint(x: str) -> str:
    """RFC 7638 and RFC 8037 section 2: SHA-256 over the required members in their order."""
    told = f'{{"crv":"{CURVE}","kty":"OKP","x":"{x}"}}'
    return _text(hashlib.sha256(told.encode()).digest())


def _derived(shared: bytes) -> bytes:
    """The content key: Concat KDF, RFC 7518 section 4.6.2, direct key agreement, no apu and no apv."""
    algorithm = ENCRYPTION.encode()
    info = struct.pack(">I", len(algorithm)) + algorithm + bytes(8) + struct.pack(">I", KEY_BYTES * 8)
    return ConcatKDFHash(hashes.SHA256(), KEY_BYTES, info).derive(shared)


def _header(head: bytes) -> dict[str, Any]:
    try:
        header = orjson.loads(head)
    except orjson.JSONDecodeError:
        header = None
    if (
        not isinstance(header, dict)
        or (header.get("alg"), header.get("enc")) != (ALGORITHM, ENCRYPTION)
        or not isinstance(header.get("epk"), dict)
        or "zip" in header
        or "crit" in header
    ):
        raise NotForUs("it is sealed in another way")
    return header


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: object) -> bytes | None:
    if not isinstance(text, str):
        return None
    try:
        sent = text.encode("ascii")
        return base64.b64decode(sent + b"=" * (-len(sent) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
