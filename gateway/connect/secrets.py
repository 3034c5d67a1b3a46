"""The secrets of a connect session. Each is 32 random bytes, given out once; what is kept of it is a keyed hash.

| which   | who holds it                          | what it proves                                              |
|---------|---------------------------------------|-------------------------------------------------------------|
| link    | whoever was sent the link             | that the platform asked for this                            |
| browser | a cookie                              | that the consent comes back to the browser that began it    |
| state   | the provider, for a moment            | that an answer belongs to this step of this session         |
| code    | the browser, on its way to the platform | that whoever completes the session saw the consent's end  |

The PKCE verifier and the nonce must be read again, so they are sealed instead (RFC 7636, OpenID Connect Core 3.1.2.1).
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import orjson

from gateway.clock import random_bytes
from gateway.vault.cipher import Aad
from gateway.vault.keyring import Keyring

Kind = Literal["link", "browser", "state", "code"]
SHAPE = re.compile(r"[A-Za-z0-9_-]{43}")


def fresh() -> str:
    """32 random bytes, in 43 characters that a URL and a cookie hold as they are."""
    return _text(random_bytes(32))


def is_one(text: str) -> bool:
    """Whether `text` could be one of ours: nothing else is looked up."""
    return SHAPE.fullmatch(text) is not None


def hashed(keyring: Keyring, kind: Kind, token: str) -> bytes:
    """What is stored of it. Kinds do not match each other: a state is no code."""
    return keyring.mac(f"connect.{kind}", token.encode())


@dataclass(frozen=True, slots=True)
class Proof:
    """What proves, when the consent comes back, that code and id token were made for this very request."""

    verifier: str = field(repr=False)
    nonce: str = field(repr=False)

    @classmethod
    def fresh(cls) -> Proof:
        return cls(fresh(), fresh())

    @property
    def challenge(self) -> str:
        """RFC 7636 section 4.2, S256."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())

    def sealed(self, keyring: Keyring, region: str, session: UUID) -> bytes:
        return keyring.seal(orjson.dumps([self.verifier, self.nonce]), _aad(region, session))

    @classmethod
    def opened(cls, keyring: Keyring, region: str, session: UUID, sealed: bytes) -> Proof:
        """Raises: SealBroken."""
        return cls(*orjson.loads(keyring.open(sealed, _aad(region, session))))


def _aad(region: str, session: UUID) -> Aad:
    return Aad(place=region, owner=session, purpose="connect_proof")


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
