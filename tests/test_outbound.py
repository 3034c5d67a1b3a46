"""The one way out over real sockets: where it goes, where it does not, and how much of an answer it takes."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from structlog.testing import capture_logs

from gateway import metrics
from gateway.outbound import NEVER_SENT, Hosts, Outbound, hosts_of
from gateway.outbound.addresses import is_public, networks_of
from gateway.outbound.targets import read
from gateway.settings import Settings
from providers.calls import Request, Response
from providers.errors import Misconfigured, NotAllowed, OddAnswer, ProviderError, Unreachable
from providers.oauth import App, OAuthFacts, token_request
from tests.clock import FakeClock

LOOPBACK = "127.0.0.0/8"
NAME = "api.posty.example"


def settings_with(*allow: str) -> Settings:
    return Settings(_env_file=None, outbound_allow=allow)


@dataclass
class Names:
    """A name server: each look-up of a name gets the next of its answers, the last one for ever."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        left = self.answers.get(host)
        if not left:
            raise OSError("no such name")
        return left.pop(0) if len(left) > 1 else left[0]


@dataclass
class Server:
    """Answers by real HTTP, as each test says, and keeps what it was asked."""

    base: str = ""
    heard: list[web.Request] = field(default_factory=list)
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(request)
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=b'{"hello": "world"}', headers=[("X-Two", "a"), ("X-Two", "b")])

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made, app = Server(), web.Application()
    app.router.add_route("*", "/{any:.*}", made.handle)
    running = TestServer(app, host="127.0.0.1")
    await running.start_server()
    made.base = str(running.make_url("")).rstrip("/")
    yield made
    await running.close()


@pytest.fixture
async def outbound(clock: FakeClock) -> AsyncIterator[Outbound]:
    """As an operator sets it who tries things on this machine."""
    made = Outbound(settings_with(LOOPBACK), clock)
    yield made
    await made.close()


async def get(outbound: Outbound, url: str, *hosts: str, **more: float) -> Response:
    listed = hosts or (read(url).place,)
    return await outbound.for_provider("posty", operator_hosts=listed, **more).send(Request("GET", url))  # type: ignore[arg-type]


async def test_a_call_and_its_answer(outbound: Outbound, server: Server) -> None:
    """Body, status and headers; on a second call nothing of the first is left (cookies)."""

    async def answer(request: web.Request) -> web.Response:
        reply = web.Response(status=201, body=await request.read(), headers=[("X-Two", "a"), ("X-Two", "b")])
        reply.set_cookie("session", "one")
        return reply

    server.answer = answer
    http = outbound.for_provider("posty", operator_hosts=[f"127.0.0.1:{server.port}"], kind="token")
    before = metrics.OUTBOUND_CALLS.labels("posty", "token", "2xx")._value.get()
    with capture_logs() as logs:
        for _ in range(2):
            sent = Request("POST", f"{server.base}/a%2Fb?q=%20hunter2", {"authorization": "Bearer hunter2"}, b"body")
            got = await http.send(sent)
            assert (got.status, got.body, got.headers["x-two"]) == (201, b"body", "a, b")
    assert [request.headers.get("cookie") for request in server.heard] == [None, None]
    assert server.heard[0].raw_path == "/a%2Fb?q=%20hunter2"
    assert server.heard[0].headers["authorization"] == "Bearer hunter2"
    assert metrics.OUTBOUND_CALLS.labels("posty", "token", "2xx")._value.get() == before + 2
    assert "hunter2" not in repr(logs)
    assert logs[0]["host"] == "127.0.0.1"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1",
        "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::1", "2002:808:808::1",
        "2001::1", "2001:db8::1", "3fff::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1", "100::1",
        "5f00::1", "not an address",
    ],
)  # fmt: skip
async def test_a_name_that_leads_inward_is_not_called(clock: FakeClock, address: str) -> None:
    """Whatever range it is; no connection is tried, and the error tells neither address nor path."""
    names = Names({NAME: [[address]]})
    outbound = Outbound(settings_with(), clock, names)
    with pytest.raises(NotAllowed) as refused:
        await get(outbound, f"https://{NAME}/secret?x=hunter2")
    assert refused.value.code == str(refused.value) == "address_not_public"
    assert names.asked == [NAME]
    await outbound.close()


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1", "2a00:1450::5"],
)  # fmt: skip
def test_public_addresses_are(address: str) -> None:
    """Also inside a mapping."""
    assert is_public(ip_address(address))


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: object) -> None:
    """Our table is at least as strict as the library's, where that one looks at an address by itself."""
    parsed = ip_address(str(address))
    if not parsed.is_global or parsed.is_multicast or parsed.is_loopback:
        mapped = getattr(parsed, "ipv4_mapped", None)
        assert mapped is not None or not is_public(parsed)


