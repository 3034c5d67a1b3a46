"""A town whose settings hold canaries too."""

from __future__ import annotations

from secrets import token_hex

import pytest
from pydantic import SecretStr

from gateway.settings import Settings
from tests.connect.conftest import bare_town, town
from tests.web.conftest import lines

__all__ = ["bare_town", "lines", "town"]  # fixtures


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As everybody's, with a password in the DSN (the server asks for none) and logins to a Vault that nobody uses."""
    assert settings.database_url is not None
    dsn = settings.database_url.get_secret_value()
    if "password" not in dsn and ":@" not in dsn:
        dsn += ("&" if "?" in dsn else "?") + f"password=dsn-password-{token_hex(8)}"
    return settings.model_copy(
        update={
            "database_url": SecretStr(dsn),
            "vault_token": SecretStr(f"vault-token-{token_hex(8)}"),
            "vault_secret_id": SecretStr(f"vault-secret-id-{token_hex(8)}"),
        }
    )
