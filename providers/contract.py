"""What a provider module is: `FACTS`, and the abilities it has by having the function.

A module under `providers/` defines

- `FACTS: Facts` (always), each fact with the URL it comes from,
- `Settings`, a pydantic model (`extra="forbid"`) of what an integration must say beside its secrets (optional),
- `verify(delivery, trust, now) -> Verified`: raise `Refused` unless the provider sent exactly this (always),
- `items(delivery, verified) -> Sequence[Item]`: what the verified request says, at least one (always),
- `challenge(delivery, trust) -> Answer | None`: the answer to a *signed* handshake, asked after `verify`,
- `handshake(delivery, trust) -> Answer | None`: the answer to an *unsigned* one, asked before `verify` and only
  where `FACTS.handshake` and the state of the hook endpoint allow it; raise `HandshakeRefused` for a bad form,
- `interpret(said) -> Sequence[Signal]`: what an item that `FACTS.signals` lists says about grants (providers/signals.py),
  of accounts that the item names; raise `Malformed` where it is not what its name says: it is set aside then, and
  nothing is guessed,
- `redact(data) -> bytes`: blank authenticators inside an item's bytes, at the same length; raise `Malformed`
  where that cannot be done, so that nothing is stored unblanked,
- `decline(delivery, refused) -> Answer | None`: the answer to a delivery that was refused, where its protocol has words
  for that (RFC 8935); None: our reason, by `Facts.refused_status`,
- `key_source(settings) -> KeySource | None`: where the keys are published that an integration with these settings
  trusts, where its settings say it (default: `FACTS.keys_url`),
- `check_secret(secret) -> str | None`: what is wrong with a configured signing secret, as the end of a sentence
  that starts with its name ("is shorter than …"), or None; `apply` and `doctor` ask. It never quotes the secret.

All of it is pure: no I/O, no clock (`now` is an argument), no global state. `registry` loads and checks modules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from providers.signals import Tells


# What is made anew for each delivery is not frozen: that trebles the cost of making one. Nobody changes it all the same.
@dataclass(slots=True)
class Delivery:
    """One inbound HTTP request, as received. Its repr shows no place where a secret may stand."""

    method: str  # upper case
    url: str = field(repr=False)  # public base URL from configuration + path and query exactly as sent
    path: str  # the path as sent, without the query
    query: str = field(repr=False)  # the query as sent (percent-encoded), without "?"
    headers: Mapping[str, str] = field(repr=False)  # lower-case names; values decoded as latin-1: any byte fits
    body: bytes = field(repr=False)  # exactly the bytes received


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verifier may rely on. Its repr shows no secret."""

    # Newest first; of the endpoint if the URL names one that has its own.
    secrets: tuple[bytes, ...] = field(repr=False)
    endpoint: bool  # the request came to /hooks/{integration}/{endpoint}
    settings: Mapping[str, Any] = field(default_factory=dict)  # the integration's, validated by the module's `Settings`
    client_id: str | None = None
    keys: Mapping[str, Any] = field(default_factory=dict, repr=False)  # by kid, as published at Provider.keys_at


@dataclass(slots=True)
class Verified:
    """How a delivery was verified. Stored with each event; holds nothing secret."""

    scheme: str  # the provider's name for it: "v0", "sha256", "oidc", "client_state" …
    secret: int = 0  # which of Trust.secrets matched (0 = newest): tells when an old one may go
    signed_at: datetime | None = None  # the time that the signature covers, if it covers one
    only: frozenset[int] | None = None  # where each item is verified by itself: the indexes that were; None = all
    accounts: tuple[str, ...] = ()  # account keys that only the integration's settings tell how to find, for items()
    ack_status: int | None = None  # of this scheme, where it is another than Facts.ack_status


