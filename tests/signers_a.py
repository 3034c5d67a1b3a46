"""Signers of Slack, GitHub, Stripe and Standard Webhooks. `tests.signing` says what a signer is."""

from __future__ import annotations

from tests.signing import Signer

SIGNERS: dict[str, Signer] = {}
