"""Problems: what the API says when it cannot do as asked (RFC 9457), each with a stable `type`.

One class a kind of trouble, told apart by what the caller does next. `detail` is written for the caller and never
holds a secret, a token or a piece of a delivery's body.
"""

from __future__ import annotations

from typing import Any

TYPE_BASE = "https://posthouse.dev/problems/"  # an identifier, not an address that anything fetches


class Problem(Exception):
    """An answer of application/problem+json. Subclasses fix status, code and title."""

    status = 500
    code = "internal"
    title = "Something went wrong on our side"

    def __init__(self, detail: str = "", *, retry_after_s: int | None = None, **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extra = extra  # further members of the problem object, JSON values

    def body(self, request_id: str) -> dict[str, Any]:
        """The problem object. `request_id` also stands in the answer's header and in the log."""
        problem: dict[str, Any] = {"type": TYPE_BASE + self.code, "title": self.title, "status": self.status}
        if self.detail:
            problem["detail"] = self.detail
        return problem | {"request_id": request_id} | self.extra


class Unauthenticated(Problem):
    """No key, or one that is unknown, expired or revoked."""

    status, code, title = 401, "unauthenticated", "An API key is needed"


class Forbidden(Problem):
    """The key is known and its role does not allow this."""

    status, code, title = 403, "forbidden", "This key's role does not allow that"


class NotFound(Problem):
    """No such thing, or none that this key may know of."""

    status, code, title = 404, "not_found", "Not found"


class Conflict(Problem):
    """The thing is not in a state in which that can be done."""

    status, code, title = 409, "conflict", "That does not fit the present state"


class StaleFence(Problem):
    """The partition was given to another worker since: stop, and lease again."""

    status, code, title = 409, "stale_fence", "The lease is no longer yours"


class IdempotencyInFlight(Problem):
    """The first request with this Idempotency-Key has not ended yet."""

    status, code, title = 409, "idempotency_in_flight", "A request with this Idempotency-Key is still running"


class SessionOver(Problem):
    """The connect session is not (or no longer) waiting for its code: `state` and `outcome` say how it stands."""

    status, code, title = 409, "session_over", "The connect session cannot be completed"


class WrongCode(Problem):
    """Not the one-time code of this connect session. After five wrong ones the session has failed."""

    status, code, title = 422, "wrong_code", "That is not the code of this session"


class CursorGone(Problem):
    """What the cursor points at is no longer in the log, or the log is another one. `earliest` is the way on."""

    status, code, title = 410, "cursor_gone", "The stream no longer holds what follows this cursor"


class TooLarge(Problem):
    """The body is over the limit."""

    status, code, title = 413, "too_large", "The body is too large"


class Invalid(Problem):
    """The request does not fit its model; `errors` lists what and where."""

    status, code, title = 422, "invalid", "The request is not valid"


class IdempotencyMismatch(Problem):
    """This Idempotency-Key was used for another request."""

    status, code, title = 422, "idempotency_mismatch", "This Idempotency-Key belongs to another request"


class Unavailable(Problem):
    """A dependency is away. Nothing was done; come back after Retry-After."""

    status, code, title = 503, "unavailable", "Not available just now"

    def __init__(self, detail: str = "", *, retry_after_s: int = 2, **extra: Any) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **extra)


class Overloaded(Unavailable):
    """More bytes are in flight in this process than its memory is meant to hold."""

    code, title = "overloaded", "Too much in flight"


class SetupError(Exception):
    """The process cannot start or the command cannot run as configured. One line, saying what to do."""
