"""One process from its start to its end, as a container platform sees it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import asyncpg
import pytest

from gateway.access import keys
from gateway.database import Database
from gateway.integrations import store
from gateway.integrations.wanted import Wanted
from gateway.vault.keyring import Keyring, generate
from tests.ops.processes import Command, free_port, posthouse
from tests.signers import SIGNERS

GITHUB = SIGNERS["github"]


@pytest.fixture
def environment(dsn: str, keyring: Keyring, tmp_path: Path) -> dict[str, str]:
    """Settings of a process on this test's database, on ports of its own."""
    return {
        "database_url": dsn, "keyring": keyring.to_json(), "home": str(tmp_path), "drain_pause_s": "0",
        "public_listen": "127.0.0.1:0", "private_listen": "127.0.0.1:0",
    }  # fmt: skip


@pytest.fixture
async def key(database: Database, keyring: Keyring) -> str:
    """An API key; and an integration `hub` beside it."""
    now = datetime.now(UTC)
    async with database.transaction() as tx:
        wanted = Wanted(name="hub", provider="github", secrets={"signing_secrets": GITHUB.secrets[:1]})
        await store.create(tx, keyring, wanted, now, by="api")
        return (await keys.create(tx, keyring, now, name="test")).token


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def urls(command: Command) -> tuple[str, str]:
    """Public and private, once it is ready."""
    line = await command.until("ready")
    found = re.findall(r"=(http://\S+)", line)
    return found[0], found[1]


def delivery(url: str, delivery_id: str) -> tuple[bytes, dict[str, str]]:
    body = GITHUB.bodies[0]
    return body, GITHUB.headers(body, GITHUB.secrets[0], datetime.now(UTC), delivery_id=delivery_id, url=url)