async def test_a_name_with_public_and_private_addresses_is_refused(clock: FakeClock, server: Server) -> None:
    """Whichever comes first: that is an attack, or a set-up that would fail half of the time."""
    for answer in (["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["2606:4700::1", "fd00::1"]):
        outbound = Outbound(settings_with(), clock, Names({NAME: [answer]}))
        with pytest.raises(NotAllowed, match="address_not_public"):
            await get(outbound, f"https://{NAME}:{server.port}/")
        await outbound.close()
    assert server.heard == []


async def test_a_name_that_changes_its_address_gains_nothing(clock: FakeClock, server: Server) -> None:
    """DNS rebinding: the address that was checked is the one that is called, and it is looked up once a connection.

    (To see where a call goes, "public" is one loopback range here and the forbidden one another.)
    """
    rebinding = Names({"rebind.example": [["127.0.0.1"], ["127.9.9.9"]]})
    outbound = Outbound(settings_with("127.0.0.0/16"), clock, rebinding)
    url = f"http://rebind.example:{server.port}/"
    assert (await get(outbound, url)).status == 200
    assert rebinding.asked == ["rebind.example"]
    assert server.heard[0].transport is not None
    assert server.heard[0].headers["host"] == f"rebind.example:{server.port}"
    # The next connection asks again, and the answer is checked again.
    http = outbound.for_provider("posty", operator_hosts=[f"rebind.example:{server.port}"])
    with pytest.raises(NotAllowed, match="address_not_public"):
        await http.send(Request("POST", url))
    assert len(server.heard) == 1
    await outbound.close()


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://169.254.169.254/latest/meta-data", "https://[::1]/", "https://10.1.2.3/",
        "https://8.8.8.8/", "https://[2606:4700::1]/", "https://[::ffff:7f00:1]/", "https://0.0.0.0/", "http://127.0.0.1/",
    ],
)  # fmt: skip
async def test_an_address_in_a_url_is_for_the_operator_to_allow(clock: FakeClock, url: str) -> None:
    """Listed as a host or not: no provider lives at a bare address, so only `outbound_allow` opens it."""
    outbound = Outbound(settings_with(), clock)
    with pytest.raises(NotAllowed, match="address_not_public"):
        await get(outbound, url)
    await outbound.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://2130706433/", "odd_address"), ("https://0x7f000001/", "odd_address"), ("https://0x7f.1/", "odd_address"),
        ("https://0177.0.0.1/", "odd_address"), ("https://127.1/", "odd_address"), ("https://127.0.0.01/", "odd_address"),
        ("https://1.2.3.4.5/", "odd_address"), ("https://a.b.0x/", "odd_address"), ("https://999.1.1.1/", "odd_address"),
        ("https://[::ffff:127.0.0.1]/", "odd_address"), ("https://[0:0::1]/", "odd_address"),
        ("https://127.0.0.1./", "odd_url"), ("https://posty.example./", "odd_url"), ("https://[fe80::1%25lo]/", "odd_url"),
        ("https://user@posty.example/", "odd_url"), ("https://posty.example@evil.example/", "odd_url"),
        ("https://user:pw@posty.example/", "odd_url"), ("https://posty.example:x/", "odd_url"),
        ("https://posty.example:/", "odd_url"), ("https://posty.example:0/", "odd_url"), ("https://posty.example:99999/", "odd_url"),
        ("https://posty.example\\@evil.example/", "odd_url"), ("https://posty.example/#x", "odd_url"),
        ("https://posty.example\n/", "odd_url"), (" https://posty.example/", "odd_url"), ("https://posty.example/\n", "odd_url"),
        ("https://pósty.example/", "odd_url"), ("https://ⓟosty.example/", "odd_url"), ("https://posty。example/", "odd_url"),
        ("https://１２７.0.0.1/", "odd_url"), ("https://posty%2eexample/", "odd_url"), ("https://-posty.example/", "odd_url"),
        ("https://posty..example/", "odd_url"), ("https://", "odd_url"), ("https:///x", "odd_url"), ("//posty.example/", "odd_url"),
        ("https:posty.example", "odd_url"), ("HTTPS://posty.example/", "odd_url"), ("ftp://posty.example/", "odd_url"),
        ("file:///etc/passwd", "odd_url"), ("gopher://posty.example/", "odd_url"), ("", "odd_url"), ("https://[::1/", "odd_url"),
        ("https://posty.example/" + "x" * 9000, "odd_url"),
        ("https://evil.example/", "host_not_listed"), ("https://posty.example.evil.example/", "host_not_listed"),
        ("https://evil.posty.example/", "host_not_listed"), ("https://posty.example:8443/", "host_not_listed"),
        ("https://posty.example:80/", "host_not_listed"), ("https://xn--psty-5qa.example/", "host_not_listed"),
    ],
)  # fmt: skip
async def test_only_the_listed_host_and_only_in_one_spelling(clock: FakeClock, url: str, why: str) -> None:
    """Nothing is looked up for the others."""
    names = Names({})
    outbound = Outbound(settings_with(LOOPBACK), clock, names)
    with pytest.raises(NotAllowed) as refused:
        await get(outbound, url, "posty.example")
    assert refused.value.code == why
    assert names.asked == []
    await outbound.close()


