"""Access profiles of an integration: named sets of scopes, and where a connect session may send its user back to.

[integrations.my-google.access_profiles.reader]
required = ["openid", "https://www.googleapis.com/auth/gmail.readonly"]
optional = ["https://www.googleapis.com/auth/calendar.readonly"]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from providers.oauth import OAuthFacts

PROFILE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")  # as gateway.grants checks it
MOST_PROFILES = 32
MOST_RETURN_URLS = 100

# RFC 6749 section 3.3: printable ASCII but space, quote and backslash. A comma separates scopes at some providers.
Scope = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]{1,500}$")]
Scopes = Annotated[list[Scope], Field(max_length=200)]


class ProfileModel(BaseModel):
    """A profile as file and API spell it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)
    required: Scopes = Field(default_factory=list, description="without these the connection asks for a new consent")
    optional: Scopes = Field(default_factory=list, description="it works without these, and lists them as missing")

    def profile(self) -> AccessProfile:
        return AccessProfile(tuple(self.required), tuple(self.optional))


@dataclass(frozen=True, slots=True)
class AccessProfile:
    """A named set of scopes."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def scopes(self) -> tuple[str, ...]:
        """All that a consent asks for, in order."""
        return tuple(dict.fromkeys((*self.required, *self.optional)))

    def as_json(self) -> dict[str, list[str]]:
        return {"required": list(self.required), "optional": list(self.optional)}


def from_json(said: Mapping[str, Any]) -> dict[str, AccessProfile]:
    """Profiles as a database row holds them."""
    return {name: AccessProfile(tuple(one["required"]), tuple(one["optional"])) for name, one in said.items()}


def as_json(profiles: Mapping[str, AccessProfile]) -> dict[str, dict[str, list[str]]]:
    return {name: profile.as_json() for name, profile in profiles.items()}


def profile_faults(profiles: Mapping[str, AccessProfile], oauth: OAuthFacts | None) -> list[tuple[str, str]]:
    """Which profile cannot be, and why, as the end of a sentence."""
    if profiles and oauth is None:
        return [("", "are of no use: this provider connects no accounts")]
    faults = []
    if len(profiles) > MOST_PROFILES:
        faults.append(("", f"are more than {MOST_PROFILES}"))
    for name, profile in profiles.items():
        if not PROFILE.fullmatch(name):
            faults.append((name[:63], "must be 1 to 63 of a-z, 0-9, `_`, `.` and `-`, a letter or digit first"))
        elif oauth is not None and oauth.profiles and name not in oauth.profiles:
            faults.append((name, f"is not one of this provider's: {', '.join(oauth.profiles)}"))
        if set(profile.required) & set(profile.optional):
            faults.append((name[:63], "names a scope as required and as optional"))
    return faults


def return_url_fault(url: str) -> str | None:
    """What is wrong with an entry of the allow-list, or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if len(url) > 2000 or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "must be at most 2000 visible ASCII characters"
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None or port == 0:
        return "must be an absolute http(s) URL without a user name"
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        return "must be https, except on this machine"
    return "must have no query and no fragment" if parts.query or parts.fragment else None


def returns_to(url: str, allowed: Sequence[str]) -> bool:
    """May a session end at `url`? Its query is the platform's own; everything before must be on the list, exactly."""
    base, _, _ = url.partition("?")
    return (
        base in allowed
        and "#" not in url
        and url.isascii()
        and url.isprintable()
        and " " not in url
        and "\\" not in url
    )
