"""A provider by script: an `Http` that answers by method and URL, and keeps what it was asked.

It holds every request to what the gateway's way out will: a client secret travels only in a request that says so, and
only hosts that the facts name are called.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from providers.calls import Request, Response
from providers.oauth import PART, App, OAuthFacts

Answer = Response | list[Response]


def answer(said: Any = None, status: int = 200, **headers: str) -> Response:
    """A JSON answer; bytes as they are; None: no body."""
    body = said if isinstance(said, bytes) else b"" if said is None else json.dumps(said).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


class Script:
    """Answers for `(method, url)`; a list is answered one by one, and whatever is not in the script fails the test."""

    def __init__(self, facts: OAuthFacts, app: App, answers: Mapping[tuple[str, str], Answer]) -> None:
        self.facts, self.app = facts, app
        self.answers = {key: [said] if isinstance(said, Response) else list(said) for key, said in answers.items()}
        self.sent: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.sent.append(request)
        self._hold(request)
        left = self.answers.get((request.method, request.url))
        assert left, f"not in the script: {request.method} {request.url}"
        return left.pop(0)

    def _hold(self, request: Request) -> None:
        assert urlsplit(request.url).netloc in hosts(self.facts, self.app)
        shown = " ".join([request.body.decode(), *request.headers.values(), *map(_basic, request.headers.values())])
        carries = any(self.app.client_secret in text for text in (shown, unquote(shown), unquote_plus(shown)))
        assert carries <= request.carries_client_secret
        for secret in (self.app.client_secret, *shown_tokens(request)):
            assert secret not in request.url
            assert secret not in repr(request)


def hosts(facts: OAuthFacts, app: App) -> set[str]:
    """The hosts of the facts' URLs, parts filled in."""
    urls = [facts.token_url, facts.revoke_url, facts.api_base, *(f"https://{host}" for host in facts.api_hosts)]
    known = {**facts.default_parts, **app.parts, **app.settings}
    return {urlsplit(PART.sub(lambda part: str(known[part[1]]), url)).netloc for url in urls if url is not None}


def shown_tokens(request: Request) -> list[str]:
    """What a request carries as a token."""
    bearer = request.headers.get("authorization", "")
    fields = fields_of(request)
    found = [bearer.removeprefix("Bearer ")] if bearer.startswith("Bearer ") else []
    return found + [fields[name] for name in ("token", "refresh_token", "access_token") if name in fields]


def fields_of(request: Request) -> dict[str, str]:
    """The fields of a body, form or JSON."""
    if request.headers.get("content-type") == "application/json":
        said = json.loads(request.body)
        assert isinstance(said, dict)
        return said
    pairs = parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=bool(request.body))
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def _basic(value: str) -> str:
    return base64.b64decode(value.removeprefix("Basic ")).decode() if value.startswith("Basic ") else ""
