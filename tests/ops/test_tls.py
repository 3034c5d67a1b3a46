"""On somebody's PostgreSQL instead of our own: TLS that is verified, and the oldest version that we support."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

import asyncpg
import pytest
from pydantic import SecretStr

from gateway import ids, migrate
from gateway.reach import Unreached, connect
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.stream.append import NewEvent
from gateway.vault.keyring import generate
from tests.clock import FakeClock
from tests.ops.certificates import Authority
from tests.ops.debian_postgres import Server, binaries, running

PASSWORD = "hush-hush"


@dataclass(frozen=True)
class Encrypted:
    """A server that lets the user `app` in by TLS and password only, with a certificate for `localhost`."""

    server: Server
    authority: Path
    stranger: Path  # another authority's certificate

    def dsn(self, *, host: str = "localhost", database: str = "postgres", root: Path | None = None) -> str:
        root_file = quote(str(root or self.authority))
        return (
            f"postgresql://app:{PASSWORD}@{host}:{self.server.port}/{database}"
            f"?sslmode=verify-full&sslrootcert={root_file}"
        )


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    """Debian's PostgreSQL, since the embedded one is built without TLS."""
    found = binaries()
    if found is None:
        pytest.skip("no PostgreSQL under /usr/lib/postgresql (Debian: apt-get install postgresql): TLS is not tested")
    if found.stat().st_uid == 0 and shutil.which("setpriv") is None:
        pytest.skip("no setpriv, which runs PostgreSQL as another user than root: TLS is not tested")
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority.make("ours"), Authority.make("somebody else's")
    certificate, key = authority.sign("localhost")
    for name, pem in (("ours.pem", authority.pem), ("stranger.pem", stranger.pem)):
        (folder / name).write_text(pem)
    files = {
        "server.pem": certificate,
        "server.key": key,
        "hba": "local all all trust\nhostssl all app 127.0.0.1/32 scram-sha-256\n",
    }
    with running(found, _free_port(), files=files, settings=TLS) as server:
        asyncio.run(_make_user(server))
        yield Encrypted(server, folder / "ours.pem", folder / "stranger.pem")


TLS = {
    "ssl": "on",
    "ssl_cert_file": "{folder}/server.pem",
    "ssl_key_file": "{folder}/server.key",
    "hba_file": "{folder}/hba",
}


async def test_everything_runs_over_verified_tls(encrypted: Encrypted, tmp_path: Path, clock: FakeClock) -> None:
    """Migrations, pool, appender and listener; on the oldest supported version where Debian has that."""
    name = f"tls_{token_hex(4)}"
    owner = await asyncpg.connect(encrypted.server.dsn)
    try:
        await owner.execute(f"CREATE DATABASE {name} OWNER app")
        settings = Settings(
            database_url=SecretStr(encrypted.dsn(database=name)), home=tmp_path, keyring=SecretStr(generate().to_json())
        )
        assert await migrate.migrate_all(settings) == [
            "control 0001",
            "control 0002",
            "region 0001",
            "region 0002",
            "region 0003",
            "region 0004",
        ]
        await migrate.check_all(settings)
        gateway = await Gateway.open(settings, clock)
        try:
            now, key = clock.now(), ids.uuid7(clock.now())
            event = NewEvent(
                key, key, 3600, "posthouse.test", now, None, None, (), False, False, "text/plain", b"{}", b"hello"
            )  # fmt: skip
            [kept] = await gateway.regions.home.appender.keep([event])
            [again] = await gateway.regions.home.appender.keep([event])
            assert (kept.duplicate, again.duplicate) == (False, True)
            assert await gateway.control.fetchval("SELECT data FROM gateway.events") == b"hello"
            plain = await owner.fetchval(
                "SELECT count(*) FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE a.datname = $1 AND NOT s.ssl",
                name,
            )
            assert plain == 0
        finally:
            await gateway.close()
    finally:
        await owner.close()


@pytest.mark.parametrize("wrong", ["authority", "host", "no authority's file", "password"])
async def test_whoever_cannot_prove_to_be_the_database_gets_no_password(wrong: str, encrypted: Encrypted) -> None:
    """One line that says what is wrong, with no secret in it; waiting would not help."""
    dsn, says = {
        "authority": (encrypted.dsn(root=encrypted.stranger), "shows a certificate that does not pass"),
        "host": (encrypted.dsn(host="127.0.0.1"), "IP address mismatch"),
        "no authority's file": (
            encrypted.dsn(root=Path("/gone.pem")),
            "the file that sslrootcert names .* cannot be read",
        ),
        "password": (encrypted.dsn().replace(PASSWORD, "hush-wrong"), "refuses the login"),
    }[wrong]
    with pytest.raises(Unreached, match=says) as refused:
        await connect(dsn)
    assert not refused.value.passing
    assert "hush" not in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_server_without_tls_is_refused_instead_of_talked_to_in_clear(encrypted: Encrypted) -> None:
    """verify-full never falls back."""
    owner = await asyncpg.connect(encrypted.server.dsn)
    try:
        await owner.execute("ALTER SYSTEM SET ssl = off")
        await owner.execute("SELECT pg_reload_conf()")
        with pytest.raises(Unreached, match="does not offer TLS"):
            await connect(encrypted.dsn())
    finally:
        await owner.execute("ALTER SYSTEM RESET ssl")
        await owner.execute("SELECT pg_reload_conf()")
        await owner.close()


async def _make_user(server: Server) -> None:
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
    finally:
        await connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