class HalfSent:
    """A delivery of which the server has the headers and half of the body."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes) -> None:
        self._reader, self._writer, self._rest = reader, writer, rest

    @classmethod
    async def start(cls, public: str, delivery_id: str) -> HalfSent:
        parts = urlsplit(public)
        body, headers = delivery(f"{public}/hooks/hub", delivery_id)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        lines = [f"{name}: {value}" for name, value in {**headers, "content-length": str(len(body))}.items()]
        head = "\r\n".join(
            ["POST /hooks/hub HTTP/1.1", f"host: {parts.netloc}", "expect: 100-continue", *lines, "", ""]
        )
        writer.write(head.encode())
        assert b"100 Continue" in await reader.readuntil(b"\r\n\r\n")  # so it was accepted
        writer.write(body[:10])
        await writer.drain()
        return cls(reader, writer, body[10:])

    async def finish(self) -> int:
        """Send the rest; the status of the answer."""
        self._writer.write(self._rest)
        status = int((await self._reader.readline()).split()[1])
        await self.drop()
        return status

    async def drop(self) -> None:
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


async def test_sigterm_turns_it_unready_closes_streams_with_their_cursor_and_finishes_what_it_accepted(
    environment: dict[str, str], key: str, dsn: str, http: aiohttp.ClientSession
) -> None:
    """Not ready at once, but serving; then the stream ends, the half-sent delivery is kept, and the status is 0."""
    bearer = {"authorization": f"Bearer {key}"}
    async with posthouse("serve", settings={**environment, "drain_pause_s": "3"}) as command:
        public, private = await urls(command)
        assert (await http.get(f"{private}/healthz")).status == 200
        assert (await http.get(f"{private}/readyz")).status == 200
        half = await HalfSent.start(public, "00000000-0000-4000-8000-000000000001")
        stream = await http.get(f"{private}/v1/events/stream", headers=bearer)
        assert (await stream.content.readline()).startswith(b"retry")

        command.process.send_signal(signal.SIGTERM)
        while (await http.get(f"{private}/readyz")).status == 200:
            pass
        assert (await http.get(f"{private}/healthz")).status == 200
        body, headers = delivery(f"{public}/hooks/hub", "00000000-0000-4000-8000-000000000002")
        late = await http.post(f"{public}/hooks/hub", data=body, headers=headers)
        assert late.status == 200

        told = (await stream.content.read()).decode()
        assert "event: posthouse.delivery.github." in told
        closing = re.search(r"id: (\S+)\nevent: posthouse\.stream\.closing\ndata: (.+)\n", told)
        assert closing
        assert json.loads(closing[2]) == {"cursor": closing[1]}
        await _refuses_connections(private)
        assert await half.finish() == 200
        assert await command.ended() == 0
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT count(*) FROM gateway.events") == 2
    finally:
        await connection.close()


async def test_a_second_signal_means_now(environment: dict[str, str], key: str) -> None:
    """Whoever still sends is cut off: nothing of that was acknowledged."""
    async with posthouse("serve", settings=environment) as command:
        public, private = await urls(command)
        half = await HalfSent.start(public, "00000000-0000-4000-8000-000000000003")
        command.process.send_signal(signal.SIGTERM)
        await _refuses_connections(private)
        assert command.process.returncode is None
        command.process.send_signal(signal.SIGTERM)
        assert await command.ended() == 0
        assert "serve.cut" in await command.errors()
        await half.drop()


async def test_it_starts_before_its_database_and_is_ready_when_that_is_there(
    environment: dict[str, str], dsn: str, http: aiohttp.ClientSession
) -> None:
    """Containers start in any order: alive, not ready, deliveries 503 with Retry-After; then it comes up by itself."""
    public, private = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    away = f"127.0.0.1:{free_port()}"
    settings = {
        **environment, "public_listen": public, "private_listen": private,
        "database_url": f"postgresql://posthouse@{away}{urlsplit(dsn).path}?sslmode=disable",
    }  # fmt: skip
    async with posthouse("serve", settings=settings) as command:
        assert b"serve.waiting" in await asyncio.wait_for(_line(command), 30)
        assert (await http.get(f"http://{private}/healthz")).status == 200
        assert (await http.get(f"http://{private}/readyz")).status == 503
        refused = await http.post(f"http://{public}/hooks/hub", data=b"x")
        assert (refused.status, refused.headers["retry-after"]) == (503, "2")
        async with _way_to(dsn, away):
            await command.until("ready")
            assert (await http.get(f"http://{private}/readyz")).status == 200
            command.process.send_signal(signal.SIGTERM)
            assert await command.ended() == 0


async def test_the_stream_is_tailed_from_the_command_line(
    environment: dict[str, str], key: str, http: aiohttp.ClientSession
) -> None:
    """A line an event, or JSON for programs; a wrong key or address is one line."""
    async with posthouse("serve", settings=environment) as command:
        public, private = await urls(command)
        client = {**environment, "api_key": key, "url": private}
        body, headers = delivery(f"{public}/hooks/hub", "00000000-0000-4000-8000-000000000004")
        assert (await http.post(f"{public}/hooks/hub", data=body, headers=headers)).status == 200
        arguments = ("events", "tail", "--after", "earliest", "-n", "1")
        async with (
            posthouse(*arguments, settings=client) as plain,
            posthouse(*arguments, "--json", settings=client) as told,
        ):
            assert await plain.ended() == 0
            assert re.search(r"Z  posthouse\.delivery\.github\.\S+  hub  -  \d+ bytes\n$", await plain.rest())
            assert await told.ended() == 0
            assert json.loads(await told.rest())["data"] == json.loads(body)
        for change, says in ({"api_key": "ph_wrong"}, "401"), ({"url": "http://127.0.0.1:1"}, "the gateway"):
            async with posthouse(*arguments, settings={**client, **change}) as refused:
                assert await refused.ended() == 1
                said = await refused.errors()
                assert says in said
                assert said.count("\n") == 1


async def test_a_worker_has_no_public_listener(environment: dict[str, str], http: aiohttp.ClientSession) -> None:
    """`--only worker`: probes and metrics on the private one."""
    async with posthouse("serve", "--only", "worker", settings=environment) as command:
        line = await command.until("ready")
        assert "public=-" in line
        private = line.split("private=")[1].strip()
        assert (await http.get(f"{private}/metrics")).status == 200
        command.process.send_signal(signal.SIGINT)
        assert await command.ended() == 0


async def test_two_processes_share_a_port_if_both_are_told_to(environment: dict[str, str]) -> None:
    """`--reuse-port`; without it the second says in one line that the port is taken."""
    public, private = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = {**environment, "public_listen": public, "private_listen": private}
    async with posthouse("serve", "--reuse-port", settings=settings) as first:
        await first.until("ready")
        async with posthouse("serve", "--reuse-port", settings=settings) as second:
            await second.until("ready")
        async with posthouse("serve", settings=settings) as third:
            assert await third.ended() == 1
            said = await third.errors()
            assert said.startswith(f"posthouse: cannot listen on {public} (POSTHOUSE_PUBLIC_LISTEN)")
            assert said.count("\n") == 1


@pytest.mark.parametrize("wrong", ["schema", "keyring", "database", "password in a bad url", "listen"])
async def test_what_waiting_cannot_mend_ends_it_with_one_line(
    wrong: str, environment: dict[str, str], dsn: str, database: Database, key: str
) -> None:
    """Status 1, one line on standard error, no secret in it."""
    changes: Mapping[str, str] = {}
    if wrong == "schema":
        await database.execute("UPDATE gateway.schema_version SET version_num = '0009'")
        says = "start the newer version of posthouse"
    elif wrong == "keyring":
        async with posthouse("serve", settings=environment) as right:  # the first start ever notes whose keyring it is
            await right.until("ready")
        changes, says = {"keyring": generate().to_json()}, "not the keyring that `control` was sealed with"
    elif wrong == "database":
        changes, says = {"database_url": dsn.replace(urlsplit(dsn).path, "/nowhere")}, "does not exist on that server"
    elif wrong == "listen":
        changes, says = {"public_listen": "192.0.2.1:80"}, "cannot listen on 192.0.2.1:80"
    else:
        changes, says = {"database_url": "postgresql://u:hush/hush@127.0.0.1:port/x"}, "is not given as a URL"
    async with posthouse("serve", settings={**environment, **changes}) as command:
        assert await command.ended() == 1
        lines = [line for line in (await command.errors()).splitlines() if not line.startswith("{")]  # its log is JSON
        assert len(lines) == 1
        assert says in lines[0]
        assert "hush" not in lines[0]


async def _refuses_connections(url: str) -> None:
    """Once it does: the process has stopped to listen."""
    parts = urlsplit(url)
    while True:
        try:
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        except ConnectionRefusedError:
            return
        except ConnectionResetError:  # it closed while we knocked
            continue
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def _line(command: Command) -> bytes:
    assert command.process.stderr is not None
    return await command.process.stderr.readline()


class _way_to:  # noqa: N801  (used like a function)
    """A TCP port that leads to the test's PostgreSQL, which itself listens on a unix socket only."""

    def __init__(self, dsn: str, address: str) -> None:
        query = parse_qs(urlsplit(dsn).query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._host, self._port = address.split(":")
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> None:
        self._server = await asyncio.start_server(self._connected, self._host, int(self._port))

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._socket)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pump(source, sink))
            self._tasks.add(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except (ConnectionError, OSError):
            pass
        finally:
            sink.close()
