"""The private listener's application: one table of routes, collected from the rooms that own them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import ids, metrics
from gateway.errors import NotFound
from gateway.service import Gateway
from gateway.web import (
    adoption,
    connect_sessions,
    connections,
    consumers,
    endpoints,
    events,
    health,
    history,
    incidents,
    integrations,
    keys,
    openapi,
    providers,
    refusals,
    requests,
    rotations,
    set_aside,
    tenants,
    tokens,
)
from gateway.web.dispatch import METHODS, Endpoint, refuse
from gateway.web.routing import Call, NoQuery, Route

ROUTES: list[Route] = [
    *tenants.ROUTES,
    *connections.ROUTES,
    *history.ROUTES,
    *rotations.ROUTES,
    *tokens.ROUTES,
    *adoption.ROUTES,
    *connect_sessions.ROUTES,
    *endpoints.ROUTES,
    *integrations.ROUTES,
    *keys.ROUTES,
    *events.ROUTES,
    *consumers.ROUTES,
    *refusals.ROUTES,
    *set_aside.ROUTES,
    *providers.ROUTES,
    *incidents.ROUTES,
    *health.ROUTES,
]


def private_app(gateway: Gateway, more: Sequence[Route] = ()) -> ASGIApp:
    """The application for `gateway`. `more`: routes of packages above this one (`subscriptions` brings its own)."""
    table = [*ROUTES, *more]
    document = orjson.dumps(openapi.document(table))

    async def describe(gateway: Gateway, call: Call[None, NoQuery]) -> Response:
        return Response(document, media_type="application/json")

    table.append(Route("GET", "/openapi.json", None, describe, "This API, as OpenAPI 3.1", private=True))
    by_path: dict[str, dict[str, Route]] = defaultdict(dict)
    for route in table:
        if route.method in by_path[route.path]:
            raise ValueError(f"two routes for {route.method} {route.path}")
        by_path[route.path][route.method] = route
    # Templates with a fixed word come before those with a parameter in the same place.
    ordered = sorted(by_path.items(), key=lambda item: [(part.startswith("{"), part) for part in item[0].split("/")])
    rooms = {path: Endpoint(gateway, path, routes) for path, routes in ordered}
    router = Router(
        [StarletteRoute(path, room) for path, room in rooms.items()],
        redirect_slashes=False,
        default=_Unmatched(gateway),
    )
    direct = [_Direct(path, rooms[path]) for path, routes in ordered if any(r.direct for r in routes.values())]
    return _Front(direct, router)


class _Direct:
    """A path with one parameter, matched by what stands before and behind it."""

    def __init__(self, path: str, room: Endpoint) -> None:
        self.before, _, rest = path.partition("{")
        self._name, _, self.behind = rest.partition("}")
        self.room = room

    def parameters(self, path: str) -> dict[str, str] | None:
        """What the path says, or None where it is another one."""
        if not (path.startswith(self.before) and path.endswith(self.behind)):
            return None
        value = path[len(self.before) : -len(self.behind)]
        return {self._name: value} if value and "/" not in value else None


class _Front:
    """The few direct paths first; the router knows all."""

    def __init__(self, direct: Sequence[_Direct], router: Router) -> None:
        self._direct, self._router = tuple(direct), router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for one in self._direct:
                parameters = one.parameters(scope["path"])
                if parameters is not None:
                    scope["path_params"] = parameters
                    await one.room(scope, receive, send)
                    return
        await self._router(scope, receive, send)


class _Unmatched:
    """Every path that no template matches."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        sent = requests.request_id(Headers(raw=scope["headers"]))
        method = scope["method"] if scope["method"] in METHODS else "other"
        metrics.HTTP_REQUESTS.labels("unmatched", method, "404").inc()
        problem = NotFound("There is no such path.")
        request_id = sent or f"req_{ids.uuid7(self._gateway.clock.now()).hex}"
        await refuse(scope, send, problem, request_id)
