"""OpenBao over TLS that is stopped, restarts sealed and comes back, under a process that goes on meanwhile."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway import doctor
from gateway.database import Database
from gateway.doctor import Finding
from gateway.errors import SetupError, Unavailable
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault.openbao import OpenBao, connected
from tests import openbao
from tests.clock import FakeClock
from tests.flows.house import metric
from tests.ops.certificates import Authority
from tests.vault.openbao import rows

TLS = {"vault_server_name": "vault.test"}


@pytest.fixture
def tenancy(restartable: openbao.Restartable) -> openbao.Tenancy:
    return restartable.server.tenancy()


@pytest.fixture
def tls_settings(tenancy: openbao.Tenancy, settings: Settings, restartable: openbao.Restartable) -> Settings:
    return tenancy.settings(settings, key_backend="transit", vault_ca_file=restartable.authority, **TLS)


@asynccontextmanager
async def serving(settings: Settings, clock: FakeClock) -> AsyncIterator[Gateway]:
    made = await Gateway.open(settings, clock)
    try:
        yield made
    finally:
        await made.close()


async def of(settings: Settings, clock: FakeClock, about: str) -> Finding:
    """The doctor's one finding about a thing."""
    [found] = [each for each in await doctor.examine(settings, clock) if each.about == about]
    assert "\n" not in found.line
    return found


async def test_an_outage_and_a_sealed_restart(
    restartable: openbao.Restartable, tls_settings: Settings, database: Database, clock: FakeClock
) -> None:
    """Reads go on from memory, for its time; what needs the server is 503 with Retry-After; metrics and doctor say why;
    unsealed, all is well again by itself."""
    async with serving(tls_settings, clock) as gateway:
        assert gateway.bao is not None
        tokens = gateway.regions.home.tokens
        known, cold = rows.place("acme"), rows.place("bolt")
        sealed, other = await tokens.seal(known, "access-1", "refresh-1"), await tokens.seal(cold, "x", "y")
        tokens.keys.forget("bolt")
        for down, condition in (("away", "cannot be reached"), ("sealed", "is sealed")):
            restartable.stop()
            if down == "sealed":
                restartable.start()
            assert await tokens.open(known, "access_token", sealed.data_key_version, sealed.access) == "access-1"
            for needs in (
                tokens.open(cold, "access_token", other.data_key_version, other.access),
                tokens.seal(rows.place("new"), "a", "r"),
            ):
                with pytest.raises(Unavailable) as caught:
                    await needs
                assert caught.value.status == 503
                assert caught.value.retry_after_s == (10 if down == "sealed" else 2)
            assert await database.fetchval("SELECT count(*) FROM gateway.data_keys WHERE tenant_id = 'new'") == 0
            await gateway.bao.run_once()
            assert metric("posthouse_vault_up", server=gateway.bao.host) == 0
            found = await of(tls_settings, clock, "vault")
            assert found.verdict == "fix"
            assert condition in found.line
        restartable.unseal()
        await gateway.bao.run_once()
        assert metric("posthouse_vault_up", server=gateway.bao.host) == 1
        assert await tokens.open(cold, "access_token", other.data_key_version, other.access) == "x"
        assert (await tokens.seal(rows.place("new"), "a", "r")).access
        restartable.stop()
        clock.move(tls_settings.data_key_memory_s)
        with pytest.raises(Unavailable):  # memory has its end
            await tokens.open(known, "access_token", sealed.data_key_version, sealed.access)


async def test_a_process_starts_while_the_server_is_sealed(
    restartable: openbao.Restartable, tls_settings: Settings, clock: FakeClock
) -> None:
    """Deliveries need no key, so it serves; keys open as soon as the server is unsealed, without another start."""
    restartable.stop()
    restartable.start()
    async with serving(tls_settings, clock) as gateway:
        assert gateway.state == "ready"
        tokens = gateway.regions.home.tokens
        with pytest.raises(Unavailable, match="sealed"):
            await tokens.seal(rows.place(), "a", "r")
        restartable.unseal()
        where = rows.place()
        sealed = await tokens.seal(where, "a", "r")
        assert await tokens.open(where, "access_token", sealed.data_key_version, sealed.access) == "a"


async def test_kv_mode_in_an_outage(
    restartable: openbao.Restartable,
    tenancy: openbao.Tenancy,
    tls_settings: Settings,
    database: Database,
    clock: FakeClock,
) -> None:
    """A blob in memory is served, a cold one and a new one are 503, and no row can come to point nowhere."""
    async with serving(tls_settings.model_copy(update={"token_store": "kv"}), clock) as gateway:
        tokens, sweep = gateway.regions.home.tokens, gateway.regions.home.sealing.sweep
        assert sweep is not None
        where = rows.place()
        sealed = await tokens.seal(where, "access-1", "refresh-1")
        await rows.put(database, where, sealed)
        restartable.stop()
        assert await tokens.open(where, "access_token", sealed.data_key_version, None, sealed.kv_path) == "access-1"
        with pytest.raises(Unavailable):
            await tokens.open(where, "access_token", sealed.data_key_version, None, "posthouse/another/blob")
        with pytest.raises(Unavailable):
            await tokens.seal(replace(where, version=2), "a", "r")
        with pytest.raises(Unavailable):
            await sweep.run_once()
        await tokens.discard(["posthouse/another/blob"])  # never raises: the sweep has it later
        restartable.start()
        restartable.unseal()
        assert await sweep.run_once() == 0
        assert tenancy.blobs("posthouse") == [sealed.kv_path]


