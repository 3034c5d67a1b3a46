"""What a session asks for: access profiles as they were when it was made, and in which consents. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.connections.scopes import Ledger, compared
from gateway.integrations.profiles import AccessProfile
from providers.oauth import OAuthFacts


@dataclass(frozen=True, slots=True)
class Wish:
    """One access profile of a session."""

    profile: AccessProfile
    ask: tuple[str, ...]  # what its consent asks for: all of the profile, or just what is missing

    def as_json(self) -> dict[str, list[str]]:
        return {**self.profile.as_json(), "ask": list(self.ask)}

    def ledger(self, told: Iterable[str] | None, before: Ledger | None) -> Ledger:
        """The scopes after the consent; `told`: those that the answer names, `before`: of the former generation."""
        if told is None:  # all that was asked for (RFC 6749 section 5.1)
            had = before.granted if before is not None and self.ask != self.profile.scopes else ()
            told = {*self.ask, *had}
        return compared(self.profile, frozenset(told))


def whole(profile: AccessProfile) -> Wish:
    """A wish for all of it."""
    return Wish(profile, profile.scopes)


def mending(profile: AccessProfile, granted: Iterable[str], facts: OAuthFacts) -> Wish | None:
    """A wish for what `granted` lacks: required scopes, or where none is missing optional ones; None: nothing is missing.

    Just these where the provider adds them to what there is, else the whole profile.
    """
    lacks = compared(profile, frozenset(granted))
    missing = lacks.to_mend or lacks.optional_missing
    if not missing:
        return None
    if not facts.incremental:
        return whole(profile)
    return Wish(profile, tuple(scope for scope in profile.scopes if scope in missing))


def next_consent(asked: Sequence[str], facts: OAuthFacts) -> tuple[str, ...]:
    """Which of the profiles still to be asked for the next consent fills: Slack's bot and user together, else one."""
    return tuple(asked) if facts.profiles else tuple(asked[:1])


def from_json(said: Mapping[str, Any]) -> dict[str, Wish]:
    """Wishes as a session's row holds them."""
    return {
        name: Wish(AccessProfile(tuple(one["required"]), tuple(one["optional"])), tuple(one["ask"]))
        for name, one in said.items()
    }


def as_json(wishes: Mapping[str, Wish]) -> dict[str, dict[str, list[str]]]:
    return {name: wish.as_json() for name, wish in wishes.items()}
