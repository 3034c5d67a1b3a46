"""Commands: what they print, and the one line that bad input gets."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from gateway.cli import run
from gateway.ids import uuid7
from gateway.vault.keyring import generate
from tests import openbao, postgres
from tests.signers import SIGNERS

SECRET = SIGNERS["github"].secrets[0].decode()


class Shell:
    """Commands run one after the other on one deployment."""

    def __init__(self, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capture, self._patch = capture, patch

    def ok(self, *arguments: str, stdin: str = "") -> str:
        """Standard output of a command that succeeds."""
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        status = run(list(arguments))
        out, err = self._capture.readouterr()
        assert status == 0, err
        return out

    def fails(self, *arguments: str, status: int = 1, out: bool = False) -> str:
        """The one line of a command that does not. `out`: it got some way, and said so."""
        assert run(list(arguments)) == status
        said, err = self._capture.readouterr()
        assert out or said == ""
        assert err.startswith("posthouse: ")
        assert err.count("\n") == 1
        return err


@pytest.fixture
def shell(
    template: postgres.Template, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Shell]:
    """A migrated database, a keyring, an empty folder to stand in."""
    dsn = asyncio.run(template.clone())
    monkeypatch.setenv("POSTHOUSE_DATABASE_URL", dsn)
    monkeypatch.setenv("POSTHOUSE_KEYRING", generate().to_json())
    monkeypatch.setenv("POSTHOUSE_PUBLIC_URL", "https://hooks.example.com")
    monkeypatch.chdir(tmp_path)
    yield Shell(capsys, monkeypatch)
    asyncio.run(template.drop(dsn))


def test_an_integration_is_declared_applied_and_shown_without_its_secret(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """posthouse.toml, `apply`, `integrations`; the second apply has nothing to do."""
    monkeypatch.setenv("HUB", SECRET)
    Path("posthouse.toml").write_text('[integrations.hub]\nprovider = "github"\nsigning_secrets = [{env = "HUB"}]\n')
    assert "dry run" in shell.ok("apply", "--dry-run")
    assert "no integrations" in shell.ok("integrations", "list")
    assert "https://hooks.example.com/hooks/hub" in shell.ok("apply")
    assert "nothing to do" in shell.ok("apply")
    assert "hub" in shell.ok("integrations", "list")
    shown = shell.ok("integrations", "show", "hub")
    assert SECRET not in shown
    assert json.loads(shown)["declared_by"] == "file"
    assert "posthouse.toml" in shell.fails("integrations", "remove", "hub")
    Path("posthouse.toml").write_text("")
    assert "removed" in shell.ok("apply", "--prune")


def test_a_secret_in_vault_is_read_when_it_is_applied(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, bao_server: openbao.Server
) -> None:
    """A reference in posthouse.toml; without a server, or without leave, it is one line that says so."""
    tenancy = bao_server.tenancy()
    tenancy.ask("POST", "kv/data/hub", {"data": {"hook": SECRET}})
    Path("posthouse.toml").write_text(
        '[integrations.hub]\nprovider = "github"\nsigning_secrets = [{vault = "kv/hub#hook"}]\n'
    )
    assert "no Vault is set up (POSTHOUSE_VAULT_ADDR)" in shell.fails("apply")
    monkeypatch.setenv("POSTHOUSE_VAULT_ADDR", bao_server.url)
    monkeypatch.setenv("POSTHOUSE_VAULT_NAMESPACE", tenancy.namespace)
    monkeypatch.setenv("POSTHOUSE_VAULT_ROLE_ID", tenancy.role_id)
    monkeypatch.setenv("POSTHOUSE_VAULT_SECRET_ID", "wrong-secret-id")
    assert "refuses our AppRole login" in (refused := shell.fails("apply"))
    assert "wrong-secret-id" not in refused
    monkeypatch.setenv("POSTHOUSE_VAULT_SECRET_ID", tenancy.secret_id)
    assert "our policy does not let us read" in shell.fails("apply")
    tenancy.allow('path "kv/data/hub" { capabilities = ["read"] }')
    assert "https://hooks.example.com/hooks/hub" in shell.ok("apply")
    assert "nothing to do" in shell.ok("apply")
    monkeypatch.setenv("POSTHOUSE_VAULT_ADDR", "http://127.0.0.1:1")
    assert "Vault cannot be reached" in shell.fails("apply")


def test_the_transit_key_is_rotated_and_retired(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bao_server: openbao.Server
) -> None:
    """`keyring rotate` makes a new version there too; the current one and one in use are not retired."""
    tenancy = bao_server.tenancy()
    monkeypatch.delenv("POSTHOUSE_KEYRING")
    monkeypatch.setenv("POSTHOUSE_KEYRING_FILE", str(tmp_path / "k.json"))
    shell.ok("keyring", "init")
    assert "KEY_BACKEND is not transit" in shell.fails("keyring", "retire", "1", "--transit")
    monkeypatch.setenv("POSTHOUSE_KEY_BACKEND", "transit")
    assert "set POSTHOUSE_VAULT_ADDR" in shell.fails("keyring", "rotate")
    for name, value in (
        ("ADDR", bao_server.url), ("NAMESPACE", tenancy.namespace), ("ROLE_ID", tenancy.role_id), ("SECRET_ID", tenancy.secret_id),
    ):  # fmt: skip
        monkeypatch.setenv(f"POSTHOUSE_VAULT_{name}", value)
    assert "transit    current 1, opens 1 and newer" in shell.ok("keyring", "status")
    assert "is the current one" in shell.fails("keyring", "retire", "1", "--transit")
    assert "version 2 of the region's key is current" in shell.ok("keyring", "rotate")
    assert "opens version 2 and newer" in shell.ok("keyring", "retire", "1", "--transit")
    assert "transit    current 2, opens 2 and newer" in shell.ok("keyring", "status")


def test_a_secret_rotates_without_standing_on_a_command_line(shell: Shell) -> None:
    """A new one in front, then the old one dropped; secrets come from standard input, a file or a variable."""
    first, second, _ = (secret.decode() for secret in SIGNERS["github"].secrets)
    Path("first").write_text(first + "\n")
    shell.ok("integrations", "add", "hub", "--provider", "github", "--file", "first")
    assert "has 2 signing_secrets" in shell.ok("integrations", "add-secret", "hub", stdin=second + "\n")
    assert "1 removed" in shell.ok("integrations", "drop-secrets", "hub")
    assert "removed hub" in shell.ok("integrations", "remove", "hub")


MADE = """INSERT INTO gateway.hook_endpoints (id, integration_id, state, sealed_secrets, created_at, updated_at)
          VALUES (gen_random_uuid(), $1, 'live', '{x}', now(), now())"""


def test_endpoints_end_with_their_integration(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed by name or pruned: no hook endpoint stays live, no secret of one stays sealed."""

    async def ask(sql: str, *arguments: str) -> list[tuple[object, ...]]:
        db = await asyncpg.connect(os.environ["POSTHOUSE_DATABASE_URL"])
        try:
            return [tuple(row) for row in await db.fetch(sql, *arguments)]
        finally:
            await db.close()

    monkeypatch.setenv("HUB", SECRET)
    Path("posthouse.toml").write_text('[integrations.hub]\nprovider = "github"\nsigning_secrets = [{env = "HUB"}]\n')
    shell.ok("apply")
    shell.ok("integrations", "add", "lab", "--provider", "github", "--env", "HUB")
    for name in ("hub", "lab"):
        asyncio.run(ask(MADE, json.loads(shell.ok("integrations", "show", name))["id"]))
    Path("posthouse.toml").write_text("")
    states = "SELECT state, cardinality(sealed_secrets) FROM gateway.hook_endpoints ORDER BY 1 DESC"
    shell.ok("apply")
    shell.ok("apply", "--prune", "--dry-run")
    assert asyncio.run(ask(states)) == [("live", 1)] * 2
    shell.ok("apply", "--prune")
    assert asyncio.run(ask(states)) == [("retired", 0), ("live", 1)]
    shell.ok("integrations", "remove", "lab")
    assert asyncio.run(ask(states)) == [("retired", 0)] * 2


