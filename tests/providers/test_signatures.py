"""The shared verifying room: comparing, rotating, reading times, and never raising on odd text."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from providers.contract import Delivery
from providers.errors import NotConfigured, Refused, SignatureMismatch, SignatureMissing, TimestampOutOfRange
from providers.signatures import (
    MAX_HEADER,
    MAX_SIGNATURES,
    header,
    hmac_hex,
    matching,
    raw,
    signed_time,
    text_secret_complaint,
    unbase64,
    within,
)
from tests.providers.properties import PROPERTY, header_values
from tests.signing import NOW


def delivery(**headers: str) -> Delivery:
    """A request that has only headers."""
    return Delivery("POST", "https://h.example/x", "/x", "", headers, b"")


def test_an_absent_or_empty_header_is_missing() -> None:
    """An empty authenticator proves as much as none."""
    for headers in ({}, {"sig": ""}):
        with pytest.raises(SignatureMissing):
            header(delivery(**headers), "sig")


def test_a_huge_header_is_a_mismatch() -> None:
    """Longer than any signature: not looked at."""
    assert header(delivery(sig="x" * MAX_HEADER), "sig")
    with pytest.raises(SignatureMismatch):
        header(delivery(sig="x" * (MAX_HEADER + 1)), "sig")


def test_a_header_is_the_bytes_it_came_as() -> None:
    """latin-1 both ways; text that no header can hold is a mismatch, not an encoding error."""
    assert raw("é\xff") == b"\xe9\xff"
    for text in ("\u0100", "\ud83d", "漢"):
        with pytest.raises(SignatureMismatch):
            raw(text)


def due(secret: bytes) -> bytes:
    """The signature of a fixed message."""
    return hmac_hex(secret, b"mess", b"age")


def test_the_first_secret_that_matches_is_named() -> None:
    """Newest first, so the index tells when an old secret is no longer used."""
    assert matching([b"new", b"old"], due, [due(b"new")]) == 0
    assert matching([b"new", b"old"], due, [due(b"old")]) == 1
    assert matching([b"new", b"old"], due, [due(b"old"), due(b"new")]) == 0
    assert matching([b"", b"old"], due, [b"junk", due(b"old")]) == 1


def test_an_empty_secret_never_matches() -> None:
    """Anyone can sign with it."""
    for secrets in ([], [b""]):
        with pytest.raises(NotConfigured):
            matching(secrets, due, [due(b"")])
    with pytest.raises(SignatureMismatch):
        matching([b"good", b""], due, [due(b"")])


def test_only_so_many_signatures_are_tried() -> None:
    """A header of a thousand signatures does not buy a thousand comparisons."""
    junk = [b"0" * 64] * MAX_SIGNATURES
    with pytest.raises(SignatureMismatch):
        matching([b"s"], due, [*junk, due(b"s")])
    assert matching([b"s"], due, [*junk[1:], due(b"s")]) == 0


def test_parts_are_signed_as_one_message() -> None:
    """Splitting is only to save a copy."""
    assert hmac_hex(b"k", b"a", b"", b"bc") == hmac_hex(b"k", b"abc")


@PROPERTY
@given(st.binary(max_size=40))
def test_base64_has_one_spelling(data: bytes) -> None:
    """What encodes to it is accepted; what merely decodes to the same bytes is not."""
    encoded = base64.b64encode(data)
    assert unbase64(encoded) == data
    assert unbase64(encoded.decode()) == data
    assert unbase64(encoded + b"\n") is None
    assert unbase64(encoded + b"=") is None
    assert unbase64(b" " + encoded) is None


def test_unused_bits_of_base64_are_looked_at() -> None:
    """`QQ==` and `QR==` both decode to one byte; only the first is its encoding."""
    assert unbase64("QQ==") == b"A"
    assert unbase64("QR==") is None
    assert unbase64("QQ") is None
    assert unbase64("_-8=") is None
    assert unbase64("é") is None


def test_times_are_plain_digits() -> None:
    """Seconds or milliseconds; everything that only int() or float() understands is refused."""
    assert signed_time("1531420618") == datetime(2018, 7, 12, 18, 36, 58, tzinfo=UTC)
    assert signed_time("1531420618500", "ms") == datetime(2018, 7, 12, 18, 36, 58, 500_000, tzinfo=UTC)
    assert signed_time("0") == datetime(1970, 1, 1, tzinfo=UTC)
    odd = ["", "-1", "+1", " 1", "1 ", "1\n", "01", "1_0", "1e3", "1.0", "0x1", "²", "١", "9" * 12, "9" * 5000]
    for text in odd:
        with pytest.raises(SignatureMismatch):
            signed_time(text)


@PROPERTY
@given(header_values)
@example("99999999999")
@example("99999999999999")
def test_reading_a_time_raises_nothing_else(text: str) -> None:
    """Any header text is a time or a refusal, in both units."""
    for unit in ("s", "ms"):
        try:
            assert signed_time(text, unit).tzinfo is UTC
        except Refused:
            pass


@pytest.mark.parametrize("sign", [1, -1])
def test_the_window_is_absolute(sign: int) -> None:
    """The future is as wrong as the past, and the refusal names the skew."""
    within(NOW - timedelta(seconds=300 * sign), NOW, 300)
    with pytest.raises(TimestampOutOfRange) as refused:
        within(NOW - timedelta(seconds=300.5 * sign), NOW, 300)
    assert refused.value.skew_s == 300.5 * sign


def test_secrets_that_cannot_be_right_are_named() -> None:
    """The usual accident is the newline that an editor or `echo` put behind it."""
    assert text_secret_complaint(b"It's a Secret to Everybody") is None
    for secret in (
        b"",
        b"0123456789abcdef\n",
        b" 0123456789abcdef",
        b"short",
        b"0123456789abcdef\xff",
        b"0123456789\t123456",
    ):
        assert text_secret_complaint(secret)
