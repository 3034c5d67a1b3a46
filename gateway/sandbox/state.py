"""The state of one sandbox, in memory, and where its secrets come from."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.clock import Clock, random_bytes
from gateway.sandbox.records import SCOPES, Client, Code, Consent, Grant, Message, Rules, Token
from gateway.sandbox.webhooks import Webhooks

Chance = Callable[[int], bytes]
MOST_MESSAGES = 10_000
MOST_CONSENTS = 1000


@dataclass(slots=True)
class Sandbox:
    """One provider. `issuer` is its base URL, as clients and browsers see it, without a trailing slash."""

    issuer: str
    clock: Clock
    rules: Rules = field(default_factory=Rules)
    chance: Chance = field(default=random_bytes, repr=False)
    clients: dict[str, Client] = field(default_factory=dict, repr=False)
    consents: dict[str, Consent] = field(default_factory=dict, repr=False)
    codes: dict[str, Code] = field(default_factory=dict, repr=False)
    grants: dict[str, Grant] = field(default_factory=dict, repr=False)
    tokens: dict[str, Token] = field(default_factory=dict, repr=False)
    messages: list[Message] = field(default_factory=list, repr=False)
    webhooks: Webhooks = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.webhooks = Webhooks(self.clock, self.new)

    def new(self, prefix: str, length: int = 18) -> str:
        """A name or a secret that was never there: `prefix_` and random text. 18 bytes are enough for a token."""
        return f"{prefix}_{base64.urlsafe_b64encode(self.chance(length)).decode().rstrip('=')}"

    def register(
        self,
        name: str,
        redirect_uris: Iterable[str],
        *,
        id: str | None = None,
        secret: str | None = None,
        public: bool = False,
        scopes: Iterable[str] = SCOPES,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
    ) -> Client:
        """A new client; id and secrets are made where they are not given. It replaces one of the same id."""
        client = Client(
            id=id or self.new("app", 6),
            secret=None if public else secret or self.new("secret", 24),
            name=name,
            redirect_uris=tuple(redirect_uris),
            scopes=tuple(scopes),
            webhook_url=webhook_url,
            webhook_secret=webhook_secret or "whsec_" + base64.b64encode(self.chance(32)).decode(),
        )
        self.clients[client.id] = client
        return client

    def write(self, user: str, text: str) -> Message:
        """A message of `user`'s; apps that may read them are told."""
        message = Message(self.new("msg", 9), user, text, self.clock.now())
        self.messages.append(message)
        del self.messages[:-MOST_MESSAGES]
        readers = {
            grant.client_id
            for grant in self.grants.values()
            if grant.user == user and grant.ended_at is None and "messages.read" in grant.scopes
        }
        for client in [self.clients[id] for id in sorted(readers) if id in self.clients]:
            self.webhooks.tell(client, "message.created", message.as_json(), user)
        return message

    def lay_open(self, consent: Consent) -> None:
        """Keep a consent whose page is shown; the oldest of too many is forgotten."""
        self.consents[consent.id] = consent
        while len(self.consents) > MOST_CONSENTS:
            del self.consents[next(iter(self.consents))]
