"""An authorization server that we did not write: panva's oidc-provider, on Node. `npm ci` in this folder brings it.

It keeps everything in memory, asks whoever comes to log in and to consent (its own pages for development), rotates refresh
tokens, and revokes the whole grant when one that was used comes again.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urljoin

import httpx

from tests.connect.browser import Browser
from tests.fakes.browser import Forms, PageError

HERE = Path(__file__).parent
CLIENT_ID, CLIENT_SECRET = "posthouse", "a secret/of the client+"  # such as basic authentication must encode
PATIENCE_S = 30


def missing() -> str | None:
    """Why it cannot run here; None: it can."""
    if shutil.which("node") is None:
        return "no Node.js here"
    if not (HERE / "node_modules" / "oidc-provider").is_dir():
        return f"oidc-provider is not installed: npm ci in {HERE.name} brings it (.ci/run does)"
    return None


@dataclass
class OidcServer:
    """The server, and what it has said: a success, an error or a revocation each."""

    process: asyncio.subprocess.Process = field(repr=False)
    url: str = ""
    said: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """Of an integration of provider generic-oauth2."""
        return {
            "authorize_url": f"{self.url}/auth", "token_url": f"{self.url}/token", "revoke_url": f"{self.url}/token/revocation",
            "userinfo_url": f"{self.url}/me", "client_auth": "basic", "rotation": "strict", "probe_acquits": True,
        }  # fmt: skip

    def of(self, event: str, grant_type: str = "refresh_token") -> list[dict[str, Any]]:
        """What it said of that kind."""
        return [one for one in self.said if one["event"] == event and one.get("grant_type") in (None, grant_type)]

    async def hear(self) -> None:
        """Until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(json.loads(line))

    async def refresh(self, refresh_token: str) -> tuple[int, dict[str, Any]]:
        """Spend a refresh token as its client, whoever has it."""
        auth = (quote_plus(CLIENT_ID), quote_plus(CLIENT_SECRET))  # RFC 6749 section 2.3.1
        async with httpx.AsyncClient(auth=auth, trust_env=False) as http:
            answer = await http.post(
                f"{self.url}/token", data={"grant_type": "refresh_token", "refresh_token": refresh_token}
            )
            return answer.status_code, answer.json()


@asynccontextmanager
async def oidc_server(redirect_uri: str) -> AsyncIterator[OidcServer]:
    """On a free port."""
    process = await asyncio.create_subprocess_exec(
        "node", str(HERE / "server.mjs"), CLIENT_ID, CLIENT_SECRET, redirect_uri, cwd=HERE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    server = OidcServer(process)
    hearing: asyncio.Task[None] | None = None
    try:
        first = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S))
        server.url = first["url"]
        hearing = asyncio.create_task(server.hear())
        yield server
    finally:
        process.kill()
        await process.wait()
        if hearing is not None:
            await hearing


async def consent(browser: Browser, url: str, user: str, until: str) -> str:
    """Log in and agree on its pages; where it sends the browser in the end, which begins with `until`.

    Raises: PageError, it shows something else.
    """
    answer = await browser.get(url)
    while True:
        if answer.is_redirect:
            url = urljoin(str(answer.url), answer.headers["location"])
            if url.startswith(until):
                return url
            answer = await browser.get(url)
            continue
        forms = [found for found in Forms(answer.text).found if found.method == "post"]
        if answer.status_code != 200 or len(forms) != 1:
            raise PageError(f"{answer.status_code}: {answer.text}")
        typed = {"login": user, "password": "whatever"}
        sent = {name: typed.get(name, value) for name, value in forms[0].fields}
        answer = await browser.http.post(urljoin(str(answer.url), forms[0].action), data=sent)