@given(st.text(max_size=12), st.text(alphabet="@:/\\#?.[]%x1", max_size=8))
def test_no_user_chosen_part_leaves_the_domain(part: str, tail: str) -> None:
    """Whatever stands for `{shop}`: either the URL is refused, or it is one label before the domain."""
    url = f"https://{part}{tail}.myposty.example/oauth/token"
    try:
        target = read(url)
    except NotAllowed:
        return
    if Hosts(fixed=frozenset({"*.myposty.example"})).allow(target, client_secret=True):
        assert target.host == f"{part}{tail}.myposty.example".lower()
        assert target.url.raw_host == target.host
        assert target.host.count(".") == 2


def test_a_label_pattern_is_for_names() -> None:
    """Exactly one label for each `*`, and never a piece of an address."""
    allowed = Hosts(fixed=frozenset({"*.posty.example", "*.0.0.1"}))
    for url, allow in (
        ("https://a.posty.example/", True), ("https://xn--psty-5qa.posty.example/", True), ("https://posty.example/", False),
        ("https://a.b.posty.example/", False), ("https://a.posty.example:444/", False), ("https://127.0.0.1/", False),
    ):  # fmt: skip
        assert allowed.allow(read(url), client_secret=True) is allow, url


async def test_plain_http_is_for_allowed_addresses_only(clock: FakeClock) -> None:
    """A public address by http is refused though its host is listed."""
    outbound = Outbound(settings_with(LOOPBACK), clock, Names({NAME: [["8.8.8.8"]]}))
    with pytest.raises(NotAllowed, match="address_not_public"):
        await get(outbound, f"http://{NAME}/")
    await outbound.close()


async def test_a_client_secret_goes_to_hosts_that_the_operator_fixed(outbound: Outbound, server: Server) -> None:
    """A host that a user chose gets calls, and no secrets."""
    place = f"127.0.0.1:{server.port}"
    chosen = outbound.for_provider("posty", hosts=[place])
    assert (await chosen.send(Request("POST", server.base + "/api"))).status == 200
    with pytest.raises(NotAllowed, match="secret_not_for_this_host"):
        await chosen.send(Request("POST", server.base + "/token", carries_client_secret=True))
    fixed = outbound.for_provider("posty", operator_hosts=[place])
    assert (await fixed.send(Request("POST", server.base + "/token", carries_client_secret=True))).status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["/inside", "http://127.0.0.2:9/", "http://169.254.169.254/", "https://evil.example/"])
