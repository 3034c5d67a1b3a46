"""The client: events, and the calls of the management API that platform code makes most."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from secrets import token_hex
from types import TracebackType
from typing import Any
from urllib.parse import quote

import aiohttp

from gateway.client.following import follow
from gateway.client.http import Http, Pace, Params
from gateway.client.iterating import Events
from gateway.client.leases import Leases
from gateway.client.tokens import Token
from gateway.client.tokens import read as read_token
from gateway.client.working import Batching, Worker

PATIENCE_S = 30.0
SAFE_TO_REPEAT = frozenset({"GET", "PUT", "DELETE"})


class Client:
    """A gateway's private listener, seen by platform code. Use it as `async with`.

    `session`: one of your own, for a private certificate authority, say; it is not closed here. `pace` holds time
    and chance; `patience_s` is how long a call is tried while the gateway is away (`events` never gives up).
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        session: aiohttp.ClientSession | None = None,
        patience_s: float = PATIENCE_S,
        pace: Pace | None = None,
    ) -> None:
        self._base_url, self._api_key, self._given = base_url, api_key, session
        self._patience_s, self._pace = patience_s, pace or Pace()
        self._session: aiohttp.ClientSession | None = None
        self._http_made: Http | None = None
        self._open: set[Events] = set()

    def __repr__(self) -> str:
        return f"Client({self._base_url!r})"  # the key is nobody's to see

    async def __aenter__(self) -> Client:
        self._session = self._given or aiohttp.ClientSession()
        self._http_made = Http(self._base_url, self._api_key, self._session, self._pace)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for events in list(self._open):
                await events.aclose()
        finally:
            session, self._session, self._http_made = self._session, None, None
            if session is not None and self._given is None:
                await session.close()

    def events(
        self,
        consumer: str | None = None,
        *,
        worker: str | None = None,
        types: Sequence[str] | None = None,
        integration: str | None = None,
        tenant: str | None = None,
        connection: str | None = None,
        after: str | None = None,
        ttl_s: float = 30.0,
        batching: Batching | None = None,
    ) -> Events:
        """Events in the order of their commits, without end. `types` are whole types or dotted prefixes.

        With `consumer`: this process is one `worker` of it (by default under a name of its own), gets its share of the
        connections, and each connection's events in order. An event is done when the next one is asked for; done
        events are committed in batches, and at the end. After a crash the last few come again: at least once.
        `after` is where a consumer that is new begins: "earliest" (the default) or "latest". `ttl_s`: how long a
        crashed worker's share waits; a handler that blocks the event loop for longer loses its share.

        Without: everything after the cursor `after` (or "earliest", the default, or "latest"), over server-sent events.

        It reconnects by itself. Raises, while iterating: CursorGone (retention has passed the place; `earliest` is
        the way on, or `reset_consumer`), Unauthenticated, Forbidden, Invalid and other ApiErrors.
        """
        wanted = _wanted(types, integration, tenant, connection)
        if consumer is None:
            events = Events(follow(self._http, wanted, after), _nothing_to_commit, self._open.discard)
        else:
            if after not in (None, "earliest", "latest"):
                raise ValueError("a consumer keeps its own cursors: `after` is 'earliest' or 'latest', for a new one")
            name = quote(consumer, safe="")
            leases = Leases(self._http, name, worker or _own_name(), ttl_s, after or "earliest")
            work = Worker(self._http, name, leases, wanted, batching or Batching())
            events = Events(work.entries(), work.commit, self._open.discard)
        self._open.add(events)
        return events

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Any call of the management API; the answer's JSON. What is safe to repeat is, while the gateway is away.

        Raises: ApiError (NotFound, Conflict, Invalid …), Unreachable.
        """
        repeat = method.upper() in SAFE_TO_REPEAT or idempotency_key is not None
        return await self._http.patiently(
            method.upper(), path, body=json, params=list((params or {}).items()),
            headers={} if idempotency_key is None else {"Idempotency-Key": idempotency_key},
            patience_s=self._patience_s if repeat else 0.0,
        )  # fmt: skip

    async def create_tenant(self, tenant: str, *, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Make a tenant, or set its labels."""
        return await self._made("PUT", f"/v1/tenants/{quote(tenant, safe='')}", {"labels": dict(labels or {})})

    async def create_connection(
        self, tenant: str, integration: str, accounts: Sequence[str], *, external_id: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Register an account of a tenant at an integration; `accounts` are the keys its deliveries carry."""
        body = {"tenant": tenant, "integration": integration, "accounts": list(accounts), **more}
        return await self._made("POST", "/v1/connections", body | _named("external_id", external_id))

    async def history(self, connection: str) -> AsyncIterator[dict[str, Any]]:
        """What every signal about a connection led to, newest first, page by page: entries as the API's document says."""
        path, more = f"/v1/connections/{quote(connection, safe='')}/history", {"limit": "200"}
        while True:
            page = await self.request("GET", path, params=more)
            for entry in page["items"]:
                yield entry
            if page["next_cursor"] is None:
                return
            more["cursor"] = page["next_cursor"]

    async def token(self, connection: str, access_profile: str | None = None, min_ttl_s: int = 60) -> Token:
        """The current access token of a connection, refreshed first if it expires within `min_ttl_s`.

        `access_profile` may be left out where there is just one. Ask each time, or keep it until `refresh_after`.
        Raises: NotIssued: the user must connect again, or the like (`do`); Unavailable: come back after `retry_after_s`;
        NotFound, Forbidden, Unreachable.
        """
        params = {"min_ttl_s": str(min_ttl_s), **_named("access_profile", access_profile)}
        path = f"/v1/connections/{quote(connection, safe='')}/token"
        return read_token(await self.request("GET", path, params=params))

    async def report_rejected(self, token: Token, status: int | None = None) -> str:
        """Say that the provider refused this token (with this status); what came of it.

        "stale" and "refreshed": ask for the token again. "works": the provider refused that call, not the token. The
        others ("too_new", "unchecked", "suspect", "not_issued") are explained in the API's document.
        """
        body: dict[str, Any] = {"type": "token_rejected", "token_version": token.token_version}
        body |= {"access_profile": token.access_profile} | ({} if status is None else {"status": status})
        answer = await self.request("POST", f"/v1/connections/{quote(token.connection, safe='')}/signals", json=body)
        return str(answer["outcome"])

    async def create_endpoint(
        self, integration: str, *, connection: str | None = None, secret: str | None = None, **more: Any
    ) -> dict[str, Any]:
        """Make a URL for a provider to call; `url` in the answer."""
        body = {"integration": integration, **_named("connection", connection), **_named("secret", secret), **more}
        return await self._made("POST", "/v1/endpoints", body)

    async def reset_consumer(self, consumer: str, to: str) -> str:
        """Put a consumer at "earliest", "latest" or a time (RFC 3339); the cursor there."""
        answer = await self._made("POST", f"/v1/consumers/{quote(consumer, safe='')}/reset", {"to": to})
        return str(answer["cursor"])

    async def _made(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        key = token_hex(16) if method == "POST" else None
        made: dict[str, Any] = await self.request(method, path, json=body, idempotency_key=key)
        return made

    @property
    def _http(self) -> Http:
        if self._http_made is None:
            raise RuntimeError("use the client as `async with Client(…) as posthouse:`")
        return self._http_made


def _wanted(types: Sequence[str] | None, integration: str | None, tenant: str | None, connection: str | None) -> Params:
    if isinstance(types, str):
        raise TypeError("`types` is a list of types, not one text")
    given = (("integration", integration), ("tenant", tenant), ("connection", connection))
    return [*(("type", one) for one in types or ()), *((name, value) for name, value in given if value is not None)]


def _named(name: str, value: str | None) -> dict[str, str]:
    return {} if value is None else {name: value}


def _own_name() -> str:
    """Unlike any other worker's, a former life of this one's included."""
    host = "".join(c for c in socket.gethostname() if c.isalnum() or c in "-.")[:100]
    return f"{host or 'worker'}-{os.getpid()}-{token_hex(4)}"


async def _nothing_to_commit() -> None:
    pass
