"""Reading bodies that may hold anything: parse, look up, and make keys, without a traceback.

Parsing raises `Malformed` and nothing else. Looking up never raises: a provider that sends a number where a string
was gets an item with less known about it, not a refusal, because a verified delivery is worth keeping.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson

from providers.errors import Malformed

MAX_FIELDS = 1000


def loads(body: bytes) -> Any:
    """The JSON document that `body` is, in UTF-8.    Raises: Malformed."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    # orjson refuses lone surrogates ("\ud83d", a cut emoji), which real senders produce: json takes them.
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None


def document(body: bytes) -> dict[str, Any]:
    """As `loads`, where it must be an object.    Raises: Malformed."""
    value = loads(body)
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def form(body: bytes) -> dict[str, str]:
    """The fields of a form-encoded body.    Raises: Malformed, also for a doubled field: readers differ on those."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Malformed("not a form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed("a doubled form field")
    return fields


def media_type(headers_value: str | None) -> str:
    """The media type of a Content-Type value, without parameters, lower case; "" where there is none."""
    return (headers_value or "").partition(";")[0].strip().lower()


def at(value: Any, *path: str | int) -> Any:
    """What is at `path` inside a parsed document; None where the path leads nowhere."""
    for step in path:
        if type(value) is dict and type(step) is str:  # nearly always
            value = value.get(step)
        elif isinstance(value, dict):
            value = value.get(step) if isinstance(step, str) else None
        elif isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def text(value: Any) -> str:
    """`value` if it is a string, else ""."""
    return value if isinstance(value, str) else ""


def identifier(value: Any, longest: int = 200) -> str | None:
    """`value` as (a part of) an account or dedupe key; None where it cannot be one.

    Strings and whole numbers; no white space, no control or unassigned characters, nothing UTF-8 cannot hold.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 1 << 128 else ""
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        return None
    return value if value.isprintable() and " " not in value else None  # isprintable: no surrogates either


def account(kind: str, *parts: Any) -> tuple[str, ...]:
    """`("team:T1",)`, `("user:T1/U2",)`, or `()` where a part is missing."""
    if len(parts) == 1 and type(parts[0]) is int and abs(parts[0]) < 1 << 63:  # the everyday case, in one step
        return (f"{kind}:{parts[0]}",)
    names = []
    for part in parts:
        name = identifier(part)
        if name is None:
            return ()
        names.append(name)
    return (f"{kind}:{'/'.join(names)}",)


def instant(value: Any, *, per_second: int = 1) -> datetime | None:
    """A time since 1970 as number or digits, in units of 1/`per_second` s; None where it is none."""
    if isinstance(value, str) and len(value) <= 32:
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return datetime.fromtimestamp(value / per_second, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def iso_instant(value: Any) -> datetime | None:
    """An RFC 3339 time with its zone, in UTC; None where it is none."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.astimezone(UTC) if parsed.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _no_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON, whatever Python says