def test_keys_are_shown_once_and_listed_by_their_beginning(shell: Shell) -> None:
    """The token stands alone on standard output, for scripts."""
    token = shell.ok("keys", "create", "ci", "--role", "reader", "--expires-in-days", "7").strip()
    assert token.startswith("ph_")
    listed = shell.ok("keys", "list")
    assert token not in listed
    assert token[:11] in listed
    [key] = json.loads(shell.ok("keys", "list", "--json"))
    shell.ok("keys", "revoke", f"key_{key['id'].replace('-', '')}")
    assert "revoked" in shell.ok("keys", "list")
    assert token not in shell.fails("keys", "revoke", token)


def test_an_empty_deployment_says_so(shell: Shell) -> None:
    """Lists have a line for nothing, and `[]` for programs."""
    assert shell.ok("deliveries", "refused") == "no delivery was refused\n"
    assert shell.ok("consumers", "list") == "no consumers\n"
    assert json.loads(shell.ok("consumers", "list", "--json")) == []
    assert "nothing to do" in shell.ok("migrate")
    assert "fits" in shell.ok("migrate", "--check")


FOUND = """WITH tenant AS (INSERT INTO control.tenants (id, region, labels, created_at, updated_at) VALUES ('acme', 'default', '{}', now(), now()) RETURNING id),
     connection AS (INSERT INTO gateway.connections (id, tenant_id, integration_id, labels, state, created_at, updated_at)
       SELECT $1, tenant.id, $1, '{}', 'active', now(), now() FROM tenant RETURNING id)
INSERT INTO gateway.history (id, connection_id, access_profile, at, signal, outcome, cause, source, evidence, code, state_before, state_after)
SELECT $1, id, 'reader', now(), 'revoked', 'moved', 'tokens_revoked', 'delivery', $1, 'gone', 'active', 'revoked' FROM connection"""

