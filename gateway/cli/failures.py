"""What a person reads when a command cannot do it: one line, no secret, no traceback."""

from __future__ import annotations

import os

from gateway.errors import Problem, SetupError


def one_line(error: BaseException) -> str | None:
    """The line for `error`, or None where it is a fault of ours that a traceback should show."""
    if isinstance(error, SetupError):
        return str(error)
    if isinstance(error, Problem):
        return _problem(error)
    if type(error).__module__.startswith("gateway.client"):  # by name: importing the client costs more than failing
        return f"the gateway: {error}" if str(error) else "the gateway gives no usable answer"
    from pydantic import ValidationError  # late: `posthouse --help` needs none of it

    from gateway.embedded import EmbeddedUnavailable
    from gateway.reach import explain

    if isinstance(error, EmbeddedUnavailable):
        return str(error)
    if isinstance(error, ValidationError):
        return validation(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or os.strerror(error.errno or 0)}"
    trouble = explain(error)
    return f"the database {trouble.line}" if trouble is not None else None


def validation(error: object, prefix: str = "") -> str:
    """A pydantic error in one line: where and what, never the value (it may be a password)."""
    from pydantic import ValidationError

    assert isinstance(error, ValidationError)
    parts = []
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in each["loc"])
        parts.append(f"{prefix}{where.upper() if prefix else where}: {each['msg'].removeprefix('Value error, ')}")
    return "; ".join(parts[:5]) + (f"; and {len(parts) - 5} more" if len(parts) > 5 else "")


def _problem(problem: Problem) -> str:
    line = problem.detail or problem.title
    errors = problem.extra.get("errors")
    if isinstance(errors, list) and errors:
        told = [f"{each['where'].removeprefix('body.')} {each['message']}" for each in errors[:5]]
        line += ": " + "; ".join(told)
    return line
