"""Accounts are connected at the sandbox: a person at a browser, and the platform's backend, which completes sessions."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import httpx

from gateway.client import Client, Token
from tests.connect.browser import Browser, heading
from tests.demo.stage import Broken
from tests.fakes.browser import consent

NAME, PROFILE = "sandbox", "reader"


@dataclass(frozen=True, slots=True)
class Provider:
    """The sandbox, as `posthouse sandbox` introduces itself: what it prints is what is used."""

    base_url: str
    return_url: str
    scopes: frozenset[str]  # of the access profile
    required: str  # one of them that it needs
    declaration: str  # for posthouse.toml
    environment: dict[str, str] = field(repr=False)  # of `posthouse apply`

    async def called(self, token: Token, path: str) -> tuple[int, dict[str, Any]]:
        """Its API with an access token: status and answer."""
        headers = {"authorization": token.authorization}
        async with aiohttp.ClientSession() as http, http.get(self.base_url + path, headers=headers) as answer:
            return answer.status, await answer.json()

    async def write_to(self, user: str, text: str) -> str:
        """Somebody writes to a user of it, and apps that may read that are told; the message's id."""
        body = {"user": user, "text": text}
        async with aiohttp.ClientSession() as http, http.post(f"{self.base_url}/admin/messages", json=body) as answer:
            return str((await answer.json())["id"])


def introduced(said: str) -> Provider:
    """From the lines that `posthouse sandbox` prints."""
    declaration = said.partition("posthouse.toml:")[2].partition("environment of")[0]
    told = tomllib.loads(declaration)["integrations"][NAME]
    profile = told["access_profiles"][PROFILE]
    return Provider(
        base_url=told["settings"]["base_url"],
        return_url=told["return_urls"][0],
        scopes=frozenset(profile["required"] + profile["optional"]),
        required=profile["required"][-1],
        declaration=declaration,
        environment=dict(re.findall(r"export (\w+)='(.*)'", said)),  # the secrets: what is no secret has no quotes
    )


@dataclass(frozen=True, slots=True)
class Connected:
    """A completed session, and what the person saw."""

    connection: str
    state: str
    reason: str | None  # of the grant's state
    missing: tuple[str, ...]
    asked: frozenset[str]  # scopes that the provider's page was about
    page: str | None  # the last one's heading; None: the browser went straight back


class Person:
    """Somebody at a browser of their own, whose account at the provider is `user`."""

    def __init__(self, posthouse: Client, provider: Provider, user: str, secrets: set[str]) -> None:
        self._posthouse, self._provider, self._user, self._secrets = posthouse, provider, user, secrets

    async def connect(self, *, untick: Collection[str] = (), **wanted: Any) -> Connected:
        """The whole way, from a link to its completion.    Raises: Broken, it ended elsewhere; PosthouseError."""
        body = {"return_url": self._provider.return_url, **wanted}
        session = await self._posthouse.request("POST", "/v1/connect/sessions", json=body)
        self._secrets.add(session["url"].rpartition("/")[2])
        try:
            asked, code, page = await self._consent(session["url"], untick)
        except (AssertionError, httpx.HTTPError, aiohttp.ClientError) as trouble:
            raise Broken(f"the browser cannot go on: {type(trouble).__name__}") from None  # pages hold secrets
        self._secrets.add(code)
        done = await self._posthouse.request(
            "POST", f"/v1/connect/sessions/{session['id']}/complete", json={"code": code}
        )
        grant = done["grants"][PROFILE]
        return Connected(
            done["connection"],
            done["connection_state"],
            grant["reason"],
            tuple(grant["scopes"]["missing"]),
            asked,
            page,
        )

    async def _consent(self, link: str, untick: Collection[str]) -> tuple[frozenset[str], str, str | None]:
        """Scopes that were asked for, the code for the platform, and what the last page says.    Raises: AssertionError."""
        browser = Browser()
        try:
            sent_off = await browser.press(await browser.get(link))
            assert sent_off.is_redirect
            authorize_url = sent_off.headers["location"]
            last = await browser.get(await consent(authorize_url, user=self._user, untick=untick))
        finally:
            await browser.close()
        shown = None if last.is_redirect else heading(last)
        back = last.headers["location"] if shown is None else _link(last.text, self._provider.return_url)
        assert back.startswith(self._provider.return_url)
        return frozenset(_query(authorize_url)["scope"].split()), _query(back)["code"], shown


def fingerprint(token: Token) -> str:
    """What may be shown of a token: that it is another one than before, and no character of it."""
    value = token.access_token
    return f"{token.token_type}, {len(value)} characters, sha256 {hashlib.sha256(value.encode()).hexdigest()[:8]}…"


def _link(page: str, to: str) -> str:
    found = re.search(rf'href="({re.escape(to)}[^"]*)"', page)
    assert found is not None
    return unescape(found[1])


def _query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))
