"""`{vault = "mount/path#field"}` in posthouse.toml, read from a real OpenBao by `apply`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.errors import SetupError
from gateway.integrations import declare
from gateway.vault import openbao as client
from gateway.vault.references import HOW, read
from tests import openbao
from tests.integrations.conftest import PROVIDERS
from tests.vault.test_keyring import assert_without

POLICY = """
path "kv/data/slack/*" { capabilities = ["read"] }
path "kv/data/odd name" { capabilities = ["read"] }
path "team/kv/data/*" { capabilities = ["read"] }
path "old/*" { capabilities = ["read"] }
path "transit/*" { capabilities = ["read"] }
"""
SECRET = "client-secret-in-vault"


@pytest.fixture
def tenancy(bao_server: openbao.Server) -> openbao.Tenancy:
    """Engines of both versions, one of them mounted two deep, with secrets in them."""
    made = bao_server.tenancy()
    made.ask("POST", "sys/mounts/team/kv", {"type": "kv", "options": {"version": "2"}})
    made.ask("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
    for path in ("kv/data/slack/app", "kv/data/hidden/app", "team/kv/data/app", "kv/data/odd%20name"):
        made.ask("POST", path, {"data": {"client_secret": SECRET, "empty": "", "number": 5, "ünï": "grüße"}})
    made.ask("POST", "old/app", {"client_secret": "of-version-1"})
    made.allow(POLICY)
    return made


CASES: list[tuple[str, bytes | str]] = [
    ("kv/slack/app#client_secret", SECRET.encode()),
    ("team/kv/app#client_secret", SECRET.encode()),
    ("old/app#client_secret", b"of-version-1"),
    ("kv/slack/app#ünï", "grüße".encode()),
    ("kv/slack/app#other", "names kv/slack/app in Vault, which has no such field (other)"),
    ("kv/slack/app#empty", "names kv/slack/app in Vault, whose field is not a text, or empty (empty)"),
    ("kv/slack/app#number", "names kv/slack/app in Vault, whose field is not a text, or empty (number)"),
    ("kv/slack/none#x", "names kv/slack/none in Vault, which is not there"),
    ("kv/hidden/app#client_secret", "names kv/hidden/app in Vault, which our policy does not let us read"),
    ("none/app#x", "names none/app in Vault, which our policy does not let us read"),
    ("transit/keys/posthouse#x", "names transit/keys/posthouse in Vault, which is not in a KV engine"),
    *((odd, HOW) for odd in ("", "#", "kv", "kv/slack/app", "kv/slack/app#", "#x", "kv/../sys/raw#x", "kv//app#x", "/kv/app#x", "a b#c", "a\nb#c", "a/b#c#d")),
]  # fmt: skip


async def test_every_reference_is_a_secret_or_one_clear_fault(tenancy: openbao.Tenancy) -> None:
    """Both versions of the engine, mounts of any depth, each field of a secret with one read."""
    async with client.connected(tenancy.settings(), SystemClock()) as bao:
        assert await read(bao, [reference for reference, _ in CASES]) == dict(CASES)


def test_a_file_with_references_is_read_whole_or_refused(tenancy: openbao.Tenancy, tmp_path: Path) -> None:
    """Asked once for all; every fault is in the one line, and no secret."""

    def vault(references: Sequence[str]) -> Any:
        async def ask() -> Any:
            async with client.connected(tenancy.settings(), SystemClock()) as bao:
                return await read(bao, references)

        return asyncio.run(ask())

    file = tmp_path / "posthouse.toml"
    text = '[integrations.x]\nprovider = "plain"\nsigning_secrets = [{vault = "%s"}, {vault = "old/app#client_secret"}]'
    file.write_text(text % "kv/slack/app#client_secret")
    (wanted,) = declare.read(file, providers=PROVIDERS, vault=vault)
    assert wanted.secrets["signing_secrets"] == (SECRET.encode(), b"of-version-1")
    faults = [
        (text % "kv/slack/none#x", vault, "signing_secrets.0 names kv/slack/none in Vault, which is not there"),
        (text % SECRET, vault, "signing_secrets.0 must be like {vault"),
        (text % "a/b#c", None, "no Vault is set up (POSTHOUSE_VAULT_ADDR)"),
        (text % "a/b#c" + '\nclient_secrets = [{vault = "a/b#c", env = "X"}]', vault, "client_secrets.0 must be {env"),
    ]
    for said, asked, says in faults:
        file.write_text(said)
        with pytest.raises(SetupError) as caught:
            declare.read(file, providers=PROVIDERS, vault=asked)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert_without(caught.value, SECRET, "of-version-1", tenancy.secret_id)
