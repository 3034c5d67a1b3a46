"""`posthouse keyring` beside processes that serve, as an operator uses it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import aiohttp
import pytest

from gateway.cli import rotating
from gateway.database import Database
from gateway.vault import holders, reseal
from gateway.vault.backend import LocalKeys
from gateway.vault.data_keys import DataKeys
from gateway.vault.keyring import Aad, Keyring, parse
from gateway.vault.tokens import TokenVault
from tests import postgres
from tests.clock import FakeClock
from tests.ops.processes import posthouse
from tests.ops.test_cli import Shell
from tests.vault.rows import access_of, fill, place_of

T = TypeVar("T")


@pytest.fixture
def where(dsn: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a deployment whose keyring is a file."""
    return {
        "database_url": dsn, "home": str(tmp_path), "drain_pause_s": "0",
        "public_listen": "127.0.0.1:0", "private_listen": "127.0.0.1:0",
    }  # fmt: skip


async def keyring(*arguments: str, where: dict[str, str], status: int = 0) -> str:
    """What `posthouse keyring …` says: on standard output, or the one line of an error."""
    async with posthouse("keyring", *arguments, settings=where) as command:
        ended = await command.ended()
        out, err = await command.rest(), await command.errors()
        assert ended == status, out + err
        if status:
            assert [err.startswith("posthouse: "), err.count("\n")] == [True, 1], err
        return out if not status else err


def held(where: dict[str, str]) -> Keyring:
    return parse((Path(where["home"]) / "keyring.json").read_text(), "the test")


async def counts(database: Database) -> dict[int, int]:
    """Data keys by the version that they are wrapped under."""
    rows = await database.fetch("SELECT wrapped_under, count(*) FROM gateway.data_keys GROUP BY 1")
    return {row[0]: row[1] for row in rows}


async def all_open(database: Database, ring: Keyring) -> int:
    vault = TokenVault(DataKeys("default", database, LocalKeys(ring), FakeClock()))
    rows = await database.fetch("SELECT * FROM gateway.tokens")
    for row in rows:
        opened = await vault.open(
            place_of("default", row), "access_token", row["data_key_version"], row["sealed_access"]
        )
        assert opened == access_of(row["connection_id"])
    return len(rows)


async def test_rotate_and_retire_beside_two_processes(
    where: dict[str, str], dsn: str, database: Database, tmp_path: Path
) -> None:
    """New version, current everywhere, everything under it, the old one gone; both processes serve on all the while.

    An integration's secret, a hook endpoint's, a stored answer, and data keys: all sealed under version 1 before.
    """
    await keyring("init", where=where)
    secret = tmp_path / "secret"
    secret.write_text("a-signing-secret-of-a-decent-length")
    async with posthouse("keys", "create", "test", settings=where) as made:
        assert await made.ended() == 0
        token = (await made.rest()).strip()
    hub = ("integrations", "add", "hub", "--provider", "github", "--file", str(secret))
    async with posthouse(*hub, settings=where) as made:
        assert await made.ended() == 0
    async with posthouse("serve", settings=where) as one, posthouse("serve", settings=where) as two:
        urls = [(await each.until("ready")).split("private=")[1].strip() for each in (one, two)]
        http = aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"})
        async with http:
            endpoint = await make_endpoint(http, urls[0])
            keys = DataKeys("default", database, LocalKeys(held(where)), FakeClock())
            await fill(dsn, keys, [f"t{n}" for n in range(20)], 3)
            assert await counts(database) == {1: 20}
            assert "1 hook endpoints" in await keyring("status", where=where)
            assert "is the current one" in await keyring("retire", "1", where=where, status=1)

            said = await keyring("rotate", where=where)
            assert "key version 2 is current" in said
            assert "20 data keys wrapped anew" in said
            assert await counts(database) == {2: 20}
            assert {holder.current for holder in await holders.alive(database)} == {2}
            assert re.search(
                r"version 1  nothing is under it\nversion 2  1 integration secrets",
                await keyring("status", where=where),
            )
            assert "no key version 7" in await keyring("retire", "7", where=where, status=1)
            assert "retired key version 1" in await keyring("retire", "1", where=where)
            assert held(where).versions == (2,)
            for url in urls:  # what was answered before is answered again, by a process without version 1
                assert await make_endpoint(http, url) == endpoint
        assert await all_open(database, held(where)) == 60
        for each in (one, two):
            each.process.send_signal(signal.SIGTERM)
            assert await each.ended() == 0
            assert "does not open" not in await each.errors()
    assert await holders.alive(database) == []
    async with posthouse("serve", settings=where) as third:  # a start with the smaller keyring
        await third.until("ready")


