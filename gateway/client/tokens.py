"""An access token as platform code holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token of a connection. Its repr shows nothing of it; `refresh_after` says when to ask for the next."""

    access_token: str = field(repr=False)
    token_type: str
    connection: str
    access_profile: str
    expires_at: datetime | None  # None: it does not expire
    refresh_after: datetime | None
    generation: int
    token_version: int
    scopes: tuple[str, ...]
    missing_scopes: tuple[str, ...]

    @property
    def authorization(self) -> str:
        """The value of an Authorization header."""
        return f"{self.token_type} {self.access_token}"


def read(answer: Mapping[str, Any]) -> Token:
    """The answer of `GET /v1/connections/{id}/token`."""
    return Token(
        access_token=answer["access_token"], token_type=answer["token_type"], connection=answer["connection"],
        access_profile=answer["access_profile"], expires_at=_time(answer["expires_at"]),
        refresh_after=_time(answer["refresh_after"]), generation=answer["generation"],
        token_version=answer["token_version"], scopes=tuple(answer["scopes"]),
        missing_scopes=tuple(answer["missing_scopes"]),
    )  # fmt: skip


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
