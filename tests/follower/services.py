"""GitHub's and Slack's servers, as far as we call them: they answer by the token that is shown to them.

The provider's module is the real one; only where its server stands is another place for the length of a block.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import listen
from providers import registry
from providers.registry import all_providers
from tests.fakes.misbehaving import Gate
from tests.fakes.provider import stopped

Call = tuple[str, str]  # path and token


@dataclass
class Service:
    """One provider's server."""

    url: str = ""
    dead: set[str] = field(default_factory=set)  # access tokens that are over
    calls: list[Call] = field(default_factory=list)
    how: Callable[[], Response] | None = None  # out of order: everything is answered so
    holds: bool = False  # whatever is asked waits at the gate, and is answered as of then
    gate: Gate = field(default_factory=Gate, repr=False)
    scopes: str = ""  # of every token, as a header tells them
    permissions: dict[str, str] = field(default_factory=dict)  # of an installation
    installed: bool = True
    suspended: bool = False

    def asked(self, path: str) -> int:
        """How often."""
        return sum(one == path for one, _ in self.calls)

    async def answer(self, request: Request) -> Response:
        path = request.url.path[request.url.path.index("/", 1) :]  # behind the provider's name
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.calls.append((path, token))
        if self.holds:
            await self.gate.wait()
        if self.how is not None:
            return self.how()
        if path.startswith("/app/installations/"):
            return self._of_the_app(path)
        if path == "/token":
            return self._refreshed(await request.body())
        return self._of(token)

    def _of(self, token: str) -> Response:
        """A call with somebody's token: `/rate_limit` of GitHub, `/auth.test` of Slack."""
        told = {"x-oauth-scopes": self.scopes} if self.scopes else {}
        if token not in self.dead:
            return JSONResponse({"ok": True, "resources": {}}, headers=told)
        if "slack" in self.url:  # HTTP 200 all the same
            return JSONResponse({"ok": False, "error": "token_revoked"})
        return JSONResponse({"message": "Bad credentials"}, 401)

    def _refreshed(self, body: bytes) -> Response:
        """Each refresh token lives on, and brings `new` and its own name."""
        [refresh] = parse_qs(body.decode())["refresh_token"]
        if refresh in self.dead:
            return refused()
        return JSONResponse({"access_token": f"new {refresh}", "refresh_token": refresh, "expires_in": 28800})

    def _of_the_app(self, path: str) -> Response:
        """A call that the app itself makes, about an installation."""
        if not self.installed:
            return JSONResponse({"message": "Not Found"}, 404)
        if not path.endswith("/access_tokens"):
            return JSONResponse({"suspended_at": "2026-11-23T11:58:00Z" if self.suspended else None})
        if self.suspended:
            return JSONResponse({"message": "This installation has been suspended"}, 403)
        minted = f"ghs_{self.asked(path)}"
        return JSONResponse({"token": minted, "permissions": self.permissions}, 201)


def refused() -> Response:
    """What GitHub's token endpoint says of a refresh token that is over: with status 200."""
    return JSONResponse({"error": "bad_refresh_token", "error_description": "The refresh token is incorrect."})


def page() -> Response:
    """What a firewall says in the provider's place."""
    return Response("<!doctype html><h1>Please log in to the network</h1>", media_type="text/html")


def unwell(status: int, **headers: str) -> Callable[[], Response]:
    """An answer that says nothing of a token."""
    return lambda: Response(status_code=status, headers={k.replace("_", "-"): v for k, v in headers.items()})


@asynccontextmanager
async def serving(*modules: ModuleType) -> AsyncIterator[list[Service]]:
    """The servers of these providers' modules, which call them here."""
    bound = listen.bind("127.0.0.1:0", "services")
    made = [Service(f"{listen.url_of(bound)}/{module.FACTS.name}") for module in modules]
    routes = [
        Route(f"/{module.FACTS.name}/{{path:path}}", of.answer, methods=["GET", "POST"])
        for module, of in zip(modules, made, strict=True)
    ]
    server = listen.server(Starlette(routes=routes))
    task = asyncio.create_task(server.serve([bound]))
    before = [module.OAUTH for module in modules]
    for module, of in zip(modules, made, strict=True):
        _move(module, replace(module.OAUTH, token_url=f"{of.url}/token", api_base=of.url))
    try:
        yield made
    finally:
        for module, oauth in zip(modules, before, strict=True):
            _move(module, oauth)
        await stopped(server, task)
        bound.close()


@contextmanager
def moved(module: Any, oauth: Any) -> Iterator[None]:
    """A provider's module with other facts for the length of a block. Catalogs that are there read them anew."""
    before = module.OAUTH
    _move(module, oauth)
    try:
        yield
    finally:
        _move(module, before)


def _move(module: Any, oauth: Any) -> None:
    module.OAUTH = oauth
    all_providers()[module.FACTS.name] = registry.load(module)
