"""What verifiers share: strict headers, comparing in constant time, lists of secrets, the clock's window.

Nothing here raises anything but `errors.Refused`, whatever text a header holds. The order that verifiers keep:
parse, compare, and judge the time last, so that "stale" is only ever said of a delivery that was truly signed.

Signatures are compared in their encoded form. Decoding first would let other texts pass for the same signature
(upper-case hex, the unused last bits of base64), and then a changed header is no longer a refused one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from providers.contract import Delivery
from providers.errors import NotConfigured, SignatureMismatch, SignatureMissing, TimestampOutOfRange

# A signature header with several signatures in it is a few hundred bytes; OIDC tokens go to about 2 KB.
MAX_HEADER = 8192
# Trying is cheap, but not free on a 25 MiB body: signatures in one header beyond this are not looked at.
MAX_SIGNATURES = 16

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"0|[1-9][0-9]{0,14}")  # one way to write a number: no sign, no zeros, no other script's digits
_LATEST = {"s": 99_999_999_999, "ms": 99_999_999_999_999}  # the year 5138: far out, and datetime can hold it


def header(delivery: Delivery, name: str) -> str:
    """The value of header `name` (lower case).    Raises: SignatureMissing (absent or empty), SignatureMismatch."""
    value = delivery.headers.get(name, "")
    if not value:
        raise SignatureMissing(name)
    if len(value) > MAX_HEADER:
        raise SignatureMismatch(f"{name} is too long")
    return value


def raw(text: str) -> bytes:
    """The bytes of a header value as they came.    Raises: SignatureMismatch, they cannot have come so."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise SignatureMismatch("not a header value") from None


def equal(one: bytes, other: bytes) -> bool:
    """Compare in constant time. Bytes, because `compare_digest` raises on text beyond ASCII."""
    return hmac.compare_digest(one, other)


def matching(secrets: Sequence[bytes], due: Callable[[bytes], bytes], sent: Iterable[bytes]) -> int:
    """The index of the first secret (newest first) for which `due(secret)` is among `sent`.

    Empty secrets never match: anyone can sign with them.    Raises: NotConfigured, SignatureMismatch.
    """
    candidates = list(sent)[:MAX_SIGNATURES]
    for index, secret in enumerate(secrets):
        if not secret:
            continue
        expected = due(secret)
        found = 0
        for candidate in candidates:  # each is compared, found or not
            found |= hmac.compare_digest(expected, candidate)
        if found:
            return index
    if not any(secrets):
        raise NotConfigured("no secret")
    raise SignatureMismatch


def hmac_hex(secret: bytes, *parts: bytes, algorithm: str = "sha256") -> bytes:
    """HMAC of the joined `parts`, as lower-case hex."""
    return _hmac(secret, parts, algorithm).hex().encode()


def hmac_base64(secret: bytes, *parts: bytes, algorithm: str = "sha256") -> bytes:
    """HMAC of the joined `parts`, as standard base64 with padding."""
    return base64.b64encode(_hmac(secret, parts, algorithm))


def _hmac(secret: bytes, parts: Sequence[bytes], algorithm: str) -> bytes:
    if len(parts) == 1:
        return hmac.digest(secret, parts[0], algorithm)  # in one call of C
    mac = hmac.new(secret, digestmod=algorithm)
    for part in parts:  # by parts: a body of 25 MiB is not copied to put a timestamp before it
        mac.update(part)
    return mac.digest()


def unbase64(text: str | bytes) -> bytes | None:
    """`text` decoded, or None unless it is exactly the standard base64 of something, padding included."""
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
        decoded = base64.b64decode(data, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded) == data else None


def signed_time(text: str, unit: Literal["s", "ms"] = "s") -> datetime:
    """A timestamp header, in seconds or milliseconds since 1970.    Raises: SignatureMismatch, it is no such number."""
    if not _DIGITS.fullmatch(text) or int(text) > _LATEST[unit]:
        raise SignatureMismatch("timestamp is not a number")
    return _EPOCH + (timedelta(seconds=int(text)) if unit == "s" else timedelta(milliseconds=int(text)))


def within(signed_at: datetime, now: datetime, tolerance_s: float) -> None:
    """The absolute difference counts: a time from the future would be a signature that lives longer.

    Raises: TimestampOutOfRange, with the skew.
    """
    skew_s = (now - signed_at).total_seconds()
    if abs(skew_s) > tolerance_s:
        raise TimestampOutOfRange(f"{skew_s:+.0f} s", skew_s=skew_s)


def text_secret_complaint(secret: bytes, *, shortest: int = 16) -> str | None:
    """What is wrong with a secret that is used as the text it is; None if nothing is seen."""
    if not secret:
        return "is empty"
    if secret != secret.strip():
        return "has white space around it (a newline at the end of the file?)"
    if not all(0x20 <= byte < 0x7F for byte in secret):
        return "holds bytes that are not printable ASCII"
    if len(secret) < shortest:
        return f"is shorter than {shortest} characters"
    return None
