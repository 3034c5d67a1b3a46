"""The sandbox as everybody's test provider: on a free port, its calls counted, and misbehaving on demand.

    async with fake_provider(clock) as provider:
        provider.misbehave("refresh_token", "answer_lost")          # once; times=None: from now on
        provider.misbehave("token", changed(scope="profile"))       # ways that take arguments: tests.fakes.misbehaving
        callback = await provider.consent(authorize_url, user="user-2", untick=["contacts.read"])
        assert provider.calls["token"] == 1

Endpoints: `authorize` (the page), `consent` (its form), `token` (every call of it) and, by what it asks for,
`authorization_code`, `refresh_token`, `client_credentials`; `revoke`, `introspect`, `me`, `messages`, `contacts`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

from gateway import listen
from gateway.clock import Clock
from gateway.sandbox import Client, Rules, Sandbox, sandbox_app
from tests.fakes import browser
from tests.fakes.misbehaving import BY_NAME, App, Gate, How, Turn

CALLBACK = "https://hooks.example.com/oauth/callback/sandbox"  # of an integration `sandbox`, as tests' settings have it
ENDPOINTS = {
    ("GET", "/oauth/authorize"): "authorize", ("POST", "/oauth/authorize"): "consent", ("POST", "/oauth/token"): "token",
    ("POST", "/oauth/revoke"): "revoke", ("POST", "/oauth/introspect"): "introspect", ("GET", "/api/me"): "me",
    ("GET", "/api/messages"): "messages", ("POST", "/api/messages"): "messages", ("GET", "/api/contacts"): "contacts",
}  # fmt: skip
GRANTS = ("authorization_code", "refresh_token", "client_credentials")
KNOWN = frozenset({*ENDPOINTS.values(), *GRANTS})


@dataclass
class FakeProvider:
    """One provider. It is the ASGI application itself: what is not misbehaved at goes through to the sandbox."""

    sandbox: Sandbox
    client: Client = field(init=False)
    app: App = field(init=False, repr=False)
    calls: Counter[str] = field(default_factory=Counter)
    bodies: list[tuple[str, bytes]] = field(default_factory=list, repr=False)  # endpoint and body, in their order
    gate: Gate = field(default_factory=Gate, repr=False)
    _planned: dict[str, list[list[Any]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.app = sandbox_app(self.sandbox)

    @property
    def base_url(self) -> str:
        return self.sandbox.issuer

    def rules(self, **changes: Any) -> None:
        """Other rules from now on, e.g. `rotation="grace", grace_s=60`, `access_ttl_s=5`."""
        self.sandbox.rules = replace(self.sandbox.rules, **changes)

    def misbehave(self, endpoint: str, how: str | How, times: int | None = 1) -> None:
        """Go wrong at the next `times` calls of an endpoint (None: until `behave`), after what was planned before."""
        assert endpoint in KNOWN, endpoint
        self._planned.setdefault(endpoint, []).append([BY_NAME[how] if isinstance(how, str) else how, times])

    def behave(self) -> None:
        """Forget what was planned."""
        self._planned.clear()

    async def consent(
        self, authorize_url: str, *, user: str = "user-1", untick: Collection[str] = (), deny: bool = False
    ) -> str:
        """A person at a browser decides; the callback URL that the browser is then sent to."""
        return await browser.consent(authorize_url, user=user, untick=untick, deny=deny)

    def grants(self, user: str | None = None) -> list[str]:
        """Ids of the grants that live, oldest first."""
        found = self.sandbox.grants.values()
        return [grant.id for grant in found if grant.ended_at is None and user in (None, grant.user)]

    async def revoke(self, grant_id: str, *, tell: bool = True) -> None:
        """A user ends a grant; with `tell` the webhook has its answer when this returns."""
        from gateway.sandbox import oauth

        oauth.end(self.sandbox, self.sandbox.grants[grant_id], "revoked_by_user", tell=tell)
        await self.sandbox.webhooks.settled()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        names = _names(scope, body)
        self.calls.update(names)
        self.bodies.append((names[-1] if names else scope["path"], body))
        how = next(filter(None, map(self._next, reversed(names))), None)  # the narrower name first
        turn = Turn(self.app, scope, body, receive, send, self.gate)
        if how is not None:
            await how(turn)
        else:
            await turn.answer(*await turn.proceed())

    def _next(self, endpoint: str) -> How | None:
        planned = self._planned.get(endpoint)
        if not planned:
            return None
        first = planned[0]
        if first[1] is not None:
            first[1] -= 1
            if first[1] <= 0:
                planned.pop(0)
        how: How = first[0]
        return how


def _names(scope: Any, body: bytes) -> list[str]:
    endpoint = ENDPOINTS.get((scope["method"], scope["path"]))
    if endpoint is None:
        return []
    grant = parse_qs(body.decode("latin-1")).get("grant_type", [""])[0] if endpoint == "token" else ""
    return [endpoint, grant] if grant in GRANTS else [endpoint]


@asynccontextmanager
async def fake_provider(
    clock: Clock,
    *,
    redirect_uris: Sequence[str] = (CALLBACK,),
    webhook_url: str | None = None,
    rules: Rules | None = None,
    seed: int | None = None,
) -> AsyncIterator[FakeProvider]:
    """A provider on a free port of this machine, with one client, `provider.client`. `seed`: its secrets repeat."""
    bound = listen.bind("127.0.0.1:0", "fake provider")
    sandbox = Sandbox(listen.url_of(bound), clock, rules or Rules())
    if seed is not None:
        sandbox.chance = random.Random(seed).randbytes
    provider = FakeProvider(sandbox)
    provider.client = sandbox.register("A platform", redirect_uris, webhook_url=webhook_url)
    server = listen.server(provider)
    serving = asyncio.create_task(server.serve([bound]))
    try:
        yield provider
    finally:
        await stopped(server, serving)
        bound.close()
        await sandbox.webhooks.close()


async def stopped(server: listen.Server, serving: asyncio.Task[None]) -> None:
    """At once: uvicorn's own way takes a fifth of a second, and a test has no patience with a provider that hangs."""
    requests = list(server.server_state.tasks)
    for task in (serving, *requests):
        task.cancel()
    await asyncio.gather(serving, *requests, return_exceptions=True)
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    for each in getattr(server, "servers", ()):  # there once it has started
        each.close()
