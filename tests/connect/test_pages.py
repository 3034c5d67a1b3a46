"""The pages themselves: plain, readable by machines that read aloud, and escaped; and what they say while we are away."""

from __future__ import annotations

import random
from html.parser import HTMLParser
from typing import get_args
from uuid import uuid4

import pytest
from pydantic import SecretStr

from gateway.clock import Clock
from gateway.connect import pages
from gateway.connect.outcomes import Kind, Offer, Told
from gateway.service import Gateway
from gateway.settings import Settings
from gateway.web.connect_pages import Pages
from tests import wire

HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}'


class Read(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_outcome_has_its_page(kind: Kind) -> None:
    """One heading, a language, a title, a style with its nonce, nothing else that loads or runs."""
    outcome = Told(
        kind=kind, title=HOSTILE, session=uuid4(), back="https://app.example.com/?a=1&b=" + HOSTILE, missing=(HOSTILE,)
    )
    page = pages.told(outcome)
    read = Read(pages.rendered(page, "nonce"))
    names = [tag for tag, _ in read.tags]
    assert [names.count(tag) for tag in ("h1", "main", "title", "style", "script", "img", "link")] == [
        1,
        1,
        1,
        1,
        0,
        0,
        0,
    ]
    assert ("html", {"lang": "en"}) in read.tags
    assert ("style", {"nonce": "nonce"}) in read.tags
    assert [attrs["href"] for tag, attrs in read.tags if tag == "a"] == [outcome.back]
    assert ("form" in names) == (pages.WORDS[kind].again)
    assert 200 <= page.status < 600


def test_the_offer_says_what_will_happen() -> None:
    """And has the one button."""
    page = pages.rendered(pages.offered(Offer(title=HOSTILE, consents=2, scopes=("a.b",), reconnects=True)), "n")
    assert [tag for tag, _ in Read(page).tags].count("button") == 1
    assert b"ask you 2 times" in page
    assert b"alert(1)</script>" not in page
    assert b"49" not in page


async def test_while_the_database_is_away_pages_say_so(settings: Settings, clock: Clock) -> None:
    """503 and when to come back; the link is as good as before."""
    assert settings.database_url is not None
    async with wire.wire(settings.database_url.get_secret_value()) as line:
        gateway = await Gateway.open(settings.model_copy(update={"database_url": SecretStr(line.dsn)}), clock)
        try:
            shown = Pages(gateway)
            assert (await shown.answer("GET", b"/connect/" + b"A" * 43, b"", [])).status == 404
            await line.cut()
            for method, path, query in (
                ("GET", b"/connect/" + b"A" * 43, b""), ("POST", b"/connect/" + b"A" * 43, b""),
                ("GET", b"/oauth/callback/any", b"code=x&state=" + b"A" * 43),
            ):  # fmt: skip
                answer = await shown.answer(method, path, query, [])
                assert (answer.status, dict(answer.headers)["retry-after"]) == (503, "2")
                assert b"Not available just now" in answer.body
            await line.mend()
        finally:
            await gateway.close()


PIECES = [
    b"/connect/", b"/oauth/callback/", b"sandbox", b"A" * 43, b"A" * 42 + b"\xff", b"sess_" + b"0" * 32, b"..", b"//", b"%00", b"%2e%2e", b"\x00",
    b"?", b"&", b"=", b"state=", b"code=", b"error=", b"iss=", b"state=" + b"A" * 43, b"x" * 20_000, "\u00fc".encode(), b";", b"\r\nset-cookie: a=b",
    b"posthouse-connect=" + b"A" * 43, b"__Host-posthouse-connect=" + b"B" * 43, b"{integration}", b"<script>",
]  # fmt: skip


async def test_whatever_is_sent_has_an_answer(gateway: Gateway) -> None:
    """Two thousand odd requests: none is a fault of ours, none changes anything, none is reflected."""
    chance, shown = random.Random(7), Pages(gateway)

    def odd() -> bytes:
        return b"".join(chance.choices(PIECES, k=chance.randrange(5)))

    for _ in range(2000):
        path = chance.choice([b"/connect/", b"/oauth/callback/", b""]) + odd()
        headers = [
            (chance.choice([b"cookie", b"origin", b"sec-fetch-site", b"accept"]), odd())
            for _ in range(chance.randrange(4))
        ]
        answer = await shown.answer(chance.choice(["GET", "HEAD", "POST", "PUT", "BREW"]), path, odd(), headers)
        assert (answer.status < 500, b"<script>" in answer.body) == (True, False), (path, headers)
        assert all(value.isprintable() for _, value in answer.headers)
