"""Which texts of a provider's may stand in our errors, metrics and tables: codes, and nothing that could be a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import is_plain


@pytest.mark.parametrize(
    "code",
    ["invalid_grant", "access_denied", "invalid_team_for_non_distributed_app", "slow_down", "bad_refresh_token",
     "preview_feature_not_available", "oauth2.invalid-client", "ratelimited"],
)  # fmt: skip
def test_codes_are_plain(code: str) -> None:
    """As providers' pages list them."""
    assert is_plain(code)


@pytest.mark.parametrize("text", ["", "Invalid", "a b", "_x", "x_", "x__y", "ü", "x\n", "word" * 6, "a_" * 40 + "b"])
def test_other_texts_are_not(text: str) -> None:
    """No sentence, nothing long, nothing that is no word."""
    assert not is_plain(text)


@given(st.binary(min_size=16, max_size=32))
def test_a_secret_in_hex_is_no_code(secret: bytes) -> None:
    """Client secrets and tokens of many providers are lower-case hex: a server that says them back is not quoted."""
    assert not is_plain(secret.hex())