SHUT = """
INSERT INTO gateway.breakers (scope, provider, kind, host, integration_id, why, code, since, canary_at, pause_s)
SELECT 'token:slack.com', 'slack', 'token', 'slack.com', NULL::uuid, 'failing', 'timed_out', now(), now(), 1
 WHERE $1::uuid IS NOT NULL UNION ALL
SELECT 'integration:' || id || ':token', 'slack', 'token', 'slack.com', id, 'misconfigured', 'invalid_client', now(), now(), 60
  FROM control.integrations WHERE name = 'chat'"""


CAME = """INSERT INTO gateway.rotations (connection_id, access_profile, token_version, generation, at, source, fingerprint, rotated, epoch, reuse)
         VALUES ($1, 'reader', 7, 1, now(), 'refresh', $1, true, 1, 'refused_current')"""


def test_what_operators_look_after(shell: Shell) -> None:
    """A connection's history, what was set aside, how providers are: shown, for people and for programs, and put right."""
    id = uuid7(datetime.now(UTC))

    async def ask(sql: str) -> None:
        db = await asyncpg.connect(os.environ["POSTHOUSE_DATABASE_URL"])
        try:
            await db.execute(sql, id)
        finally:
            await db.close()

    asyncio.run(ask(FOUND))
    shown = shell.ok("connections", "history", f"conn_{id.hex}")
    assert "active -> revoked  tokens_revoked (gone)  delivery" in shown
    assert f"evt_{id.hex}" in shown
    [entry] = json.loads(shell.ok("connections", "history", f"conn_{id.hex}", "--json"))
    assert (entry["signal"], entry["outcome"], entry["state_after"]) == ("revoked", "moved", "revoked")

    assert "no token set" in shell.ok("connections", "rotations", f"conn_{id.hex}")
    asyncio.run(ask(CAME))
    shown = shell.ok("connections", "rotations", f"conn_{id.hex}")
    assert "refresh  another one    refused_current" in shown
    assert str(id) not in shown  # its fingerprint here
    [came] = json.loads(shell.ok("connections", "rotations", f"conn_{id.hex}", "--json"))
    assert (came["token_version"], came["rotated"], "fingerprint" in came) == (7, True, False)

    assert shell.ok("deliveries", "set-aside") == "nothing is set aside\n"
    asyncio.run(
        ask(
            "INSERT INTO gateway.set_aside (event_id, seq, type, at, error) VALUES ($1, 1, 'posthouse.delivery.x.y', now(), 'not_json')"
        )
    )
    assert "not_json" in shell.ok("deliveries", "set-aside")
    assert shell.ok("deliveries", "redrive", f"evt_{id.hex}") == "1 to be tried again\n"
    assert "asked for" in shell.ok("deliveries", "set-aside")
    [one] = json.loads(shell.ok("deliveries", "set-aside", "--json"))
    assert one["redrive"] is True
    assert shell.ok("deliveries", "redrive", "--all") == "1 to be tried again\n"

    assert "degraded" not in shell.ok("providers")
    asyncio.run(
        ask("""INSERT INTO gateway.provider_conditions (provider, degraded_since, error_class, failures)
                       SELECT 'slack', now(), 'refused', 7 WHERE $1::uuid IS NOT NULL""")
    )
    assert "degraded (refused)" in shell.ok("providers")
    told = {one["name"]: one for one in json.loads(shell.ok("providers", "--json"))}
    assert told["slack"]["conditions"][0]["failures"] == 7
    assert "tokens_revoked" in [tells["event"] for tells in told["slack"]["tells"]]
    assert shell.ok("providers", "release", "slack") == "released slack in default\n"
    assert "degraded" not in shell.ok("providers")

    assert shell.ok("incidents") == "no incidents\n"
    shell.ok("integrations", "add", "chat", "--provider", "slack", "--no-secret")
    asyncio.run(ask(SHUT))
    assert re.search(r"slack +token +slack.com +failing +timed_out", shell.ok("providers"))
    told = {one["name"]: one for one in json.loads(shell.ok("providers", "--json"))}
    assert [one["why"] for one in told["slack"]["breakers"]] == ["failing"]
    assert re.search(r"chat +slack +token +invalid_client", shell.ok("incidents"))
    [one] = json.loads(shell.ok("incidents", "--json"))
    assert (one["integration"], one["failures"]) == ("chat", 1)
    assert shell.ok("incidents", "retry", "chat") == "chat is tried again\n"