async def test_a_redirect_is_an_answer_like_any_other(outbound: Outbound, server: Server, status: int, to: str) -> None:
    """Nobody goes there."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": to})

    server.answer = answer
    got = await get(outbound, server.base + "/")
    assert (got.status, got.headers["location"]) == (status, to)
    assert len(server.heard) == 1


async def test_proxies_and_logins_of_the_environment_are_not_ours(
    outbound: Outbound, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy would resolve names by itself, and see what we send; a .netrc would send a login."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert (await get(outbound, server.base + "/")).status == 200
    assert "authorization" not in server.heard[0].headers


async def test_a_body_of_100_mb_is_cut(outbound: Outbound, server: Server) -> None:
    """Soon after the bound, announced or not; the connection is not kept."""
    poured = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal poured
        reply = web.StreamResponse()
        await reply.prepare(request)
        for _ in range(1600):
            await reply.write(b"x" * 65536)
            poured += 65536
        return reply

    server.answer = pour
    with pytest.raises(OddAnswer, match="too_large"):
        await get(outbound, server.base + "/")
    assert poured < 30_000_000


async def test_an_answer_at_the_bound_is_whole_and_one_byte_more_is_refused(outbound: Outbound, server: Server) -> None:
    """Also when it is packed."""
    for pack in (bytes, gzip.compress, zlib.compress):
        for size in (1000, 1001):

            async def answer(request: web.Request, body: bytes = pack(b"x" * size)) -> web.Response:
                coding = {b"\x1f\x8b": "gzip", b"x\x9c": "deflate"}.get(body[:2])
                return web.Response(body=body, headers={"Content-Encoding": coding} if coding else {})

            server.answer = answer
            if size == 1000:
                assert (await get(outbound, server.base + "/", max_bytes=1000)).body == b"x" * 1000
            else:
                with pytest.raises(OddAnswer, match="too_large"):
                    await get(outbound, server.base + "/", max_bytes=1000)


async def test_a_gzip_bomb_is_not_unpacked(outbound: Outbound, server: Server) -> None:
    """200 MB in 200 KB: what would come behind the bound is never made."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    assert len(bomb) < 250_000

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    server.answer = answer
    tracemalloc.start()
    with pytest.raises(OddAnswer, match="too_large"):
        await get(outbound, server.base + "/")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize(
    ("coding", "body"), [("br", b"x"), ("gzip", b"no gzip"), ("gzip", gzip.compress(b"x" * 99, mtime=0)[:-9]), ("gzip, gzip", b"")]
)  # fmt: skip
async def test_what_cannot_be_unpacked_is_odd(outbound: Outbound, server: Server, coding: str, body: bytes) -> None:
    """We ask for none of it."""

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["accept-encoding"] == "identity"
        return web.Response(body=body, headers={"Content-Encoding": coding})

    server.answer = answer
    with pytest.raises(OddAnswer, match="odd_encoding"):
        await get(outbound, server.base + "/")


async def test_a_hanging_server_costs_the_deadline_and_no_more(outbound: Outbound, server: Server) -> None:
    """Before the answer, and in the middle of it: the request was sent, so nobody knows what became of it."""
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        if request.path == "/late":
            reply = web.StreamResponse()
            await reply.prepare(request)
            await reply.write(b"x")
            await release.wait()
            return reply
        await release.wait()
        return web.Response()

    server.answer = hang
    for path in ("/never", "/late"):
        with pytest.raises(Unreachable) as error:
            await get(outbound, server.base + path, deadline_s=0.2)
        assert error.value.code == "timed_out"
        assert error.value.code not in NEVER_SENT
    release.set()


async def test_past_its_deadline_a_call_does_not_begin(outbound: Outbound, server: Server) -> None:
    """Looked at just before the first byte (PROTOCOLS 5): a timer alone fires too late where the loop was held up."""
    assert (await get(outbound, server.base + "/1")).status == 200  # its connection is kept, and is there at once
    with pytest.raises(Unreachable) as error:
        await get(outbound, server.base + "/2", deadline_s=0)
    assert error.value.code in NEVER_SENT
    assert (await get(outbound, server.base + "/3")).status == 200
    assert [request.path for request in server.heard] == ["/1", "/3"]


async def test_after_the_end_nothing_is_called(outbound: Outbound, server: Server) -> None:
    """And no session is opened that nobody would close."""
    await outbound.close()
    with pytest.raises(Unreachable, match="closed"):
        await get(outbound, server.base + "/")
    assert server.heard == []


