"""The scope ledger of a grant: requested, granted, missing, lost. Pure.

Users untick scopes at consent, providers take some away later, admins forbid them: the token call succeeds all the
same. So every answer that tells scopes is compared with what the access profile needs (RFC 6749 section 3.3).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from gateway.integrations.profiles import AccessProfile


@dataclass(frozen=True, slots=True)
class Ledger:
    """All sorted. `missing` and `lost` are required scopes, `optional_missing` are not."""

    requested: tuple[str, ...]
    granted: tuple[str, ...]
    missing: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    optional_missing: tuple[str, ...] = ()

    @property
    def reason(self) -> str | None:
        """Why the grant cannot be active; None: it can."""
        if self.lost:
            return "scopes_lost"
        return "scopes_missing" if self.missing else None

    @property
    def to_mend(self) -> tuple[str, ...]:
        """What a consent that mends it asks for."""
        return tuple(sorted({*self.missing, *self.lost}))


def compared(profile: AccessProfile, told: Collection[str] | None, before: Ledger | None = None) -> Ledger:
    """The ledger after an answer.

    `told`: the scopes that the answer names; None: it names none, so all is as it was (at a consent: as requested).
    `before`: the same generation's ledger, at a refresh; a required scope that it had granted is lost, not missing.
    """
    requested = profile.scopes
    if told is None:
        told = requested if before is None else before.granted
    absent = set(profile.required) - set(told)
    had = set() if before is None else {*before.granted, *before.lost}
    return Ledger(
        requested=tuple(sorted(requested)),
        granted=tuple(sorted(told)),
        missing=tuple(sorted(absent - had)),
        lost=tuple(sorted(absent & had)),
        optional_missing=tuple(sorted(set(profile.optional) - set(told))),
    )
