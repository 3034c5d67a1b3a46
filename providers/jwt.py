"""JSON Web Tokens as providers use them (RFC 7515, RFC 7519, OpenID Connect Core): RS256, and ES256 for whoever asks for it.

The algorithm is what the caller has pinned, never what the token wishes, and a key is of one kind: so nobody can have a
public key taken for a secret. google-auth checks signatures, cryptography reads keys. Its `jwt.decode` is not used: it asks its own clock, takes several algorithms, and its
lenient base64 lets different texts pass for one signature.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import orjson
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, RSAPublicNumbers
from google.auth import crypt
from google.auth.crypt.es256 import ES256Verifier

from providers.errors import Malformed, Misconfigured, OddAnswer, SignatureMismatch, TimestampOutOfRange, UnknownKey
from providers.oauth import App
from providers.reading import document, text

Algorithm = Literal["RS256", "ES256"]
RS256: tuple[Algorithm, ...] = ("RS256",)

RSA_BITS = range(2048, 8193)  # RFC 7518 section 3.3 wants 2048 at least; larger ones are made to keep us busy
SKEW_S = 60  # how far our clock and the issuer's may differ at both ends of a token's life


def verified(token: str, keys: Mapping[str, Any], algorithms: Collection[Algorithm] = RS256) -> dict[str, Any]:
    """What `token` says, its signature checked by the key of its `kid` (a PEM certificate or a JWK); times are not.

    Raises: SignatureMismatch, UnknownKey.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise SignatureMismatch("not a JWT")
    head, claims, signature = _segment(parts[0]), _segment(parts[1]), _unbase64url(parts[2])
    # "none" has no signature, and HS256 would take the public key for a secret. `crit` names extensions that a verifier
    # must know; we know none.
    algorithm = head.get("alg")
    if algorithm not in ("RS256", "ES256") or algorithm not in algorithms or "crit" in head:
        raise SignatureMismatch("alg")
    kid = text(head.get("kid"))
    if not kid:
        raise SignatureMismatch("kid")
    verifier = _verifier(algorithm, keys.get(kid))
    if not verifier.verify(f"{parts[0]}.{parts[1]}".encode(), signature):
        raise SignatureMismatch
    return claims


