"""Sealing: AES-256-GCM, bound to the place where the ciphertext lies.

A sealed blob is `format (1 byte) | key version (4) | nonce (12) | ciphertext | tag (16)`. What it is bound to
(`Aad`) and its own first five bytes are authenticated with it: a blob that was moved to another row, truncated or
changed in any bit does not open. Nonces are random; NIST SP 800-38D section 8.3 allows 2^32 seals under one key,
which no keyring of ours comes near (a secret or a token each), and rotation starts anew.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.clock import random_bytes

KEY_BYTES = 32
FORMAT = 1
HEADER = struct.Struct(">BI")  # format, key version
NONCE_BYTES = 12
TAG_BYTES = 16
NONCE = slice(HEADER.size, HEADER.size + NONCE_BYTES)


class SealBroken(Exception):
    """The blob does not open here: moved, changed, cut short, or sealed under a key that this keyring lacks."""


class Aad(NamedTuple):
    """What a sealed blob is bound to. Two that differ in any field never open each other's blobs.

    Given by name always; a tuple, because every read of a token makes one.
    """

    place: str  # "control" or a region's name
    owner: str | UUID  # whose it is: an integration, a tenant, a caller …
    purpose: str  # what it is for, e.g. "signing_secrets"
    row: str | UUID = ""  # which one of the owner's
    more: tuple[str, ...] = ()  # e.g. generation and token version

    def encoded(self) -> bytes:
        """One byte string for each `Aad`: the number of parts, then each part behind its length."""
        parts = [self.place, str(self.owner), self.purpose, str(self.row), *self.more]
        try:  # short ASCII, as nearly always: one string of it all, encoded once, costs half of what the loop below does
            text = "".join([_SHORT[len(parts)], *[_SHORT[len(part)] + part for part in parts]])
            if text.isascii():
                return text.encode()
        except IndexError:
            pass
        pieces = [len(parts).to_bytes(4, "big")]
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")  # any str has an encoding, and only its own
            pieces += (len(data).to_bytes(4, "big"), data)
        return b"".join(pieces)


_SHORT = [length.to_bytes(4, "big").decode() for length in range(128)]


def seal(key: AESGCM, version: int, plaintext: bytes, aad: Aad) -> bytes:
    """`plaintext` under `key`, which is known to its keyring as `version`."""
    header = HEADER.pack(FORMAT, version)
    nonce = random_bytes(NONCE_BYTES)
    return header + nonce + key.encrypt(nonce, plaintext, header + aad.encoded())


def open_sealed(keys: Mapping[int, AESGCM], sealed: bytes, aad: Aad) -> bytes:
    """The plaintext of a blob that `seal` made under one of `keys` with an equal `aad`.    Raises: SealBroken."""
    if len(sealed) < HEADER.size + NONCE_BYTES + TAG_BYTES:
        raise SealBroken("the sealed value is cut short")
    form, version = HEADER.unpack_from(sealed)
    if form != FORMAT:
        raise SealBroken("the sealed value has an unknown format")
    key = keys.get(version)
    if key is None:
        raise SealBroken(f"the keyring has no key version {version}")
    try:
        return key.decrypt(sealed[NONCE], sealed[NONCE.stop :], sealed[: HEADER.size] + aad.encoded())
    except InvalidTag:
        raise SealBroken("the sealed value was changed, or was not sealed for this place") from None


def head(version: int) -> bytes:
    """The bytes with which every blob under this key version begins: how SQL finds them."""
    return HEADER.pack(FORMAT, version)


def version_of(sealed: bytes) -> int | None:
    """Under which key version a blob was sealed, as it claims; None where it is no blob. For rotation's progress."""
    if len(sealed) < HEADER.size or sealed[0] != FORMAT:
        return None
    return int(HEADER.unpack_from(sealed)[1])
