"""The management API over real sockets: uvicorn as production runs it, and a client that holds an admin key."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import structlog

from gateway import listen, logs
from gateway.access import keys
from gateway.service import Gateway
from gateway.web import app
from gateway.web.app import private_app
from gateway.web.routing import Route
from subscriptions import api as renewals
from tests.serving import serving


@dataclass
class Api:
    """A base URL, and clients by key."""

    url: str
    gateway: Gateway
    admin: str
    http: httpx.AsyncClient

    async def __call__(
        self, method: str, path: str, json: Any = None, key: str | None = "", **more: Any
    ) -> httpx.Response:
        """One request, with the admin's key unless told otherwise (None: with none)."""
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers.setdefault("authorization", f"Bearer {key or self.admin}")
        if json is not None:
            more["json"] = json
        return await self.http.request(method, path, headers=headers, **more)

    async def key(self, role: str) -> str:
        """A fresh key of that role."""
        async with self.gateway.control.transaction() as tx:
            made = await keys.create(
                tx, self.gateway.control_keyring, self.gateway.clock.now(), name=f"a {role}", role=role
            )
        await self.gateway.catalog.refresh()
        return made.token


ROUTES = [*app.ROUTES, *renewals.ROUTES]  # of a process


@asynccontextmanager
async def served(gateway: Gateway, *more: Route) -> AsyncIterator[Api]:
    """The private listener of `gateway` on a free port, as a process serves it, with `more` routes."""
    bound = listen.bind("127.0.0.1:0", "private")
    async with (
        serving(listen.server(private_app(gateway, [*renewals.ROUTES, *more])), bound) as url,
        httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http,
    ):
        api = Api(url, gateway, "", http)
        api.admin = await api.key("admin")
        yield api


@pytest.fixture
async def api(gateway: Gateway) -> AsyncIterator[Api]:
    """The management API of this test's gateway."""
    async with served(gateway) as made:
        yield made


@pytest.fixture(autouse=True)
def lines() -> Iterator[io.BytesIO]:
    """What was logged, as production would write it."""
    written = io.BytesIO()
    logs.configure("json", "debug", written)
    yield written
    structlog.reset_defaults()
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler, logs.Foreign)]


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem object of `answer`, which must be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["type"] == f"https://posthouse.dev/problems/{code}", said
    assert said["status"] == status
    assert said["request_id"] == answer.headers["x-request-id"]
    return said