def payload(token: str) -> bytes:
    """The bytes of what `token` says, nothing checked.    Raises: SignatureMismatch, it is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        raise SignatureMismatch("not a JWT")
    return _unbase64url(parts[1])


def claims_of(token: str) -> dict[str, Any]:
    """What `token` says, nothing checked: only of one that came straight from its issuer over TLS.

    Raises: SignatureMismatch, it is no JWT.
    """
    try:
        return document(payload(token))
    except Malformed:
        raise SignatureMismatch("not a JWT") from None


def judge_time(claims: Mapping[str, Any], now: datetime) -> None:
    """Between `iat` and `exp`, give or take `SKEW_S`, by `now` and no other clock.

    Raises: TimestampOutOfRange, SignatureMismatch (no such times).
    """
    issued, expires, moment = _time(claims.get("iat")), _time(claims.get("exp")), now.timestamp()
    if not issued - SKEW_S <= moment <= expires + SKEW_S:
        raise TimestampOutOfRange("iat, exp", skew_s=moment - issued)


def check_id_token(claims: Mapping[str, Any], app: App, issuers: Collection[str]) -> None:
    """An id token's claims are by one of `issuers`, for this client and this consent, and not over.

    Time is judged where `app.now` is given, the nonce where `app.nonce` is.
    Raises: OddAnswer.    Source: OpenID Connect Core section 3.1.3.7, steps 2 to 5 and 9 to 11.
    """
    if text(claims.get("iss")) not in issuers:
        raise OddAnswer("id_token_issuer")
    audience = claims.get("aud")
    if audience != app.client_id and audience != [app.client_id]:  # others in it: we trust none of them
        raise OddAnswer("id_token_audience")
    if app.nonce is not None and claims.get("nonce") != app.nonce:
        raise OddAnswer("id_token_nonce")
    try:
        if app.now is not None:
            judge_time(claims, app.now)
    except (TimestampOutOfRange, SignatureMismatch):
        raise OddAnswer("id_token_time") from None


def signed(claims: Mapping[str, Any], private_key: str, kid: str | None = None) -> str:
    """A JWT with these claims by the RSA key in PEM, which it names `kid`.    Raises: Misconfigured, it is none."""
    try:
        key = serialization.load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        raise Misconfigured("private_key_invalid") from None
    if not isinstance(key, RSAPrivateKey):
        raise Misconfigured("private_key_invalid")
    head = {"alg": "RS256", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    said = ".".join(_base64url(orjson.dumps(part)) for part in (head, dict(claims)))
    return f"{said}.{_base64url(key.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _verifier(algorithm: Algorithm, key: Any) -> Any:
    """What checks signatures by `key` as published.    Raises: UnknownKey, there is none or it is not for that."""
    if isinstance(key, str):
        if algorithm != "RS256":
            raise UnknownKey("the published key is not for that algorithm")
        return _by_certificate(key)
    if not isinstance(key, Mapping):
        raise UnknownKey("kid")
    # RFC 7517 sections 4.2 to 4.4: what a key is not for, it does not prove.
    operations = key.get("key_ops", ["verify"])
    if (
        key.get("alg", algorithm) != algorithm
        or key.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
    ):
        raise UnknownKey("the published key is not for that algorithm")
    if algorithm == "RS256" and key.get("kty") == "RSA":
        return _by_numbers(text(key.get("n")), text(key.get("e")))
    if algorithm == "ES256" and key.get("kty") == "EC" and key.get("crv") == "P-256":
        return _by_point(text(key.get("x")), text(key.get("y")))
    raise UnknownKey("the published key is not for that algorithm")


@lru_cache(maxsize=16)  # Google publishes two or three; reading a certificate costs as much as checking a signature
def _by_certificate(pem: str) -> crypt.RSAVerifier:
    try:
        key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    except ValueError:
        raise UnknownKey("the published key is no PEM certificate") from None
    if not isinstance(key, RSAPublicKey):
        raise UnknownKey("the published key is not RSA")
    return crypt.RSAVerifier(key)  # type: ignore[no-untyped-call]  # google-auth has no types here


@lru_cache(maxsize=64)  # of all transmitters that are configured
def _by_numbers(n: str, e: str) -> crypt.RSAVerifier:
    """RFC 7518 section 6.3.1."""
    modulus, exponent = _number(n), _number(e)
    if modulus.bit_length() not in RSA_BITS or exponent.bit_length() > 32:
        raise UnknownKey("the published key has an odd size")
    try:
        key = RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise UnknownKey("the published key is no RSA key") from None
    return crypt.RSAVerifier(key)  # type: ignore[no-untyped-call]  # google-auth has no types here


@lru_cache(maxsize=64)
def _by_point(x: str, y: str) -> ES256Verifier:
    """RFC 7518 section 6.2.1: both coordinates are 32 bytes long, zeros in front included."""
    if not len(x) == len(y) == 43:
        raise UnknownKey("the published key is no point of P-256")
    try:
        key = ec.EllipticCurvePublicNumbers(_number(x), _number(y), ec.SECP256R1()).public_key()
    except ValueError:
        raise UnknownKey("the published key is no point of P-256") from None
    return ES256Verifier(key)


def _number(coded: str) -> int:
    try:
        return int.from_bytes(_unbase64url(coded))
    except SignatureMismatch:
        raise UnknownKey("the published key is not base64url") from None


def _segment(segment: str) -> dict[str, Any]:
    try:
        return document(_unbase64url(segment))
    except Malformed:
        raise SignatureMismatch("not a JWT") from None


def _unbase64url(segment: str) -> bytes:
    """The bytes of which `segment` is the one unpadded base64url form.    Raises: SignatureMismatch."""
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise SignatureMismatch("not base64url") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode():
        raise SignatureMismatch("not base64url")
    return data


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _time(value: Any) -> int:
    """`value` as whole seconds since 1970.    Raises: SignatureMismatch."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 53:
        raise SignatureMismatch("iat, exp")
    return value
