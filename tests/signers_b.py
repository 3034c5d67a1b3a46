"""Signers of Google, Microsoft Graph, HubSpot and GitLab. `tests.signers` says what a signer is."""

from __future__ import annotations

from tests.signing import Signer

SIGNERS: dict[str, Signer] = {}
