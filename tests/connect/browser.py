"""A browser, as far as connecting needs one: cookies, redirects that stop where a test wants, forms that are pressed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx


@dataclass
class Browser:
    """One browser with its own cookie jar."""

    http: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=20, trust_env=False, follow_redirects=False)
    )

    async def get(self, url: str) -> httpx.Response:
        """A page, or the redirect that it is."""
        return await self.http.get(url, headers={"accept": "text/html"})

    async def press(self, page: httpx.Response, **headers: str) -> httpx.Response:
        """The button of `page`."""
        form = re.search(r'<form method="post"(?: action="([^"]*)")?>', page.text)
        assert form is not None, page.text
        action = urljoin(str(page.url), unescape(form[1] or ""))
        sent = {"origin": "null", "sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}
        return await self.http.post(action, headers={**sent, **headers})

    async def through(self, url: str, *, until: str) -> httpx.Response:
        """Press the link's button and follow redirects to the first answer that is none, or that leads to `until`."""
        answer = await self.press(await self.get(url))
        return await self.follow(answer, until=until)

    async def follow(self, answer: httpx.Response, *, until: str = "nowhere:") -> httpx.Response:
        while answer.is_redirect and not answer.headers["location"].startswith(until):
            answer = await self.get(urljoin(str(answer.url), answer.headers["location"]))
        return answer

    async def close(self) -> None:
        await self.http.aclose()


def query_of(answer: httpx.Response) -> dict[str, str]:
    """The query of where a redirect leads."""
    assert answer.is_redirect, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def heading(page: httpx.Response) -> str:
    """What the page is about."""
    found = re.search(r"<h1>(.*?)</h1>", page.text, re.DOTALL)
    assert found is not None, page.text
    return unescape(found[1])
