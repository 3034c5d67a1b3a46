"""How commands show things: columns of plain text, the same on a terminal and in a file, or JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Columns as wide as their widest entry; `empty` where there is no row."""
    texts = [[_text(cell) for cell in row] for row in rows]
    if not texts:
        print(empty)
        return
    widths = [max(len(line[i]) for line in [headers, *texts]) for i in range(len(headers))]
    for line in [[header.upper() for header in headers], *texts]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def as_json(value: object) -> None:
    """One JSON document."""
    print(json.dumps(value, default=_plain, indent=2))


def when(at: datetime | None) -> str:
    """RFC 3339, seconds."""
    return "-" if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _text(cell: object) -> str:
    text = when(cell) if isinstance(cell, datetime) else "-" if cell is None else str(cell)
    return "".join(c if c.isprintable() else "?" for c in text)  # nothing stored may steer a terminal


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return when(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} is not shown")
