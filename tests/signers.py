"""Every signer there is, by name: the provider's, with "/variant" behind it where a provider has several."""

from __future__ import annotations

from tests import signers_a, signers_b, signers_c, signers_d
from tests.signing import Signer

SIGNERS: dict[str, Signer] = {**signers_a.SIGNERS, **signers_b.SIGNERS, **signers_c.SIGNERS, **signers_d.SIGNERS}
