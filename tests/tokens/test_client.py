"""Platform code reads tokens through `gateway.client`."""

from __future__ import annotations

import pytest

from gateway import ids
from gateway.client import Client, NotFound, NotIssued, Unavailable
from tests.tokens.conftest import Account


async def test_a_token_for_platform_code(account: Account) -> None:
    """What it holds; what its repr hides; what came of a report; errors that say what to do."""
    town, connection = account.town, ids.show(ids.CONNECTION, account.id)
    async with Client(town.api.url, town.api.admin) as posthouse:
        token = await posthouse.token(connection)
        assert token.access_token == await town.token(await account.grant())
        assert token.authorization == f"Bearer {token.access_token}"
        assert token.access_token not in repr(token)
        assert (token.connection, token.access_profile, token.token_version) == (connection, "reader", 1)
        assert token.scopes == ("contacts.read", "messages.read", "profile")
        assert token.expires_at is not None
        assert token.refresh_after is not None
        assert token.refresh_after < token.expires_at
        assert await posthouse.token(connection, "reader", min_ttl_s=0) == token
        assert await posthouse.report_rejected(token, 401) == "works"
        with pytest.raises(NotFound):
            await posthouse.token("conn_" + "0" * 32)
        await town.pass_s(3600)
        town.provider.misbehave("refresh_token", "invalid_grant")
        with pytest.raises(Unavailable) as away:  # at once: it would be longer than its patience
            await posthouse.token(connection)
        assert (away.value.code, (away.value.retry_after_s or 0) > 60) == ("checking", True)
        await account.move("reauth_required", "scopes_lost")
        with pytest.raises(NotIssued) as refused:
            await posthouse.token(connection)
        assert (refused.value.code, refused.value.do, refused.value.state) == (
            "reauth_required",
            "reconnect",
            "reauth_required",
        )
