"""What may stand in a log line. Redaction by construction: only allow-listed plain types come through at all, and of
those, text is searched for anything shaped like a credential. An object, a dict or bytes shows its type, never itself.

Exceptions become their type and the places they went through (`module:line`), never their locals; their text only
where the class is our own (`Problem`, `SetupError`), because we write those texts for readers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

from gateway.errors import Problem, SetupError

REDACTED = "[redacted]"
LONGEST_TEXT = 1000
LONGEST_LIST = 50
LONGEST_CHAIN = 5
DEEPEST_TRACE = 30

# Names under which text is never shown, whatever it is. Numbers pass: `token_version=7` is no secret.
SECRET_NAME = re.compile(
    r"secret|token|passw|passphrase|authoriz|cookie|credential|dsn|api_?key|private_?key|signature|client_?state"
    r"|\bbody\b|\bdata\b|payload|sealed|plaintext|keyring$",
    re.IGNORECASE,
)

# Text that looks like a credential, ours or a provider's, wherever it stands.
SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(ph_[A-Za-z0-9]{8})_[A-Za-z0-9_-]{16,}"), rf"\1_{REDACTED}"),  # the prefix finds the key again
    (re.compile(r"\bwhs(?:ec|k)_[A-Za-z0-9+/=_-]+"), REDACTED),
    (re.compile(r"\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=:-]+", re.IGNORECASE), REDACTED),
    (re.compile(r"\bx(?:ox[a-z]|app)(?:\.[a-z]+)?-[A-Za-z0-9.-]+"), REDACTED),
    (re.compile(r"\bgh[a-z]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{10,}"), REDACTED),
    (re.compile(r"\b[sr]k_(?:live|test)_\w{8,}|\bya29\.[\w.-]{8,}"), REDACTED),
    (re.compile(r"\beyJ[\w-]{6,}\.[\w-]+(?:\.[\w-]*)*"), REDACTED),  # a JWT
    (re.compile(r"\b([a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s]*@", re.IGNORECASE), rf"\1:{REDACTED}@"),  # DSN, any URL
    (re.compile(r"\b(pass(?:word|wd)?|pwd|secret|token)(\s*[=:]\s*)[^\s,;&]+", re.IGNORECASE), rf"\1\2{REDACTED}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*"), REDACTED),
)
# One look that clears nearly every text: something that each shape has.
SUSPECT = re.compile(
    r"ph_|whs|bearer|basic|x(?:ox|app)|gh|gl|[sr]k_|ya29|eyJ|://|pass|pwd|secret|token|-----", re.IGNORECASE
)


def text(value: str) -> str:
    """`value` without credentials and control characters (a line break in a log is a forged line), cut to length."""
    if SUSPECT.search(value):
        for shape, instead in SHAPES:
            value = shape.sub(instead, value)
    if len(value) > LONGEST_TEXT:
        value = value[:LONGEST_TEXT] + "…"
    if not value.isprintable():
        value = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value)
    return value


def plain(name: str, value: object) -> Any:
    """What stands in the log for `value` under `name`: a number, text, a short list of those, or the type's name."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else str(value)  # JSON's writer takes no longer ones
    if _speaks_of_secrets(name):
        return REDACTED
    if isinstance(value, Enum):
        return plain(name, value.value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, UUID | Path):
        return text(str(value))
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseException):
        return failure(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [
            v if isinstance(v := plain(name, item), str | int | float) else "…" for item in list(value)[:LONGEST_LIST]
        ]
    return f"<{type(value).__name__}>"


def fields(event: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a log line, made plain."""
    return {_name(name): plain(name, value) for name, value in event.items()}


def failure(error: BaseException) -> str:
    """`error` in one piece: the types along its chain, with the words of our own ones."""
    parts: list[str] = []
    step: BaseException | None = error
    while step is not None and len(parts) < LONGEST_CHAIN:
        parts.append(_one(step))
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return " <- ".join(parts)


def frames(trace: TracebackType | None) -> list[str]:
    """The places a traceback went through, outermost first: `module:line`."""
    places: list[str] = []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places[-DEEPEST_TRACE:]


@lru_cache(1024)  # names are the code's own, so they are few
def _name(name: str) -> str:
    return text(name)


@lru_cache(1024)
def _speaks_of_secrets(name: str) -> bool:
    return SECRET_NAME.search(name) is not None


def _one(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(error, Problem | SetupError):
        return f"{name}({text(str(error))})"
    if isinstance(error, BaseExceptionGroup):
        return f"{name}[{', '.join(_one(inner) for inner in error.exceptions[:LONGEST_CHAIN])}]"
    sqlstate = getattr(error, "sqlstate", None)  # of PostgreSQL: five characters that say which error it was
    return f"{name}[{sqlstate}]" if isinstance(sqlstate, str) and len(sqlstate) == 5 else name
