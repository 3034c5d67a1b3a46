"""A signer plays a provider: it turns a body into a request that this provider could have sent.

Contract tests use it in memory (`signed`), the demo, the fuzz run and the chaos suites over HTTP (`headers`).
`tests.signers.SIGNERS` holds one or several per provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from providers.contract import Delivery, Trust

URL = "https://hooks.example.com/hooks/int_1"
NOW = datetime.fromisoformat("2026-11-23T12:00:00+00:00")


class Headers(Protocol):
    """Headers (lower-case names) that the provider would send with exactly this body to exactly this URL.

    `delivery_id` becomes the provider's delivery id where that is a header; others have theirs in the body.
    """

    def __call__(self, body: bytes, secret: bytes, now: datetime, *, delivery_id: str, url: str) -> dict[str, str]: ...


class Sealed(Protocol):
    """The body with what proves it put into it, where the provider sends that there (Graph's clientState, Linear's time)."""

    def __call__(self, body: bytes, secret: bytes, now: datetime) -> bytes: ...


def _as_it_is(body: bytes, secret: bytes, now: datetime) -> bytes:
    return body


def _whole(body: bytes) -> bytes:
    return body


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One way in which a provider signs, with all that a test needs to use it."""

    provider: str  # FACTS.name
    secrets: tuple[bytes, bytes, bytes] = field(repr=False)  # the newest, the one before it, another app's
    bodies: tuple[bytes, ...]  # as the provider sends them: the first is an everyday one
    headers: Headers
    fresh: Callable[[str], bytes] | None = None  # an everyday body with this delivery id, where the id is in the body
    sealed: Sealed = _as_it_is
    told: Callable[[bytes], bytes] = _whole  # what a sealed body says: items are slices of it (of a signed token)
    method: str = "POST"
    endpoint: bool = False  # sends to /hooks/{integration}/{endpoint}
    covers_body: bool = True  # False: the authenticator says nothing about the body (tokens, OIDC)
    ignored_headers: frozenset[str] = frozenset()  # authenticators that it sends and we never look at
    signs_time: bool = True  # an old or a future signature is refused
    settings: Mapping[str, Any] = field(default_factory=dict)
    client_id: str | None = None
    keys: Mapping[str, Any] = field(default_factory=dict, repr=False)  # Trust.keys; some: it is known by these alone
    ack_status: int | None = None  # where they are not the provider's: of this way of sending
    refused_status: int | None = None


def signed(
    signer: Signer,
    body: bytes | None = None,
    *,
    now: datetime = NOW,
    secret: bytes | None = None,
    delivery_id: str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
    url: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Delivery:
    """A delivery that `signer` signed at `now`; `headers` are put over those it made."""
    secret = signer.secrets[0] if secret is None else secret
    url = url or (URL + "/ep_1" if signer.endpoint else URL)
    body = signer.sealed(signer.bodies[0] if body is None else body, secret, now)
    made = signer.headers(body, secret, now, delivery_id=delivery_id, url=url)
    parts = urlsplit(url)
    return Delivery(
        method=signer.method,
        url=url,
        path=parts.path,
        query=parts.query,
        headers={**made, **(headers or {})},
        body=body,
    )


def fresh(signer: Signer, delivery_id: str) -> bytes:
    """A body that, sent with this `delivery_id`, is a delivery of its own to every deduplication."""
    return signer.fresh(delivery_id) if signer.fresh else signer.bodies[0]


def trusting(signer: Signer, *secrets: bytes) -> Trust:
    """What the gateway would hand to the verifier; `secrets` instead of the signer's newest, newest first."""
    return Trust(
        secrets=secrets or signer.secrets[:1],
        endpoint=signer.endpoint,
        settings=signer.settings,
        client_id=signer.client_id,
        keys=signer.keys,
    )