async def test_a_name_server_that_hangs_costs_the_deadline_and_nothing_was_sent(clock: FakeClock) -> None:
    """Both bounds: of the connection, and of the whole."""

    async def hang(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    outbound = Outbound(settings_with(), clock, hang)
    for bounds in ({"connect_s": 0.05, "deadline_s": 60.0}, {"connect_s": 60.0, "deadline_s": 0.05}):
        with pytest.raises(Unreachable) as error:
            await get(outbound, f"https://{NAME}/", **bounds)
        assert error.value.code == "connect_timed_out"
    await outbound.close()


async def speak(data: bytes) -> tuple[asyncio.Server, int]:
    """A server that says `data` to whatever it hears, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("data", "error", "code"),
    [
        (b"", Unreachable, "cut_off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", Unreachable, "cut_off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", OddAnswer, "odd_http"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", OddAnswer, "odd_http"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", OddAnswer, "odd_http"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", OddAnswer, "odd_http"),
    ],
)  # fmt: skip
async def test_what_is_no_answer(outbound: Outbound, data: bytes, error: type[ProviderError], code: str) -> None:
    """Hung up, cut short, not HTTP, headers without end: each has its error; none of them quotes anything."""
    server, port = await speak(data)
    with pytest.raises(error) as raised:
        await get(outbound, f"http://127.0.0.1:{port}/?hunter2")
    assert raised.value.code == str(raised.value) == code
    assert raised.value.__suppress_context__
    server.close()


async def test_nobody_there_and_no_such_name(clock: FakeClock) -> None:
    """Both are known to have sent nothing."""
    outbound = Outbound(settings_with(LOOPBACK), clock, Names({NAME: [["127.0.0.1"]]}))
    for host, code in ((NAME, "connect_failed"), ("nowhere.example", "name_unknown")):
        with pytest.raises(Unreachable) as error:
            await get(outbound, f"http://{host}:9/")
        assert error.value.code == code
        assert code in NEVER_SENT
    await outbound.close()


async def test_a_post_never_goes_out_on_a_connection_that_was_kept(outbound: Outbound, server: Server) -> None:
    """A GET does: it may be asked again when the server hangs up under it."""
    ports: dict[str, list[object]] = {"GET": [], "POST": []}

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports[request.method].append(request.transport.get_extra_info("peername")[1])
        return web.Response()

    server.answer = answer
    http = outbound.for_provider("posty", operator_hosts=[f"127.0.0.1:{server.port}"])
    for method in ("GET", "POST", "GET", "POST"):
        await http.send(Request(method, server.base + "/"))
    assert len(set(ports["GET"])) == 1
    assert len(set(ports["POST"])) == 2


@pytest.mark.parametrize("header", [{"x": "a\r\nHost: evil"}, {"x\r\n": "y"}])
async def test_what_http_cannot_carry_is_not_sent(outbound: Outbound, server: Server, header: dict[str, str]) -> None:
    """No header is smuggled in by a value; a method is one of HTTP's."""
    http = outbound.for_provider("posty", operator_hosts=[f"127.0.0.1:{server.port}"])
    with pytest.raises(NotAllowed, match="odd_request"):
        await http.send(Request("GET", server.base + "/", header))
    with pytest.raises(NotAllowed, match="odd_method"):
        await http.send(Request("GET / HTTP/1.1\r\nX: y\r\n", server.base + "/"))
    assert server.heard == []


def certificate(name: str, folder: Path) -> tuple[Path, Path]:
    """A certificate for `name` that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_tls_is_with_the_host_that_was_named(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a pinned address too: its certificate must be the name's, by an authority that we trust."""
    cert, key = certificate(NAME, tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    named: list[object] = []
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    made, app = Server(), web.Application()
    app.router.add_get("/", made.handle)
    running = TestServer(app, host="127.0.0.1", scheme="https")
    await running.start_server(ssl=context)
    port = running.port
    names = Names({NAME: [["127.0.0.1"]], "other.example": [["127.0.0.1"]]})
    stranger = Outbound(settings_with(LOOPBACK), clock, names)
    with pytest.raises(Unreachable, match="tls_failed"):
        await get(stranger, f"https://{NAME}:{port}/")
    await stranger.close()
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    trusting = Outbound(settings_with(LOOPBACK), clock, names)
    assert (await get(trusting, f"https://{NAME}:{port}/")).status == 200
    with pytest.raises(Unreachable) as error:
        await get(trusting, f"https://other.example:{port}/")
    assert error.value.code == "tls_failed"
    assert error.value.code in NEVER_SENT
    await trusting.close()
    await running.close()
    assert named == [NAME, NAME, "other.example"]
    assert len(made.heard) == 1


def facts(**more: object) -> OAuthFacts:
    return OAuthFacts(**{"authorize_url": "https://www.example/a", "token_url": "https://posty.example/token", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "settings", "parts", "fixed", "chosen"),
    [
        ({}, {}, {}, {"posty.example"}, set()),
        ({"api_hosts": ("api.posty.example", "*.my.posty.example")}, {}, {},
         {"posty.example", "api.posty.example", "*.my.posty.example"}, set()),
        # the operator's own server, with the port it has
        ({"token_url": "{base_url}/token"}, {"base_url": "http://127.0.0.1:7000"}, {"base_url": "http://127.0.0.1:7000"},
         {"127.0.0.1:7000"}, set()),
        # a user's shop under the provider's domain, and a user's own server
        ({"token_url": "https://{shop}.myposty.example/token", "user_parts": {"shop": "[a-z]+"}}, {}, {"shop": "blue"},
         {"*.myposty.example"}, set()),
        ({"token_url": "https://{host}/token", "user_parts": {"host": "[a-z.]+"}}, {}, {"host": "git.corp.example"},
         set(), {"git.corp.example"}),
        ({"token_url": "https://{host}/token", "user_parts": {"host": "[a-z.]+"}}, {"host": "git.corp.example"},
         {"host": "git.corp.example"}, {"git.corp.example"}, set()),
        ({"token_url": "https://{shop}.{region}.myposty.example/token", "api_base": "https://x.{region}.posty.example:8443"},
         {"region": "eu"}, {"region": "eu", "shop": "blue"}, {"*.eu.myposty.example", "x.eu.posty.example:8443"}, set()),
        ({"token_url": "https://x.{region}.posty.example/token"}, {}, {"region": "eu"}, {"x.*.posty.example"}, set()),
        ({"token_url": "https://x{host}.example/token"}, {}, {"host": "y"}, set(), {"xy.example"}),
        ({"token_url": "https://{host}.example/token"}, {}, {"host": "y"}, set(), {"y.example"}),
        # a part in the path decides no host; one that is missing leaves its URL out
        ({"token_url": "https://posty.example/{tenant}/token"}, {}, {"tenant": "t1"}, {"posty.example"}, set()),
        ({"revoke_url": "{revoke_url}"}, {}, {}, {"posty.example"}, set()),
    ],
)  # fmt: skip
def test_which_hosts_an_integration_may_call(
    told: dict[str, object], settings: dict[str, str], parts: dict[str, str], fixed: set[str], chosen: set[str]
) -> None:
    """From facts, settings and what a session chose."""
    app = App(client_id="id", client_secret="hunter2", settings=settings, parts=parts)
    assert hosts_of(facts(**told), app) == Hosts(frozenset(fixed), frozenset(chosen))


def test_what_a_session_says_never_counts_as_the_setting_of_the_same_name() -> None:
    """Whichever of the two would be called: no secret goes there."""
    app = App(client_id="id", client_secret="s", settings={"host": "git.example"}, parts={"host": "evil.example"})
    assert hosts_of(facts(token_url="https://{host}/token"), app).fixed == frozenset()


async def test_an_integrations_way_out(outbound: Outbound, server: Server) -> None:
    """Its token endpoint may get the secret; nothing else is called."""
    told = facts(token_url="{base_url}/token", revoke_url="{base_url}/revoke")
    app = App(client_id="id", client_secret="s", settings={"base_url": server.base}, parts={"base_url": server.base})
    http = outbound.for_app("posty", told, app, kind="token", deadline_s=5.0)
    assert (await http.send(token_request(told, app, {"grant_type": "x"}))).status == 200
    with pytest.raises(NotAllowed, match="host_not_listed"):
        await http.send(Request("GET", "http://127.0.0.2/"))


@pytest.mark.parametrize("shop", ["evil.example/", "a.b", "", "evil.example#", "x@evil.example/", "A", "x\n"])
def test_a_part_that_is_not_as_its_pattern_says_makes_no_hosts(shop: str) -> None:
    """The whole pattern must match."""
    told = facts(token_url="https://{shop}.myposty.example/token", user_parts={"shop": "[a-z]+"})
    app = App(client_id="id", client_secret="hunter2", parts={"shop": shop})
    if not shop:
        assert hosts_of(told, app) == Hosts()
        return
    with pytest.raises(Misconfigured):
        hosts_of(told, app)


def test_the_operators_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, with commas or as JSON; what is no network is told by its name."""
    for text in ("127.0.0.0/8, fd00::/8", '["127.0.0.0/8", "fd00::/8"]'):
        monkeypatch.setenv("POSTHOUSE_OUTBOUND_ALLOW", text)
        allow = Settings(_env_file=None).outbound_allow
        assert allow == ("127.0.0.0/8", "fd00::/8")
        assert [str(network) for network in networks_of(allow)] == list(allow)
    monkeypatch.setenv("POSTHOUSE_OUTBOUND_ALLOW", "")
    assert Settings(_env_file=None).outbound_allow == ()
    for text in ("localhost", "10.0.0.1/8", "[1", "[1]", "10.0.0.0/99"):
        monkeypatch.setenv("POSTHOUSE_OUTBOUND_ALLOW", text)
        with pytest.raises(ValidationError):
            Settings(_env_file=None)
