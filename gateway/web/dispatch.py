"""From an HTTP request to a handler and back: the order in which things are looked at, once for all routes.

    request id, trace -> method -> who asks -> may they -> query -> body -> seen before? -> handler -> answer

Each step can end the request with a problem. A handler that hangs is asked about after `PATIENCE_S`: when a database
does not answer either, the caller gets a 503 at once; when it does, the handler is merely slow and may go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import ids, metrics
from gateway.access import roles
from gateway.access.keys import ApiKey
from gateway.errors import Forbidden, Problem, Unauthenticated, Unavailable
from gateway.protocol import WHOLE
from gateway.service import Gateway
from gateway.web import idempotency, problems, requests
from gateway.web.routing import Call, Route, Sent, json
from gateway.web.upstream import reachable

log = structlog.get_logger(__name__)

PATIENCE_S = 1.3  # then we look whether the databases answer, which takes PROBE_S at most: a 503 within 2 s
PROBE_S = 0.4
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # other names are no metric label
HEADERS = (
    (b"cache-control", b"no-store"),  # answers hold what only this key may see
    (b"x-content-type-options", b"nosniff"),
)


@dataclass(slots=True)
class Admitted:
    """How far a request came: which route, and who asks."""

    route: Route | None = None
    key: ApiKey | None = None


class Endpoint:
    """The ASGI application of one path: its routes by method."""

    def __init__(self, gateway: Gateway, path: str, routes: Mapping[str, Route]) -> None:
        self._gateway, self._path, self._routes = gateway, path, routes
        self._readers = {method: requests.QueryReader(route.query) for method, route in routes.items()}
        allowed = {*routes, *("HEAD" for route in routes.values() if route.method == "GET" and not route.stream)}
        self._allow = ", ".join(sorted(allowed)).encode()
        self._going_on: set[asyncio.Future[None]] = set()
        self._seconds = metrics.HTTP_SECONDS.labels(path)
        self._counted: dict[tuple[str, int], Counter] = {}  # by method and status, as they come up

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request. No exception leaves this."""
        gateway = self._gateway
        started = gateway.clock.monotonic()
        headers = Headers(raw=scope["headers"])
        request_id = requests.request_id(headers) or f"req_{ids.uuid7(gateway.clock.now()).hex}"
        _bind(request_id, requests.trace(headers))
        admitted = Admitted()
        outcome: Sent | Response
        try:
            self._admit(scope["method"], headers, admitted)
            outcome = await self._outcome(admitted, scope, headers, receive, request_id)
        except requests.Gone:
            outcome = Sent(499)  # nobody is there to read it; the number is the usual one in logs
        except Exception as error:
            outcome = self._refused(error, request_id)
        status = outcome.status_code if isinstance(outcome, Response) else outcome.status
        try:
            if isinstance(outcome, Response):  # without end
                outcome.headers["x-request-id"] = request_id
                await outcome(scope, receive, send)
            elif status != 499:
                await _send(scope, send, outcome, request_id)
        except OSError as error:
            log.info("http.cut", route=self._path, error=error)  # the connection ended under the answer
        except Exception as error:
            log.error("http.broken", route=self._path, exc_info=error)  # the answer had begun: it ends here
        finally:
            self._note(scope["method"], status, gateway.clock.monotonic() - started, admitted)

    def _admit(self, method: str, headers: Headers, admitted: Admitted) -> None:
        """Which route it is, who asks, and whether they may.    Raises: Problem."""
        route = self._routes.get(method)
        if route is None and method == "HEAD" and "GET" in self._routes and not self._routes["GET"].stream:
            route = self._routes["GET"]
        if route is None:
            raise problems.MethodNotAllowed()
        admitted.route = route
        if route.action is not None:
            key = self._gateway.catalog.api_key(requests.bearer(headers), self._gateway.clock.now())
            if key is None:
                raise Unauthenticated("The API key is unknown, expired or revoked.")
            admitted.key = key
            if not roles.allows(key.role, route.action):
                raise Forbidden(f"This needs a role that allows `{route.action}`.")

    async def _outcome(
        self, admitted: Admitted, scope: Scope, headers: Headers, receive: Receive, request_id: str
    ) -> Sent | Response:
        """Every step from the query to the answer.    Raises: Problem, or whatever the handler raises."""
        gateway, route, key, method = self._gateway, admitted.route, admitted.key, scope["method"]
        assert route is not None
        now = gateway.clock.now()
        query = self._readers[route.method].read(scope["query_string"])
        raw = b"" if method in ("GET", "HEAD") else await requests.read_body(headers, receive, route.most_bytes)
        if raw and route.body is None:
            raise problems.invalid("body", "this route takes no body")
        body = None if route.body is None else requests.json_body(headers, raw, route.body)

        def call(new_id: Callable[[], UUID]) -> Call[Any, Any]:
            return Call(body, query, scope["path_params"], key, now, request_id, headers, new_id)

        sent_key = requests.idempotency_key(headers) if route.idempotent and key is not None else None
        if sent_key is None or key is None:
            return await self._run(route, call(lambda: ids.uuid7(now)))
        told = idempotency.request_hash(gateway.control_keyring, method, scope["path"], scope["query_string"], raw)
        return await self._once(route, call, key.id, sent_key, told)

    async def _once(self, route: Route, call: Any, caller: UUID, sent_key: str, told: bytes) -> Sent:
        """Run the handler unless it has run for this Idempotency-Key before."""
        gateway = self._gateway
        begun = idempotency.begin(gateway.control, gateway.control_keyring, caller, sent_key, told)
        ticket = await self._patiently(begun, route.limit_s)
        if ticket.answer is not None:
            stored = json(ticket.answer.status, ticket.answer.body)
            return Sent(stored.status, stored.body, (*stored.headers, (b"idempotency-replayed", b"true")))
        try:
            sent = await self._run(route, call(ticket.new_id))
        except BaseException as error:
            away = isinstance(error, Unavailable | asyncio.CancelledError)
            await self._soon(idempotency.release(gateway.control, ticket), 0 if away else 1)
            raise
        assert isinstance(sent, Sent), "a stream is not idempotent"
        await self._soon(idempotency.finish(gateway.control, ticket, sent.status, sent.body), 1)
        return sent

    async def _soon(self, work: Coroutine[Any, Any, None], wait_s: float) -> None:
        """Do `work` even if the caller goes; wait for it, but not for a database that is away."""
        task = asyncio.ensure_future(work)
        self._going_on.add(task)
        task.add_done_callback(self._going_on.discard)
        if wait_s:
            await asyncio.wait((task,), timeout=wait_s)

    async def _run(self, route: Route, call: Call[Any, Any]) -> Sent | Response:
        work = route.handler(self._gateway, call)
        made = await (work if route.stream or route.direct else self._patiently(work, route.limit_s))
        if isinstance(made, Sent):
            return made
        if isinstance(made, Response):
            if route.stream:
                return made
            return Sent(
                made.status_code, bytes(made.body), tuple(h for h in made.raw_headers if h[0] != b"content-length")
            )
        if isinstance(made, BaseModel):
            return json(route.status, made.model_dump_json().encode())
        return Sent(204)

    async def _patiently(self, work: Any, limit_s: float) -> Any:
        """Wait for `work`, but not for databases that are away.    Raises: Unavailable, what `work` raises."""
        coroutine: Coroutine[Any, Any, Any] = work
        task = asyncio.ensure_future(coroutine)
        try:
            await asyncio.wait((task,), timeout=PATIENCE_S)
            if not task.done() and await reachable(self._gateway, PROBE_S):
                await asyncio.wait((task,), timeout=limit_s)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            return task.result()
        task.cancel()  # not waited for: cancelling a query asks the very database that does not answer
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise Unavailable("The database is away or too slow.")

    def _refused(self, error: Exception, request_id: str) -> Sent:
        problem = problems.translate(error)
        if problem.status >= 500 and not isinstance(error, Problem):
            log.error("http.failed", route=self._path, exc_info=error)
        body, headers = problems.encode(problem, request_id)
        if problem.status == 405:
            headers.append((b"allow", self._allow))
        return Sent(problem.status, body, tuple(headers))

    def _note(self, method: str, status: int, taken_s: float, admitted: Admitted) -> None:
        """The one line and the figures of a request."""
        route, key = admitted.route, admitted.key
        method = method if method in METHODS else "other"
        counted = self._counted.get((method, status))
        if counted is None:
            counted = self._counted[method, status] = metrics.HTTP_REQUESTS.labels(self._path, method, str(status))
        counted.inc()
        if route is None or not route.stream:
            self._seconds.observe(taken_s)
        if route is not None and route.direct and status < 400:
            return
        # Probes and scrapes come every few seconds and say nothing.
        tell = log.debug if route is not None and route.action is None else log.info
        key_id = None if key is None else ids.show(ids.KEY, key.id)
        tell("http.request", method=method, route=self._path, status=status, ms=round(taken_s * 1000, 1), key=key_id)