async def test_up_makes_no_second_keyring_up(where: dict[str, str], database: Database) -> None:
    """The keyring's file is gone, and the deployment was sealed: one line, and nothing is written in its place."""
    async with posthouse("up", settings=where) as command:
        await command.until("posthouse is ready")
        command.process.send_signal(signal.SIGTERM)
        assert await command.ended() == 0
    file = Path(where["home"]) / "keyring.json"
    file.rename(file.with_suffix(".moved"))
    async with posthouse("up", settings=where) as command:
        assert await command.ended() == 1
        assert re.search(
            r"^posthouse: there is no keyring at \S+keyring.json: put it there", await command.errors(), re.M
        )
    assert not file.exists()


async def make_endpoint(http: aiohttp.ClientSession, url: str) -> Any:
    """Once, however often it is asked: the stored answer shows its secret."""
    async with http.post(
        f"{url}/v1/endpoints", json={"integration": "hub", "generate_secret": True}, headers={"idempotency-key": "once"}
    ) as answer:
        assert answer.status < 300, await answer.text()
        return await answer.json()


@pytest.fixture
def ours(
    template: postgres.Template, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[Shell, str]]:
    """Commands in this process, on a deployment whose keyring is a file; and its database."""
    dsn = asyncio.run(template.clone())
    monkeypatch.setenv("POSTHOUSE_DATABASE_URL", dsn)
    monkeypatch.setenv("POSTHOUSE_HOME", str(tmp_path))
    monkeypatch.setattr(reseal, "SETTLE_S", 0.0)
    monkeypatch.setattr(rotating, "WAIT_S", 0.0)
    shell = Shell(capsys, monkeypatch)
    shell.ok("keyring", "init")
    yield shell, dsn
    asyncio.run(template.drop(dsn))