async def test_only_the_right_certificate_is_trusted(
    restartable: openbao.Restartable, tls_settings: Settings, tmp_path: Path, clock: FakeClock
) -> None:
    """Another authority, none, another name: one clear line, before our secret id is sent."""
    (tmp_path / "other.pem").write_text(Authority.make("another authority").pem)
    (tmp_path / "empty.pem").write_text("")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"vault_ca_file": tmp_path / "other.pem"}, "shows a certificate that does not pass"),
        ({"vault_addr": (tls_settings.vault_addr or "").replace("https", "http")}, "not Vault"),
        ({"vault_ca_file": None}, "shows a certificate that does not pass"),
        ({"vault_server_name": "other.test"}, "shows a certificate that does not pass"),
        ({"vault_server_name": None}, "shows a certificate that does not pass"),
        ({"vault_ca_file": tmp_path / "empty.pem"}, "holds no certificate"),
        ({"vault_ca_file": tmp_path / "none.pem"}, "holds no certificate"),
        ({"vault_client_key_file": tmp_path / "none.pem"}, "needs POSTHOUSE_VAULT_CLIENT_CERT_FILE"),
        ({"vault_client_cert_file": tmp_path / "other.pem"}, "cannot be used"),
    ]
    for change, says in wrong:
        for attempt in (serving, connected):
            with pytest.raises(SetupError, match=says):
                async with attempt(tls_settings.model_copy(update=change), clock):
                    pass
        found = await of(tls_settings.model_copy(update=change), clock, "vault")
        assert (found.verdict, says in found.line) == ("fix", True), found


async def test_a_client_certificate_is_shown(tmp_path: Path, clock: FakeClock) -> None:
    """A server that asks for one takes ours, with its key in the same file or another, and nobody's else."""
    authority = Authority.make("an authority")
    clients, strangers = Authority.make("clients"), Authority.make("strangers")
    folder = tmp_path / "bao"
    folder.mkdir()
    files: dict[str, Path] = {}
    for name, signer in (("ours", clients), ("theirs", strangers)):
        certificate, key = signer.sign("posthouse.test")
        files[name], files[name + "-key"] = tmp_path / f"{name}.pem", tmp_path / f"{name}-key.pem"
        files[name].write_text(certificate)
        files[name + "-key"].write_text(key)
    (tmp_path / "both.pem").write_text(files["ours"].read_text() + files["ours-key"].read_text())
    server = openbao.Restartable(folder, *authority.sign("vault.test"), authority.pem, client_authority=clients.pem)
    assert isinstance(server.server.tls, ssl.SSLContext)
    server.server.tls.load_cert_chain(files["ours"], files["ours-key"])
    server.start()
    try:
        server.initialize()
        tenancy = server.server.tenancy(namespaced=False)
        base = tenancy.settings(vault_ca_file=server.authority, **TLS)
        for cert, key in (("ours", "ours-key"), ("both", "")):
            shown = {"vault_client_cert_file": tmp_path / f"{cert}.pem", "vault_client_key_file": files.get(key)}
            async with connected(base.model_copy(update=shown), clock) as bao:
                await bao.call("key", "GET", "transit/keys/posthouse")
        for update in ({}, {"vault_client_cert_file": files["theirs"], "vault_client_key_file": files["theirs-key"]}):
            with pytest.raises((SetupError, Unavailable)):
                async with connected(base.model_copy(update=update), clock):
                    pass
    finally:
        server.stop()


async def test_the_doctor_looks_at_token_key_and_engine(
    restartable: openbao.Restartable, tenancy: openbao.Tenancy, tls_settings: Settings, clock: FakeClock
) -> None:
    """Well: four lines that say so. And each fault with what to do."""
    whole = tls_settings.model_copy(update={"token_store": "kv"})
    assert (await of(whole, clock, "vault")).line.endswith("unsealed")
    assert (await of(whole, clock, "vault token")).line == "AppRole, 1200 s to go, renewable"
    assert (await of(whole, clock, "vault transit")).line == "transit/posthouse, version 1, wraps, unwraps and binds"
    assert (await of(whole, clock, "vault kv")).verdict == "ok"
    made = tenancy.ask("POST", "auth/token/create", {"policies": ["posthouse"], "ttl": "90s", "renewable": False})[
        "auth"
    ]["client_token"]
    faults: list[tuple[dict[str, Any], str, str, str]] = [
        ({"vault_transit_key": "none"}, "vault transit", "fix", "permission denied"),
        ({"vault_kv_prefix": "none"}, "vault kv", "fix", "our policy must allow"),
        ({"vault_secret_id": SecretStr("wrong")}, "vault token", "fix", "refuses our AppRole login"),
        ({"vault_role_id": None, "vault_secret_id": None, "vault_token": SecretStr(made)}, "vault token", "fix", "not renewable"),
        ({"vault_role_id": None, "vault_secret_id": None, "vault_token": SecretStr(restartable.server.root)}, "vault token", "look", "never ends"),
        ({"vault_addr": None}, "vault", "fix", "POSTHOUSE_VAULT_ADDR"),
    ]  # fmt: skip
    async with serving(tls_settings, clock) as gateway:
        await gateway.regions.home.tokens.keys.for_sealing("acme")
    other = restartable.server.tenancy()
    faults.append((
        {"vault_namespace": other.namespace, "vault_role_id": other.role_id, "vault_secret_id": SecretStr(other.secret_id)},
        "vault transit", "fix", "does not open the data keys",
    ))  # fmt: skip
    for change, about, verdict, says in faults:
        found = await of(whole.model_copy(update=change), clock, about)
        assert found.verdict == verdict
        assert says in found.line
        assert made not in found.line
    assert not [
        each
        for each in await doctor.examine(
            tls_settings.model_copy(update={"vault_addr": None, "key_backend": "local"}), clock
        )
        if each.about.startswith("vault")
    ]
    async with connected(whole, clock) as bao:
        assert isinstance(bao, OpenBao)
