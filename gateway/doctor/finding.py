"""What the doctor found about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok`; `look`: may be meant so, or will matter; `fix`: something must be done. `line` says what, and holds no secret."""

    verdict: Literal["ok", "look", "fix"]
    about: str
    line: str
