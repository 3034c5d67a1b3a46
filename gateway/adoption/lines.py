"""One connection as it is carried in and out: a line of a file, an entry of a batch.

Accounts are kept here as keyed hashes only, so an export cannot name them. It carries the hashes instead (`Marks`), with
a mark of the integration that they were made for: imported again into the same deployment they count, elsewhere they
are passed over, and the line must name the accounts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from gateway.connections.states import State

Kind = Literal["code", "client_credentials", "installation"]
Result = Literal["imported", "updated", "unchanged", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLine:
    """The token set of one access profile, as the world names its parts (RFC 6749)."""

    access_token: str | None = field(repr=False, default=None)
    refresh_token: str | None = field(repr=False, default=None)
    token_type: str = "Bearer"
    expires_at: datetime | None = None  # None: does not expire
    refresh_expires_at: datetime | None = None  # None: not known, or never
    scopes: tuple[str, ...] | None = None  # None: not known, taken as all that the access profile asks for
    parameters: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "code"

    def as_json(self) -> dict[str, Any]:
        """With the tokens. What is not there is left out."""
        told = {
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "token_type": self.token_type,
            "expires_at": self.expires_at,
            "refresh_expires_at": self.refresh_expires_at,
            "scopes": None if self.scopes is None else sorted(self.scopes),
            "parameters": dict(sorted(self.parameters.items())),
            "kind": self.kind,
        }
        return {name: value for name, value in told.items() if value is not None}

    def encoded(self) -> bytes:
        """Equal for equal token sets."""
        return orjson.dumps(self.as_json(), option=orjson.OPT_UTC_Z | orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Keyed hashes of who the account is, and for which integration of which deployment they hold."""

    of: UUID
    accounts: tuple[UUID, ...] = ()
    subject: UUID | None = None
    reach: Mapping[str, UUID] = field(default_factory=dict)  # by access profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One connection with its token sets."""

    tenant: str
    integration: str
    external_id: str
    end_user_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    accounts: tuple[str, ...] | None = None  # None: not told; those that are known stay
    subject: str | None = None
    reach: str | None = None  # what a revocation at the provider would reach, where that is more than this token
    access_profiles: Mapping[str, TokenLine] = field(default_factory=dict)
    marks: Marks | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a line. `reason` and `detail` where it was refused, or where the connection is not active."""

    result: Result
    connection_id: UUID | None = None
    state: State | None = None
    reason: str | None = None
    detail: str | None = None


class LineRefused(Exception):
    """This line cannot be. `reason` is stable; neither holds anything that the line said."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail
