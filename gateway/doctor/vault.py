"""Vault / OpenBao: does it answer, unsealed; is our token there to stay; are the key and the engine ours to use?"""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.clock import Clock
from gateway.database import Db
from gateway.doctor.finding import Finding
from gateway.errors import SetupError, Unavailable
from gateway.regions import DEFAULT
from gateway.settings import Settings
from gateway.vault import checks, choose
from gateway.vault.keyring import Keyring
from gateway.vault.kv import KvBlobs
from gateway.vault.openbao import FOREVER, OpenBao, Refused
from gateway.vault.transit import TransitKeys

SHORT_S = 60.0  # a token that lives no longer is renewed all the time
ADVICE = {
    "sealed": "unseal it; what is in memory is served meanwhile, for as long as POSTHOUSE_DATA_KEY_MEMORY_S",
    "uninitialized": "initialize it: bao operator init",
    "away": "start it, or correct POSTHOUSE_VAULT_ADDR; what is in memory is served meanwhile",
}


async def look(settings: Settings, keys: Keyring | None, clock: Clock, region: Db | None) -> list[Finding]:
    """Nothing where none is used or named. `region`: its database, if that can be asked."""
    try:
        bao = choose.openbao(settings, clock)
    except SetupError as error:
        return [Finding("fix", "vault", str(error))]
    if bao is None:
        return []
    try:
        return await _found(bao, settings, keys, region)
    finally:
        await bao.close()


async def _found(bao: OpenBao, settings: Settings, keys: Keyring | None, region: Db | None) -> list[Finding]:
    condition = await bao.condition()
    if condition == "away":  # why, the login says
        try:
            await bao.open()
        except (SetupError, Unavailable) as error:
            return [Finding("fix", "vault", f"{error} at {bao.host}: {ADVICE['away']}")]
    if condition in ADVICE and condition != "away":
        return [Finding("fix", "vault", f"{bao.host} is {condition}: {ADVICE[condition]}")]
    findings = [_server(bao, settings)]
    try:
        await bao.open()
    except (SetupError, Unavailable) as error:
        return [*findings, Finding("fix", "vault token", str(error))]
    findings.append(_token(bao, settings))
    if settings.key_backend == "transit":
        findings.append(await _transit(bao, settings, region))
    if settings.token_store == "kv" and keys is not None:
        findings.append(await _kv(bao, settings, keys))
    return findings


def _server(bao: OpenBao, settings: Settings) -> Finding:
    assert settings.vault_addr is not None
    parts = urlsplit(settings.vault_addr)
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        return Finding(
            "look", "vault", f"{bao.host} is called without TLS: keys and tokens cross the network in the clear"
        )
    return Finding("ok", "vault", f"{bao.host}, unsealed")


def _token(bao: OpenBao, settings: Settings) -> Finding:
    left = bao.seconds_left
    assert left is not None
    how = "a static token" if settings.vault_token is not None else "AppRole"
    if left == FOREVER:
        return Finding(
            "look", "vault token", f"{how}, never ends: give us one that does (a root token is for set-up only)"
        )
    told = f"{how}, {left:.0f} s to go, {'renewable' if bao.renewable else 'not renewable'}"
    if settings.vault_token is not None and not bao.renewable:
        return Finding("fix", "vault token", f"{told}: when it ends nothing opens; use AppRole, or a periodic token")
    if left < SHORT_S:
        return Finding("look", "vault token", f"{told}: give the role a token_ttl of minutes at least")
    return Finding("ok", "vault token", told)


async def _transit(bao: OpenBao, settings: Settings, region: Db | None) -> Finding:
    backend = TransitKeys(bao, settings)
    where = f"{settings.vault_transit_mount}/{settings.vault_transit_key}"
    try:
        await backend.prove()
        if region is not None:
            await checks.verify_region(region, DEFAULT, backend)
        return Finding("ok", "vault transit", f"{where}, version {await backend.current()}, wraps, unwraps and binds")
    except (SetupError, Unavailable) as error:
        return Finding("fix", "vault transit", str(error))


async def _kv(bao: OpenBao, settings: Settings, keys: Keyring) -> Finding:
    blobs = KvBlobs(bao, settings, DEFAULT, keys)
    try:
        await blobs.prove()
        return Finding("ok", "vault kv", f"{settings.vault_kv_mount}/{blobs.folder}")
    except (SetupError, Unavailable, Refused) as error:
        return Finding("fix", "vault kv", str(error))