def test_the_api_is_described_without_a_running_gateway(shell: Shell) -> None:
    """The same document as /openapi.json."""
    document = json.loads(shell.ok("openapi"))
    assert document["openapi"].startswith("3.1")
    assert "/v1/events" in document["paths"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["migrate", "--nonsense"], 2, "No such option"),
        (["deploy"], 2, "Missing argument"),
        (["deploy", "mainframe"], 1, "systemd, kubernetes, compose"),
        (["deploy", "compose", "--replicas", "many"], 2, "valid integer"),
        (["serve", "--only", "nothing"], 1, "--only is `web` or `worker`"),
        (["apply", "missing.toml"], 1, "missing.toml cannot be read"),
        (["integrations", "show", "nobody"], 1, "no such integration"),
        (["integrations", "add", "x", "--provider", "nobody", "--no-secret"], 1, "provider is not known"),
        (["integrations", "add", "X Y", "--provider", "github", "--no-secret"], 1, "name must be"),
        (["integrations", "add", "x", "--provider", "github", "--env", "NOT_SET"], 1, "a variable that is not set"),
        (["integrations", "add", "x", "--provider", "github", "--file", "gone"], 1, "gone: No such file"),
        (["integrations", "add-secret", "x", "--file", "gone", "--env", "E"], 1, "not both"),
        (["integrations", "drop-secrets", "nobody", "--purpose", "what"], 1, "no such integration"),
        (["keys", "create", "x", "--role", "emperor"], 1, "no such role"),
        (["keys", "revoke", "key_" + "0" * 32], 1, "no such key"),
        (["consumers", "reset", "c", "--to", "yesterday"], 1, "a time with its zone"),
        (["consumers", "reset", "c", "--to", "latest"], 1, "no such consumer"),
        (["deliveries", "refused", "--integration", "nobody"], 1, "no such integration"),
        (["consumers", "reset", "posthouse.lifecycle", "--to", "latest"], 1, "Posthouse's own"),
        (["connections", "history", "conn_" + "0" * 32], 1, "no such connection"),
        (["connections", "history", "evt_1"], 1, "no such connection"),
        (["connections", "rotations", "conn_" + "0" * 32], 1, "no such connection"),
        (["deliveries", "redrive"], 1, "say which"),
        (["deliveries", "redrive", "evt_" + "0" * 32, "--all"], 1, "say which"),
        (["deliveries", "redrive", "conn_1"], 1, "that is no event"),
        (["deliveries", "redrive", "evt_" + "0" * 32], 1, "no such event is set aside"),
        (["providers", "release", "nobody"], 1, "no such provider"),
        (["providers", "release", "slack"], 1, "it is well"),
        (["providers", "nonsense"], 2, "No such command"),
        (["incidents", "retry", "nobody"], 1, "no such integration"),
        (["events", "tail"], 1, "POSTHOUSE_API_KEY is not set"),
        (["keyring", "init"], 1, "POSTHOUSE_KEYRING is set"),
    ],
)
def test_bad_input_gets_one_sensible_line(arguments: list[str], status: int, says: str, shell: Shell) -> None:
    """Never a traceback; usage errors are 2, everything else 1."""
    assert says in shell.fails(*arguments, status=status)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("POSTHOUSE_POLL_S", "hush", "POSTHOUSE_POLL_S: Input should be a valid number"),
        ("POSTHOUSE_DATABASE_URL", "mysql://me:hush@host/db", "is not given as a URL like postgresql://"),
        ("POSTHOUSE_DATABASE_URL", "postgresql://me:hush@127.0.0.1:1/db", "127.0.0.1:1 cannot be reached"),
        ("POSTHOUSE_DATABASE_URL", "postgresql://me:hush@127.0.0.1:1/db?sslmode=nope", "an sslmode that there is not"),
        ("POSTHOUSE_KEYRING", '{"keys": "hush"}', "the keyring in POSTHOUSE_KEYRING"),
    ],
)
def test_a_setting_that_is_wrong_is_named_and_its_value_is_not(
    name: str, value: str, says: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a password."""
    monkeypatch.setenv(name, value)
    said = shell.fails("keys", "list")
    assert says in said
    assert "hush" not in said


def test_a_keyring_is_made_once_and_its_status_shows_no_key(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Losing one loses every sealed secret, so none is ever overwritten."""
    monkeypatch.delenv("POSTHOUSE_KEYRING")
    monkeypatch.setenv("POSTHOUSE_KEYRING_FILE", str(tmp_path / "k.json"))
    shell.ok("keyring", "init")
    made = json.loads((tmp_path / "k.json").read_text())
    status = shell.ok("keyring", "status")
    assert "current    1" in status
    assert made["keys"]["1"] not in status
    assert "already" in shell.fails("keyring", "init")


def test_a_database_without_a_schema_says_which_command_makes_it(
    shell: Shell, template: postgres.Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command but `migrate` moves a schema."""
    dsn = asyncio.run(template.server.create("bare_for_cli"))
    try:
        monkeypatch.setenv("POSTHOUSE_DATABASE_URL", dsn)
        assert "run `posthouse migrate`" in shell.fails("keys", "list")
        assert "migrated: control 0001" in shell.ok("migrate")
        assert "no keys" in shell.ok("keys", "list")
    finally:
        asyncio.run(template.server.drop("bare_for_cli"))


def test_security_events_are_set_up_for_those_who_can(shell: Shell) -> None:
    """Whatever is missing is one line that says what to do."""
    shell.ok("integrations", "add", "hub", "--provider", "github", "--no-secret")
    shell.ok("integrations", "add", "goo", "--provider", "google", "--client-id", "c", "--no-secret")
    events = ("integrations", "security-events")
    assert "GitHub has no security events" in shell.fails(*events, "hub")
    assert "there is no integration 'nobody'" in shell.fails(*events, "nobody", "--verify")
    assert "add its client secret" in shell.fails(*events, "goo")
    shell.ok("integrations", "add-secret", "goo", "--purpose", "client_secrets", stdin="client-secret")
    assert "set risc_service_account" in shell.fails(*events, "goo", "--verify", "--wait", "0")