def on(dsn: str, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do something on the database."""

    async def main() -> T:
        database = Database(dsn)
        await database.open()
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(main())


def test_data_keys_are_made_anew_and_the_old_ones_go(ours: tuple[Shell, str], tmp_path: Path) -> None:
    """`rotate --data`: every token set is sealed anew; the old data keys are deleted when two minutes have gone by."""
    shell, dsn = ours
    ring = parse((tmp_path / "keyring.json").read_text(), "x")
    on(dsn, lambda database: fill(dsn, DataKeys("default", database, LocalKeys(ring), FakeClock()), ["a", "b"], 5))
    said = shell.ok("keyring", "rotate", "--data")
    assert "10 token sets sealed anew" in said
    assert "in two minutes" in said
    assert "token sets sealed anew: 10 of 10, under way since" in shell.ok("keyring", "status")
    assert on(dsn, counts) == {1: 4}
    on(dsn, lambda database: database.execute("UPDATE gateway.clock SET shifted_by = '3 minutes'"))
    assert "in two minutes" not in shell.ok("keyring", "rotate", "--data")
    assert on(dsn, counts) == {1: 2}
    assert on(dsn, lambda database: all_open(database, ring)) == 10


def test_a_process_without_the_new_version_holds_it_up(ours: tuple[Shell, str], tmp_path: Path) -> None:
    """Nothing is sealed under a version that somebody cannot open; the next try goes on with the same version."""
    shell, dsn = ours
    old = parse((tmp_path / "keyring.json").read_text(), "x")
    late = UUID(int=1)
    on(dsn, lambda database: holders.tell(database, late, "far-away", old))
    assert "1 processes (far-away) did not come to know key version 2" in shell.fails("keyring", "rotate", out=True)
    ring = parse((tmp_path / "keyring.json").read_text(), "x")
    assert (ring.current, ring.versions) == (1, (1, 2))
    on(dsn, lambda database: holders.tell(database, late, "far-away", ring))
    assert "did not come to seal under key version 2" in shell.fails("keyring", "rotate", out=True)
    assert "1 processes (far-away) still seal under key version 1" in shell.fails("keyring", "retire", "1")
    ring = parse((tmp_path / "keyring.json").read_text(), "x")
    assert (ring.current, ring.versions) == (2, (1, 2))
    on(dsn, lambda database: holders.tell(database, late, "far-away", ring))
    shell.ok("keyring", "rotate")
    assert parse((tmp_path / "keyring.json").read_text(), "x").versions == (1, 2)
    shell.ok("keyring", "retire", "1")


def test_a_version_in_use_is_not_retired(ours: tuple[Shell, str], tmp_path: Path) -> None:
    """Whatever is under it is named; a rotation that was cut off before its last step is gone on with."""
    shell, dsn = ours
    old = parse((tmp_path / "keyring.json").read_text(), "x")
    on(dsn, lambda database: DataKeys("default", database, LocalKeys(old), FakeClock()).for_sealing("acme"))
    on(dsn, lambda database: verifier(database, old))
    shell.ok("keyring", "add")
    shell.ok("keyring", "use", "2")
    refused = shell.fails("keyring", "retire", "1")
    assert "1 data keys" in refused
    assert "1 connect sessions under way" in refused
    assert "going on with what is not under it yet" in shell.ok("keyring", "rotate")
    assert "(1 connect sessions under way)" in shell.fails("keyring", "retire", "1")  # it is waited for
    on(dsn, lambda database: database.execute("UPDATE gateway.clock SET shifted_by = '11 minutes'"))
    shell.ok("keyring", "retire", "1")
    assert "no key version 1" in shell.fails("keyring", "retire", "1")


async def verifier(database: Database, ring: Keyring) -> None:
    await database.execute(
        """INSERT INTO gateway.connect_sessions (id, tenant_id, integration_id, connection_id, reconnects, profiles, asked, state,
             link_hash, sealed_verifier, created_at, expires_at)
           VALUES ($1, 'acme', $1, $1, false, '{}', '{}', 'opened', 'x', $2, gateway.now(), gateway.now() + interval '10 minutes')""",
        UUID(int=1), ring.seal(b"verifier", Aad(place="default", owner="x", purpose="verifier")),
    )  # fmt: skip


def test_a_keyring_of_the_environment_is_rolled_out_by_hand(
    ours: tuple[Shell, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`add` and `use` print what to roll out; `rotate` seals the rest anew; `retire` says what may be taken out."""
    shell, dsn = ours
    first = (tmp_path / "keyring.json").read_text()
    monkeypatch.setenv("POSTHOUSE_KEYRING", first)
    ring = parse(first, "x")
    on(dsn, lambda database: DataKeys("default", database, LocalKeys(ring), FakeClock()).for_sealing("acme"))
    assert "`posthouse keyring add`" in shell.fails("keyring", "rotate")
    grown = shell.ok("keyring", "add")
    assert (json.loads(grown)["current"], list(json.loads(grown)["keys"])) == (1, ["1", "2"])
    monkeypatch.setenv("POSTHOUSE_KEYRING", grown)
    assert "`posthouse keyring use 2`" in shell.fails("keyring", "rotate")
    monkeypatch.setenv("POSTHOUSE_KEYRING", shell.ok("keyring", "use", "2"))
    assert "1 data keys wrapped anew" in shell.ok("keyring", "rotate")
    assert on(dsn, counts) == {2: 1}
    assert "take it out of POSTHOUSE_KEYRING" in shell.ok("keyring", "retire", "1")
    monkeypatch.setenv("POSTHOUSE_KEYRING", parse(grown, "x").with_current(2).without(1).to_json())
    assert "versions   2" in shell.ok("keyring", "status")
    assert (tmp_path / "keyring.json").read_text() == first