async def refuse(
    scope: Scope, send: Send, problem: Problem, request_id: str, *, more: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    """Answer with a problem. A client that is gone does not matter any more."""
    body, headers = problems.encode(problem, request_id)
    try:
        await _send(scope, send, Sent(problem.status, body, (*headers, *more)), request_id)
    except OSError:
        pass


async def _send(scope: Scope, send: Send, sent: Sent, request_id: str) -> None:
    headers = [*sent.headers, *HEADERS, (b"x-request-id", request_id.encode())]
    body = b"" if scope["method"] == "HEAD" else sent.body
    size = None if sent.status == 204 else len(sent.body)
    whole = scope.get("extensions", {}).get(WHOLE)
    if whole is not None:
        await whole(sent.status, headers, body, size)
        return
    if size is not None:
        headers.append((b"content-length", str(size).encode()))
    await send({"type": "http.response.start", "status": sent.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _bind(request_id: str, trace: requests.Trace | None) -> None:
    """Put into every log line of this request what it is about. Each request runs in a context of its own."""
    structlog.contextvars.unbind_contextvars("trace_id", "parent_id")
    structlog.contextvars.bind_contextvars(request_id=request_id)
    if trace is not None:
        structlog.contextvars.bind_contextvars(trace_id=trace.trace_id, parent_id=trace.parent_id)
