"""What the sandbox remembers. Reprs show no secret and no token, as anywhere else in the house."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Rotation = Literal["none", "strict", "grace"]

SCOPES: Mapping[str, str] = {
    "profile": "See your name and e-mail address",
    "messages.read": "Read your messages",
    "messages.write": "Write messages as you",
    "contacts.read": "See your contacts",
}


@dataclass(frozen=True, slots=True)
class User:
    """An account of the sandbox."""

    id: str
    name: str
    email: str


USERS: Mapping[str, User] = {
    user.id: user
    for user in (
        User("user-1", "Ada Example", "ada@sandbox.example"),
        User("user-2", "Ben Example", "ben@sandbox.example"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How this provider behaves; may be replaced while it runs (`PATCH /admin/rules`)."""

    access_ttl_s: int = 3600
    refresh_ttl_s: int = 30 * 24 * 3600  # since its issue, or its last use where it is not rotated
    code_ttl_s: int = 60
    rotation: Rotation = "strict"  # strict: an old refresh token that comes again ends its grant
    grace_s: int = 30  # with rotation = grace: how long an old one still works after its first use
    refresh_ends_access: bool = False  # a refresh kills the grant's older access tokens too


@dataclass(slots=True, kw_only=True)
class Client:
    """An app that is registered here."""

    id: str
    secret: str | None = field(repr=False)  # None: a public client, PKCE alone
    name: str
    redirect_uris: tuple[str, ...]
    scopes: tuple[str, ...] = tuple(SCOPES)
    webhook_url: str | None = None
    webhook_secret: str = field(repr=False, default="")  # whsec_…


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """A valid authorization request whose page lies before a user."""

    id: str = field(repr=False)
    client: Client
    redirect_uri: str
    scopes: tuple[str, ...]  # asked for
    state: str | None = field(repr=False)
    challenge: str = field(repr=False)
    login_hint: str | None
    adds: bool  # to what the user has given the client before
    asked_at: datetime


@dataclass(slots=True)
class Grant:
    """What one consent gave (or, without a user, what a client has by its own credentials)."""

    id: str
    client_id: str
    user: str | None
    scopes: frozenset[str]
    created_at: datetime
    ended_at: datetime | None = None
    cause: str | None = None  # of its end
    access_tokens: list[Token] = field(default_factory=list, repr=False)  # that a refresh may have to end


@dataclass(slots=True, kw_only=True)
class Code:
    """An authorization code."""

    client_id: str
    redirect_uri: str
    challenge: str = field(repr=False)
    user: str
    scopes: frozenset[str]
    expires_at: datetime
    used: bool = False
    grant: Grant | None = None  # what it was exchanged for


@dataclass(slots=True, kw_only=True)
class Token:
    """An access or a refresh token."""

    kind: Literal["access_token", "refresh_token"]
    grant: Grant
    scopes: frozenset[str]
    issued_at: datetime
    expires_at: datetime
    used_at: datetime | None = None  # of a refresh token that was rotated: when first
    ended: bool = False

    def lives(self, now: datetime) -> bool:
        """May it still be used (for a refresh token: apart from the rules of rotation)?"""
        return not self.ended and self.grant.ended_at is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class Message:
    """Something to read and write through the API."""

    id: str
    user: str
    text: str
    created_at: datetime

    def as_json(self) -> dict[str, str]:
        return {"id": self.id, "user": self.user, "text": self.text, "created_at": self.created_at.isoformat()}
