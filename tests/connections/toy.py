"""A provider that connects accounts, over real HTTP: it rotates strictly, and a revocation kills the whole account.

Strictly: each refresh token works once; one that comes again ends its family (RFC 9700 section 4.14.2). `Toy.calls` is
what it was asked, in order: (path, token).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import listen
from providers import calls, oauth
from providers.calls import Http
from providers.errors import GrantEnded, OddAnswer, Unreachable
from providers.oauth import App, Identity, OAuthFacts, TokenSet
from providers.registry import Provider, all_providers
from tests.serving import serving as listening

NAME = "toy"
FACTS = OAuthFacts(
    authorize_url="{base}/authorize",
    token_url="{base}/token",
    revoke_url="{base}/revoke",
    api_base="{base}",
    rotation="strict",
    access_ttl_s=3600,
    revoke_reach="account",
)


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    base: str


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    raise NotImplementedError


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    token = tokens.refresh_token or tokens.access_token
    answer = await http.send(oauth.revoke_request(FACTS, app, token, "refresh_token"))
    if answer.status >= 500:
        raise Unreachable(status=answer.status)
    if answer.status != 200:
        raise OddAnswer(status=answer.status)


async def probe(http: Http, app: App, tokens: TokenSet) -> None:
    answer = await http.send(calls.bearer("GET", oauth.filled("{base}/me", FACTS, app), tokens.access_token))
    if answer.status == 401:
        raise GrantEnded(status=401)
    if answer.status != 200:
        raise Unreachable(status=answer.status)


def provider(**facts: Any) -> Provider:
    """The toy, with these facts changed."""
    base = all_providers()["standard-webhooks"]
    return replace(
        base, facts=replace(base.facts, name=NAME), settings=Settings, oauth=replace(FACTS, **facts),
        identify=identify, revoke=revoke, probe=probe,
    )  # fmt: skip


@dataclass
class Family:
    """What one consent gave: the tokens that count now."""

    account: str
    access: str
    refresh: str
    alive: bool = True
    spent: set[str] = field(default_factory=set)


@dataclass
class Toy:
    """The provider's server."""

    url: str = ""
    families: list[Family] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    out_of_order: bool = False

    def consent(self, account: str) -> Family:
        number = len(self.families)
        made = Family(account, f"at-{account}-{number}-0", f"rt-{account}-{number}-0")
        self.families.append(made)
        return made

    def rotate(self, family: Family) -> None:
        """A refresh, whoever asked for it."""
        family.spent.add(family.refresh)
        turn = len(family.spent)
        family.access = family.access.rpartition("-")[0] + f"-{turn}"
        family.refresh = family.refresh.rpartition("-")[0] + f"-{turn}"

    def alive(self, account: str) -> bool:
        return any(family.alive for family in self.families if family.account == account)

    async def token(self, request: Request) -> Response:
        sent = parse_qs((await request.body()).decode())
        refresh = sent.get("refresh_token", [""])[0]
        self.calls.append(("/token", refresh))
        for family in self.families:
            if refresh in family.spent:
                family.alive = False
            elif refresh == family.refresh and family.alive:
                self.rotate(family)
                return JSONResponse(
                    {"access_token": family.access, "refresh_token": family.refresh, "expires_in": 3600}
                )
        return JSONResponse({"error": "invalid_grant"}, 400)

    async def revoke(self, request: Request) -> Response:
        token = parse_qs((await request.body()).decode())["token"][0]
        self.calls.append(("/revoke", token))
        if self.out_of_order:
            return Response("<html>", 502)
        for family in self.families:
            if token in (family.refresh, family.access) or token in family.spent:
                for other in self.families:
                    other.alive = other.alive and other.account != family.account
        return Response(status_code=200)

    async def me(self, request: Request) -> Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.calls.append(("/me", token))
        fine = any(family.alive and token == family.access for family in self.families)
        return Response(status_code=200 if fine else 401)


@asynccontextmanager
async def serving(**facts: Any) -> AsyncIterator[Toy]:
    """The toy's server, and its module among the providers (`facts` changed) for the length of the block."""
    toy = Toy()
    routes = [
        Route("/token", toy.token, methods=["POST"]),
        Route("/revoke", toy.revoke, methods=["POST"]),
        Route("/me", toy.me),
    ]
    bound = listen.bind("127.0.0.1:0", "toy")
    server = listen.server(Starlette(routes=routes))
    async with listening(server, bound) as toy.url:
        all_providers()[NAME] = provider(**facts)
        try:
            yield toy
        finally:
            del all_providers()[NAME]
