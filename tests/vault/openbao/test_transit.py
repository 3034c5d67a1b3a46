"""Transit as key backend, on a real OpenBao: bound to the place, in batches, over rotations; a start with the wrong key."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.clock import random_bytes
from gateway.database import Database
from gateway.errors import SetupError, Unavailable
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.vault.backend import LocalKeys
from gateway.vault.cipher import Aad, SealBroken
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Keyring
from gateway.vault.openbao import OpenBao, connected
from gateway.vault.proof import Checked
from gateway.vault.transit import BATCH, TransitKeys
from tests import openbao
from tests.clock import FakeClock
from tests.flows.house import metric

HERE = Aad(place="default", owner="acme", purpose="data_key", row="1")


@pytest.fixture
def keys(bao: OpenBao, vault_settings: Settings) -> TransitKeys:
    return TransitKeys(bao, vault_settings)


@pytest.mark.parametrize(
    "moved",
    [
        HERE._replace(place="other"), HERE._replace(owner="evil"), HERE._replace(purpose="other"),
        HERE._replace(row="2"), HERE._replace(more=("1",)), HERE._replace(owner="acmed", purpose="ata_key"),
    ],
    ids=str,
)  # fmt: skip
async def test_a_wrapped_key_opens_in_its_own_place_only(keys: TransitKeys, moved: Aad) -> None:
    """OpenBao refuses another `associated_data`, alone and in a batch with good ones."""
    key = random_bytes(32)
    (wrapped,) = await keys.wrap([(key, HERE)])
    assert await keys.unwrap([(wrapped, HERE)]) == [key]
    for batch in ([(wrapped, moved)], [(wrapped, HERE), (wrapped, moved)]):
        with pytest.raises(SealBroken):
            await keys.unwrap(batch)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"junk", b"vault:v1:", b"vault:v9:AAAA", b"vault:v1:AAAA", b"vault:v1:!!", b"vault:vx:AAAA", b"vault:v0:AAAA", b"\xff\xfe", b"\x01" * 61],
)  # fmt: skip
async def test_what_is_damaged_is_one_typed_error(keys: TransitKeys, damaged: bytes) -> None:
    """Whatever the server says of it, or before it is even asked."""
    with pytest.raises(SealBroken):
        await keys.unwrap([(damaged, HERE)])


async def test_every_flipped_character_is_noticed(keys: TransitKeys) -> None:
    """A bit in nonce, ciphertext or tag."""
    (wrapped,) = await keys.wrap([(random_bytes(32), HERE)])
    for at in range(len(b"vault:v1:"), len(wrapped), 9):
        other = b"A" if wrapped[at : at + 1] != b"A" else b"B"
        with pytest.raises(SealBroken):
            await keys.unwrap([(wrapped[:at] + other + wrapped[at + 1 :], HERE)])


async def test_batches_keep_their_order_and_stay_under_the_servers_limit(keys: TransitKeys) -> None:
    """Over a thousand keys in few calls; OpenBao refuses more than 1,000 strings in one."""
    before = metric("posthouse_vault_calls_total", kind="encrypt", outcome="ok")
    many = [(random_bytes(32), HERE._replace(row=str(row))) for row in range(5 * BATCH + 1)]
    wrapped = await keys.wrap(many)
    assert metric("posthouse_vault_calls_total", kind="encrypt", outcome="ok") == before + 6
    pairs = [(sealed, aad) for sealed, (_, aad) in zip(wrapped, many, strict=True)]
    assert await keys.unwrap(pairs) == [key for key, _ in many]
    assert await keys.wrap([]) == await keys.unwrap([]) == []


async def test_rotation_and_retirement(keys: TransitKeys, tenancy: openbao.Tenancy) -> None:
    """New keys under the new version at once, old ones open until their version is retired; the current never is."""
    (old,) = await keys.wrap([(b"1" * 32, HERE)])
    assert (await keys.current(), await keys.oldest(), keys.version_of(old)) == (1, 1, 1)
    with pytest.raises(SetupError, match="current"):
        await keys.retire(1)
    assert await keys.rotate() == 2
    (new,) = await keys.wrap([(b"2" * 32, HERE)])
    assert keys.version_of(new) == 2
    assert await keys.unwrap([(old, HERE), (new, HERE)]) == [b"1" * 32, b"2" * 32]
    await keys.retire(1)
    await keys.retire(1)
    assert await keys.oldest() == 2
    assert await keys.unwrap([(new, HERE)]) == [b"2" * 32]
    with pytest.raises(SealBroken):
        await keys.unwrap([(old, HERE)])
    tenancy.allow('path "transit/keys/posthouse" { capabilities = ["read"] }')
    with pytest.raises(SetupError, match="let our policy update transit/keys/posthouse/rotate"):
        await keys.rotate()
    with pytest.raises(Unavailable, match="permission denied"):
        await keys.wrap([(b"3" * 32, HERE)])


FAULTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("no such key", {"vault_transit_key": "other"}, 'path "transit/*" { capabilities = ["read", "update"] }', "there is no Transit key other"),
    ("not derived", {"vault_transit_key": "derived"}, 'path "transit/*" { capabilities = ["read", "update"] }', "not derived, is needed"),
    ("wrong type", {"vault_transit_key": "signs"}, 'path "transit/*" { capabilities = ["read", "update"] }', "is of type ed25519"),
    ("no engine", {"vault_transit_mount": "none"}, 'path "*" { capabilities = ["read", "update"] }', "there is no Transit key"),
    ("may not look", {}, 'path "x" { capabilities = ["read"] }', "let our policy read transit/keys/posthouse"),
    ("may not wrap", {}, 'path "transit/keys/*" { capabilities = ["read"] }', "let our policy update transit/encrypt/posthouse"),
    (
        "may not unwrap", {}, 'path "transit/keys/*" { capabilities = ["read"] }\npath "transit/encrypt/*" { capabilities = ["update"] }',
        "let our policy update transit/decrypt/posthouse",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "policy", "says"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
async def test_a_key_that_is_not_fit_is_refused_at_the_start(
    tenancy: openbao.Tenancy, settings: Settings, clock: FakeClock, more: dict[str, Any], policy: str, says: str
) -> None:
    """One line that says what to do, and nothing was written: no key was made up, no data key wrapped."""
    tenancy.ask("POST", "transit/keys/derived", {"type": "aes256-gcm96", "derived": True})
    tenancy.ask("POST", "transit/keys/signs", {"type": "ed25519"})
    tenancy.allow(policy)
    with pytest.raises(SetupError) as caught:
        await Gateway.open(tenancy.settings(settings, key_backend="transit", **more), clock)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tenancy.ask("GET", "transit/keys?list=true")["data"]["keys"]) == ["derived", "posthouse", "signs"]


async def test_a_start_with_another_key_is_refused(
    bao_server: openbao.Server,
    tenancy: openbao.Tenancy,
    settings: Settings,
    database: Database,
    keyring: Keyring,
    clock: FakeClock,
) -> None:
    """A second Transit of the same names, a retired version, or the local keyring: what was wrapped does not open."""
    transit = tenancy.settings(settings, key_backend="transit")
    gateway = await Gateway.open(transit, clock)
    await gateway.regions.home.tokens.keys.for_sealing("acme")
    tenancy.ask("POST", "transit/keys/posthouse/rotate", {})
    await gateway.regions.home.tokens.keys.for_sealing("bolt")
    await gateway.close()
    await (await Gateway.open(transit, clock)).close()
    wrong = [bao_server.tenancy().settings(settings, key_backend="transit"), settings]
    tenancy.ask("POST", "transit/keys/posthouse/config", {"min_decryption_version": 2})
    for other in [*wrong, transit]:
        with pytest.raises(SetupError, match="the key of region `default` does not open the data keys"):
            await Gateway.open(other, clock)
    await database.execute("DELETE FROM gateway.data_keys WHERE tenant_id = 'acme'")
    await (await Gateway.open(transit, clock)).close()


async def test_nothing_is_wrapped_before_the_key_was_proven(
    tenancy: openbao.Tenancy, database: Database, keyring: Keyring, clock: FakeClock
) -> None:
    """A start while the server is away goes on; then a wrong key is found out at the first need, and not used."""
    await DataKeys("default", database, LocalKeys(keyring), clock).for_sealing("acme")
    async with connected(tenancy.settings(), clock) as bao:
        keys = DataKeys("default", database, Checked(TransitKeys(bao, tenancy.settings()), database, "default"), clock)
        with pytest.raises(Unavailable, match="not the one"):
            await keys.for_sealing("bolt")
    assert await database.fetchval("SELECT count(*) FROM gateway.data_keys") == 1
