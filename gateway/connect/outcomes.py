"""What a step of a connect session comes to, as the browser is told. No text of a provider's is in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

Kind = Literal[
    "connected", "scopes_missing", "denied", "wrong_account", "provider_error", "misconfigured", "awaits_approval",
    "expired", "used", "unknown", "other_browser", "refused", "unavailable",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Redirect:
    """The browser goes on: to the provider for a consent, or back to the platform."""

    url: str
    cookie: str | None = None  # the browser's token, where it is to be remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The page behind a link: what would happen, and a button."""

    title: str  # of the provider
    consents: int  # how often its consent screen will show
    scopes: tuple[str, ...]
    reconnects: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A page that says how it went."""

    kind: Kind
    title: str = ""  # of the provider, where the session is known
    session: UUID | None = None  # where the same browser may begin again
    back: str | None = None  # the platform's return URL, with what it needs to know
    code: str | None = None  # the one-time code, where there is no return URL to bring it
    missing: tuple[str, ...] = ()


Outcome = Redirect | Offer | Told
