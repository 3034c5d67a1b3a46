"""Whatever goes wrong, as application/problem+json. Nothing else leaves the management API with a status over 399."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ValidationError

from gateway.errors import Conflict, Invalid, Problem, Unavailable

MEDIA = "application/problem+json"
MOST_ERRORS = 20


class MethodNotAllowed(Problem):
    """The path exists, with other methods: those in `Allow`."""

    status, code, title = 405, "method_not_allowed", "This path does not take that method"


class UnsupportedMedia(Problem):
    """The body is something else than uncompressed JSON in UTF-8."""

    status, code, title = 415, "unsupported_media_type", "The body must be JSON in UTF-8, not compressed"


class Malformed(Problem):
    """The request's frame is wrong: a doubled or unreadable header."""

    status, code, title = 400, "malformed", "The request is malformed"


class Internal(Problem):
    """A fault of ours. The log holds more under the request id."""


def from_validation(error: ValidationError, where: str) -> Invalid:
    """What does not fit and where; never what was sent there."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return Invalid(
        f"The {where} does not fit its model.",
        errors=[one(_place(where, e["loc"]), e["msg"], e["type"]) for e in found[:MOST_ERRORS]],
    )


def one(where: str, message: str, kind: str = "invalid") -> dict[str, str]:
    """One entry of `errors`: a place such as `body.accounts.0`, a sentence, and pydantic's name for the trouble."""
    return {"where": where, "message": message, "type": kind}


def invalid(where: str, message: str) -> Invalid:
    """The request fits its model and yet cannot be: `message` says why, `where` points at it."""
    return Invalid(message, errors=[one(where, message)])


def translate(error: BaseException) -> Problem:
    """The problem that stands for any exception. PostgreSQL's are told apart by SQLSTATE class."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, TimeoutError | OSError):
        return Unavailable("A dependency did not answer in time.")
    sqlstate = getattr(error, "sqlstate", None)
    if not isinstance(sqlstate, str):
        return Internal()
    if sqlstate[:2] in ("22", "54"):  # data exception (NUL in text, a number out of range), a limit of the database
        return Invalid("A value in the request cannot be stored.", errors=[])
    if sqlstate == "23505":
        return Conflict("Such a thing exists already.")
    if sqlstate == "23503":
        return Conflict("Something that this needs, or that needs this, has changed meanwhile. Try again.")
    if sqlstate[:2] in (
        "08",
        "40",
        "53",
        "55",
        "57",
        "25",
    ):  # connection, deadlock, resources, locks, cancelled, read-only
        return Unavailable("The database is busy or away.")
    return Internal()


def encode(problem: Problem, request_id: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body, and the headers that belong to it."""
    headers = [(b"content-type", MEDIA.encode())]
    if problem.retry_after_s is not None:
        headers.append((b"retry-after", str(problem.retry_after_s).encode()))
    if problem.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="posthouse"'))
    return orjson.dumps(problem.body(request_id)), headers


def _place(where: str, loc: tuple[Any, ...]) -> str:
    names = (str(part) for part in loc if not (isinstance(part, str) and part == "__root__"))
    return ".".join([where, *("".join(c if c.isprintable() else "?" for c in name)[:100] for name in names)])
