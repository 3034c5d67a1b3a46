"""What can go wrong between platform code and the gateway, told apart by what the caller does next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MOST_RETRY_AFTER_S = 300.0


class PosthouseError(Exception):
    """Everything that this package raises by itself."""


class Unreachable(PosthouseError):
    """No usable answer: refused, reset, cut off, timed out. Worth another try."""


class ApiError(PosthouseError):
    """The gateway said no, with a problem+json that says why.

    `code` is the stable end of the problem's `type`; `extra` holds its further members.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.type = str(problem.get("type", "about:blank"))
        self.detail = str(problem.get("detail") or problem.get("title") or "")
        self.request_id = str(problem.get("request_id", ""))
        self.retry_after_s = retry_after_s
        self.extra = {k: v for k, v in problem.items() if k not in ("type", "title", "status", "detail", "request_id")}
        super().__init__(f"{status} {self.code}: {self.detail} (request {self.request_id or 'unknown'})")

    @property
    def code(self) -> str:
        """`not_found`, `stale_fence` and so on; "" where the answer did not come from the gateway."""
        return self.type.rpartition("/")[2] if "/" in self.type else ""


class Unauthenticated(ApiError):
    """The API key is unknown, expired or revoked."""


class Forbidden(ApiError):
    """The key's role does not allow that."""


class NotFound(ApiError):
    """No such thing."""


class Conflict(ApiError):
    """It does not fit the present state."""


class NotIssued(Conflict):
    """No token is handed out in the grant's present state, and waiting alone does not change that: `do` says what does.

    `reconnect`: send the user through a connect session of this connection; `connect`: through a new one; `complete`:
    the one under way; `wait`: the provider may lift it; `activate`: the import; `name_profile`: one of `access_profiles`.
    """

    @property
    def do(self) -> str:
        return str(self.extra.get("do", ""))

    @property
    def state(self) -> str:
        return str(self.extra.get("state", ""))

    @property
    def access_profiles(self) -> list[str]:
        return [str(name) for name in self.extra.get("access_profiles", [])]


class Invalid(ApiError):
    """The request does not fit its model; `extra["errors"]` says what and where."""


class Unavailable(ApiError):
    """The gateway, or what it stands on, is away or too busy. Nothing was done; `retry_after_s` is its wish."""


class Checking(Unavailable):
    """Whether the grant still works is being checked; `retry_after_s` says when to ask again."""


class StaleFence(Conflict):
    """These `partitions` were given to another worker."""

    @property
    def partitions(self) -> list[int]:
        return [int(one) for one in self.extra.get("partitions", [])]


class CursorGone(ApiError):
    """The stream no longer holds what follows the cursor. Going on at `earliest` means having missed something."""

    @property
    def earliest(self) -> str:
        return str(self.extra.get("earliest", "earliest"))


PASSING = (Unreachable, Unavailable)  # what another try may mend

_BY_CODE: dict[str, type[ApiError]] = {
    "checking": Checking,
    "stale_fence": StaleFence,
    "cursor_gone": CursorGone,
    **dict.fromkeys(
        (
            "access_profile_needed", "no_grant", "connection_pending", "connection_suspended", "reauth_required",
            "connection_revoked", "connection_closed", "held",
        ),
        NotIssued,
    ),
}  # fmt: skip
_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def from_answer(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error for an answer that is no success; one that is not a problem+json (a proxy's page) is taken by its status."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    return from_problem(status, problem if isinstance(problem, dict) else {}, _seconds(headers.get("Retry-After")))


def from_problem(status: int, problem: Mapping[str, Any], retry_after_s: float | None = None) -> ApiError:
    """The error for a problem object."""
    code = str(problem.get("type", "")).rpartition("/")[2]
    return (_BY_CODE.get(code) or _BY_STATUS.get(status) or ApiError)(status, problem, retry_after_s)


def _seconds(sent: str | None) -> float | None:
    """Retry-After in its usual form; the other (a date) is left to our own patience."""
    if sent is None or not sent.isascii() or not sent.isdigit():
        return None
    return min(float(sent[:9]), MOST_RETRY_AFTER_S)
