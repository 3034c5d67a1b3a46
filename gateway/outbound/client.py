"""The client itself: one call, bounded in time and size, never redirected, never through a proxy of the environment.

A call that is no mere read goes out on a connection of its own: on one that was kept open the server may be hanging up
at that moment, and nobody could tell whether a refresh token was spent. `Unreachable.code` says which it was:
a code in `NEVER_SENT` means that no byte of the request left us.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Callable, Collection
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import aiohttp
import structlog
from multidict import CIMultiDict

from gateway import metrics
from gateway.clock import Clock
from gateway.outbound import addresses, targets
from gateway.outbound.addresses import Address
from gateway.outbound.resolver import Lookup, Pinned, SystemLookup
from gateway.outbound.targets import Hosts, Target, hosts_of
from gateway.settings import MIB, Settings
from providers.calls import Request, Response
from providers.errors import NotAllowed, OddAnswer, ProviderError, Unreachable
from providers.oauth import App, OAuthFacts

log = structlog.get_logger(__name__)

DEADLINE_S = 10.0
CONNECT_S = 3.0
MAX_BYTES = 1 * MIB
READS = frozenset({"GET", "HEAD"})
METHODS = READS | {"POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
NEVER_SENT = frozenset({"name_unknown", "connect_failed", "tls_failed", "connect_timed_out", "closed"})
AGENT = f"Posthouse/{version('posthouse')}"


class ProviderHttp:
    """`providers.calls.Http` for one provider: its hosts, its bounds, its name in the metrics."""

    def __init__(
        self,
        outbound: Outbound,
        provider: str,
        hosts: Hosts,
        kind: str,
        deadline_s: float,
        connect_s: float,
        max_bytes: int,
    ) -> None:
        self._outbound = outbound
        self.provider, self.hosts, self.kind = provider, hosts, kind
        self.deadline_s, self.connect_s, self.max_bytes = deadline_s, connect_s, max_bytes

    async def send(self, request: Request) -> Response:
        """The answer, whatever its status; redirects are answers too.

        Raises: NotAllowed (we do not call that), Unreachable (no whole answer in time), OddAnswer (too large, no HTTP).
        """
        return await self._outbound.send(self, request)


class Outbound:
    """The one way out of a process. Close it in the end."""

    def __init__(self, settings: Settings, clock: Clock, lookup: Lookup | None = None) -> None:
        self._allowed = addresses.networks_of(settings.outbound_allow)
        self._clock = clock
        self._system = SystemLookup() if lookup is None else None
        self._lookup: Lookup = lookup or self._system  # type: ignore[assignment]  # one of the two is there
        self._sessions: dict[tuple[str, bool], aiohttp.ClientSession] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def for_provider(
        self,
        provider: str,
        *,
        hosts: Collection[str] = (),
        operator_hosts: Collection[str] = (),
        kind: str = "api",
        deadline_s: float = DEADLINE_S,
        connect_s: float = CONNECT_S,
        max_bytes: int = MAX_BYTES,
    ) -> ProviderHttp:
        """A way to one provider; `operator_hosts` may get client secrets, `hosts` may not (entries: see `Hosts`).

        `kind` is a metric's label, one of a few words: `token`, `api`, `revoke`, `keys`. `deadline_s` covers a call
        from its first step to the last byte of the answer, `connect_s` the part until the connection stands.
        """
        allowed = Hosts(fixed=frozenset(operator_hosts), chosen=frozenset(hosts))
        return ProviderHttp(self, provider, allowed, kind, deadline_s, connect_s, max_bytes)

    def for_app(self, provider: str, facts: OAuthFacts, app: App, *, kind: str = "api", **bounds: Any) -> ProviderHttp:
        """A way to the provider of one integration, its hosts as `hosts_of` tells them; bounds as above.

        Raises: Misconfigured, NotAllowed (see `hosts_of`).
        """
        hosts = hosts_of(facts, app)
        return self.for_provider(provider, hosts=hosts.chosen, operator_hosts=hosts.fixed, kind=kind, **bounds)

    async def send(self, way: ProviderHttp, request: Request) -> Response:
        """One call. Use `ProviderHttp.send`."""
        began, host, outcome = self._clock.monotonic(), "", "cancelled"
        try:
            target = self._permitted(way, request)
            host = target.host
            if self._closed:
                raise Unreachable("closed")
            answer = await self._within_deadline(way, request, target)
            outcome = f"{answer.status // 100}xx"
            return answer
        except ProviderError as error:
            outcome = error.code
            raise
        finally:
            metrics.OUTBOUND_CALLS.labels(way.provider, way.kind, outcome).inc()
            metrics.OUTBOUND_SECONDS.labels(way.provider, way.kind).observe(max(self._clock.monotonic() - began, 0))
            tell = log.debug if outcome.endswith("xx") else log.warning
            tell("outbound.call", provider=way.provider, kind=way.kind, host=host, outcome=outcome)

    async def close(self) -> None:
        """Cut what is under way; later calls are `Unreachable`."""
        self._closed = True
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        if self._system is not None:
            self._system.close()

    def _permitted(self, way: ProviderHttp, request: Request) -> Target:
        if request.method not in METHODS:
            raise NotAllowed("odd_method")
        target = targets.read(request.url)
        if not way.hosts.allow(target, client_secret=request.carries_client_secret):
            listed = way.hosts.allow(target, client_secret=False)
            raise NotAllowed("secret_not_for_this_host" if listed else "host_not_listed")
        # The connector asks no resolver about an address; and one that is written down is a machine of the operator's.
        if target.literal is not None and not self._is_allowed(target.literal):
            raise NotAllowed("address_not_public")
        return target

    async def _within_deadline(self, way: ProviderHttp, request: Request, target: Target) -> Response:
        # `sent`: noted by the trace once a byte may have gone out
        noted = SimpleNamespace(sent=False, cut_at=asyncio.get_running_loop().time() + way.deadline_s)
        try:
            async with asyncio.timeout_at(noted.cut_at):
                return await self._exchange(way, request, target, noted)
        except ProviderError:
            raise
        except aiohttp.ClientResponseError:  # what came is no HTTP
            raise OddAnswer("odd_http") from None
        except TimeoutError:  # aiohttp's too; `from None` here and below: their texts hold the URL
            raise Unreachable("timed_out" if noted.sent else "connect_timed_out") from None
        except aiohttp.ClientConnectorDNSError:
            raise Unreachable("name_unknown") from None
        except (aiohttp.ClientSSLError, ssl.SSLError):
            raise Unreachable("cut_off" if noted.sent else "tls_failed") from None
        except (aiohttp.InvalidURL, ValueError):  # a header's value that HTTP cannot carry
            raise NotAllowed("odd_request") from None
        except (aiohttp.ClientError, OSError):
            raise Unreachable("cut_off" if noted.sent else "connect_failed") from None

    async def _exchange(self, way: ProviderHttp, request: Request, target: Target, noted: SimpleNamespace) -> Response:
        headers = CIMultiDict(request.headers)
        headers["accept-encoding"] = "identity"
        headers.setdefault("user-agent", AGENT)
        async with self._session(target.scheme, reads=request.method in READS).request(
            request.method,
            target.url,
            headers=headers,
            data=request.body or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=way.connect_s),
            trace_request_ctx=noted,
        ) as answer:
            body = await _body(answer, way.max_bytes)
            names = {name.lower() for name in answer.headers}
            told = {name: ", ".join(answer.headers.getall(name)) for name in names}
            return Response(answer.status, told, body)

    def _session(self, scheme: str, *, reads: bool) -> aiohttp.ClientSession:
        """One for each scheme, as different addresses are permitted; and one that keeps connections, for reads."""
        session = self._sessions.get((scheme, reads))
        if session is None:
            permitted: Callable[[Address], bool] = self._is_allowed if scheme == "http" else self._is_callable
            if self._tls is None:
                self._tls = ssl.create_default_context()  # SSL_CERT_FILE and SSL_CERT_DIR count
            connector = aiohttp.TCPConnector(
                resolver=Pinned(self._lookup, permitted),
                use_dns_cache=False,  # its cache would hide nothing from us, and its answers would outlive their names
                limit=0,  # who calls bounds how much
                force_close=not reads,
                ssl=self._tls,
            )
            session = self._sessions[scheme, reads] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),  # what one tenant's call brought is not for another's
                auto_decompress=False,
                trust_env=False,  # no proxies, no .netrc
                trace_configs=[_trace()],
            )
        return session

    def _is_allowed(self, address: Address) -> bool:
        return addresses.is_within(address, self._allowed)

    def _is_callable(self, address: Address) -> bool:
        return addresses.is_public(address) or self._is_allowed(address)


async def _body(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The body, at most `max_bytes` long as sent and as unpacked.    Raises: OddAnswer; the connection is cut then."""
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    unpack = _unpacker(coding)
    whole, sent = bytearray(), 0
    async for chunk in answer.content.iter_any():
        sent += len(chunk)
        whole += chunk if unpack is None else _unpacked(unpack, chunk, max_bytes + 1 - len(whole))
        if max(sent, len(whole)) > max_bytes:
            answer.close()
            raise OddAnswer("too_large", status=answer.status)
    if unpack is not None and sent and not unpack.eof:
        raise OddAnswer("odd_encoding", status=answer.status)
    return bytes(whole)


def _unpacker(coding: str) -> Any:
    """For the codings that servers use unasked; None for none."""
    if coding in ("identity", ""):
        return None
    if coding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, by its first bytes
    raise OddAnswer("odd_encoding")


def _unpacked(unpack: Any, chunk: bytes, most: int) -> bytes:
    """At most `most` bytes; whatever would come behind them is never made."""
    try:
        return bytes(unpack.decompress(chunk, most))
    except zlib.error:
        raise OddAnswer("odd_encoding") from None


def _trace() -> aiohttp.TraceConfig:
    """Just before a request's first byte: is there still time (PROTOCOLS 5)? Then note that it goes out."""

    async def sent(_session: object, context: SimpleNamespace, _headers: object) -> None:
        noted = context.trace_request_ctx
        if asyncio.get_running_loop().time() >= noted.cut_at:
            raise TimeoutError  # a loop that was held up has not noticed yet
        noted.sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(sent)
    return trace
