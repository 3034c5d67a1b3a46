"""Hears every answer that a gateway gives while it is exercised, and gathers the secrets that pass by."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.canaries.search import SHORTEST
from tests.fakes.provider import FakeProvider
from tests.web.conftest import ROUTES

PUBLIC = ("/connect/{link}", "/oauth/callback/{integration}", "/hooks/{integration}/{endpoint}", "/hooks/{integration}")

# The answers that are meant to show a secret, and of which kind: none else may, and no error ever.
SHOWN = {
    "POST /v1/keys": {"API key"},
    "POST /v1/endpoints": {"made endpoint secret"},
    "POST /v1/endpoints/{endpoint_id}/secrets": {"made endpoint secret"},
    "POST /v1/connect/sessions": {"link token"},
    "GET /v1/connections/{connection_id}/token": {"access token"},
    "POST /connect/{link}": {"state", "browser cookie"},  # the way to the provider
    "GET /oauth/callback/{integration}": {
        "completion code",
        "state",
    },  # the way back to the platform; to the next consent
}
UNKNOWN_NAME = "unknown name"


@dataclass
class Canaries:
    """Secrets by name: their kind and a number."""

    known: dict[str, str | bytes] = field(default_factory=dict, repr=False)
    _counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, kind: str, *secrets: str | bytes | None) -> None:
        """What is no secret, or known already, is passed over."""
        for secret in secrets:
            if secret is not None and len(secret) >= SHORTEST and secret not in self.known.values():
                self._counts[kind] += 1
                self.known[f"{kind} {self._counts[kind]}"] = secret

    def kinds(self) -> set[str]:
        """The kinds that were met."""
        return set(self._counts)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{[a-z_]+\\}", "[^/]+", re.escape(template)))


TEMPLATES = sorted({r.path for r in ROUTES} | set(PUBLIC) | {"/openapi.json"}, key=lambda path: path.count("{"))
PATTERNS = [(template, _pattern(template)) for template in TEMPLATES]


@dataclass
class Ear:
    """Every answer: `places` is where each was heard, with its headers and body; `answered` the statuses by route."""

    canaries: Canaries
    places: list[tuple[str, bytes]] = field(default_factory=list, repr=False)
    answered: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def listen(self, http: httpx.AsyncClient) -> None:
        http.event_hooks = {"response": [self._hear]}

    async def _hear(self, answer: httpx.Response) -> None:
        route = route_of(answer.request)
        self.answered[route].add(answer.status_code)
        body = b""
        if "text/event-stream" not in answer.headers.get("content-type", ""):  # without end: the test reads it
            body = await answer.aread()
        headers = b"\n".join(name + b": " + value for name, value in answer.headers.raw)
        self.note(f"{route} {answer.status_code}", headers + b"\n\n" + body)
        self._gather(answer)

    def note(self, place: str, text: bytes) -> None:
        self.places.append((place, text))

    def _gather(self, answer: httpx.Response) -> None:
        for value in answer.cookies.values():
            self.canaries.add("browser cookie", value)
        if answer.is_redirect:
            told = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
            self.canaries.add("state", told.get("state"))
            if "session" in told:
                self.canaries.add("completion code", told.get("code"))


def route_of(request: httpx.Request) -> str:
    """Method and template."""
    path = request.url.raw_path.decode().partition("?")[0]
    return f"{request.method} {next((name for name, shape in PATTERNS if shape.fullmatch(path)), 'unmatched')}"


def is_shown(canary: str, place: str) -> bool:
    """Whether that answer is the one that is meant to show it. The name of an unknown field is told to who sent it."""
    route, _, status = place.rpartition(" ")
    if canary.startswith(UNKNOWN_NAME):
        return status == "422" or place == "POST /v1/connections/import 200"
    return status.isdigit() and int(status) < 400 and canary.rpartition(" ")[0] in SHOWN.get(route, ())


def of_provider(canaries: Canaries, provider: FakeProvider) -> None:
    """What a provider knows: what it issued, and what it was sent."""
    sandbox = provider.sandbox
    canaries.add("code", *sandbox.codes)
    for value, token in sandbox.tokens.items():
        canaries.add("access token" if token.kind == "access_token" else "refresh token", value)
    for client in sandbox.clients.values():
        canaries.add("client secret", client.secret)
        canaries.add("signing secret", client.webhook_secret)
    for _, body in provider.bodies:
        canaries.add("PKCE verifier", *parse_qs(body.decode("latin-1")).get("code_verifier", ()))