@dataclass(slots=True)
class Item:
    """One thing that a delivery says; it becomes one event.

    `data` is a slice of the body as sent, never re-serialised (of a signed token: of what it says, decoded; the token
    itself would verify anywhere for ever). `dedupe` is whatever the provider makes unique for
    this item and repeats on a retry; None where there is no such thing, and then nothing is deduplicated.
    """

    event: str  # the provider's event name, through `event_name`; the tail of the CloudEvents type
    data: bytes
    content_type: str = "application/json"
    accounts: tuple[str, ...] = ()  # keys by which connections are found, e.g. ("team:T1", "user:T1/U2")
    dedupe: str | None = None
    occurred_at: datetime | None = None  # by the provider's clock, as far as the item tells
    signal: bool = False  # may say something about a grant: the follower reads only these


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where public keys are published, and in which form: as of `Facts.keys_format`."""

    provider: str  # Facts.name
    url: str
    form: Literal["jwks", "pem"] = "jwks"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer to a provider."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Handshake:
    """Where an unsigned handshake may be answered, and by which methods."""

    methods: frozenset[str]
    # "confirming": only at a hook endpoint that waits for it (PROTOCOLS 7); "always": the answer proves nothing
    where: Literal["confirming", "always"] = "confirming"
    max_body: int = 4096  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the gateway must know of a provider to take its deliveries. Numbers carry their unit in the name."""

    name: str  # file name with "-" for "_": also the middle of the event type
    title: str
    docs_url: str
    signature_headers: tuple[str, ...] = ()  # authenticators: refused when doubled, never stored
    identity_headers: tuple[str, ...] = ()  # delivery id and timestamp: refused when doubled
    kept_headers: tuple[str, ...] = ()  # what an event carries, an allow-list (identity headers come by themselves)
    timestamp_tolerance_s: int | None = None  # absolute difference; None where the scheme signs no time
    # The provider's longest retry or resend, at least 72 h: how long a dedupe key is kept (PROTOCOLS 2).
    dedupe_window_s: int = 72 * 3600
    signs_with: Literal["signing_secrets", "client_secrets", "keys", "endpoint"] = "signing_secrets"
    keys_url: str | None = None  # where the provider publishes its public keys
    # What is there: a JWKS document, or an object of kid -> PEM. Trust.keys has a JWK or a PEM text for each kid.
    keys_format: Literal["jwks", "pem"] = "jwks"
    ack_status: int = 200
    ack_deadline_s: float = 10.0
    refused_status: int = 401  # what this provider's rules want for a wrong signature
    # What to answer while the delivery cannot be kept. Slack switches an app off when most answers fail, so
    # even here it is 503: losing the retry is worse; `retries` False means the outage is a gap on record.
    retries: bool = True
    handshake: Handshake | None = None
    signals: tuple[Tells, ...] = ()  # the items that can say something about a grant
    # How far the provider's clock and ours may differ when a signed time is compared with a grant's (PROTOCOLS 4).
    clock_margin_s: int = 60
    one_service: bool = True  # all integrations speak to one service: its condition is theirs. False: each to its own

    def is_signal(self, event: str) -> bool:
        """May an item of that name say something about a grant?"""
        return any(event == tells.event for tells in self.signals)


_PLAIN_NAME = re.compile(r"[a-z0-9_-]([a-z0-9_.-]{0,98}[a-z0-9_-])?")


@lru_cache(maxsize=4096)  # names are few and repeat
def event_name(raw: str) -> str:
    """`raw` as the tail of an event type: lower case, only `a-z 0-9 _ . -`, 100 characters at most.

    Anything else becomes "_", and nothing at all becomes "unknown": odd names must not break a type filter.
    """
    if _PLAIN_NAME.fullmatch(raw):  # nearly always: this is on the hot path
        return raw
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in raw[:100]).lower()
    return cleaned.strip(".") or "unknown"


__all__ = [
    "Answer",
    "Delivery",
    "Facts",
    "Handshake",
    "Item",
    "KeySource",
    "Sequence",
    "Trust",
    "Verified",
    "event_name",
]
