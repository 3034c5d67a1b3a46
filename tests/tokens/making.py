"""Grants without a consent, for tests of other things."""

from __future__ import annotations

from uuid import UUID

from gateway.connections import grants
from gateway.connections.scopes import Ledger
from gateway.regions import Region
from gateway.vault.tokens import Place


async def granted(region: Region, connection: UUID, tenant: str, profile: str = "reader") -> None:
    """An active grant of this connection, with a token set that lives for a day."""
    sealed = await region.tokens.seal(
        Place(region.name, tenant, connection, profile, 1, 1), "an access token", "another"
    )
    new = grants.NewTokens(sealed=sealed, token_type="Bearer", expires_in_s=86400, refresh_expires_in_s=None)
    async with region.database.transaction() as tx:
        await grants.put(
            tx, connection, profile, state="active", reason=None, generation=1, token_version=1, reach_hash=None,
            ledger=Ledger(("read",), ("read",)), parameters={},
        )  # fmt: skip
        await grants.put_tokens(tx, connection, profile, tenant, 1, 1, new)
