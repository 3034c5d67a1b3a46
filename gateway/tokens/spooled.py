"""A token set that came and could not be written, as a file holds it: in front where it belongs, in clear, and the rest sealed.

    posthouse spool 1
    {"region": "default", "tenant": …, "connection": …, "access_profile": …, "generation": 1, "token_version": 7}
    <sealed under the region's keyring, bound to the line above>

The region's own keyring seals it, not the tenant's data key: that lies in the database, which is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from gateway.tokens.rotation import Due, Fresh
from gateway.vault import cipher
from gateway.vault.cipher import SealBroken
from gateway.vault.keyring import Keyring
from gateway.vault.tokens import Place
from providers.oauth import TokenSet

MAGIC = b"posthouse spool 1\n"
MOST_BYTES = 1024 * 1024  # two tokens of at most 16 KiB each, and scopes
OF_TOKENS = ("access_token", "token_type", "expires_in_s", "refresh_expires_in_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A token set, what it replaces, and when it came: all that is needed to write it later, in another process too."""

    place: Place  # of the token set that it replaces: generation and version as they were when it was asked for
    integration_id: UUID
    tokens: TokenSet = field(repr=False)
    refresh_token: str | None = field(repr=False)  # that goes with it: the new one, or the old one where none came
    came_at: datetime  # by the wall clock of the process that asked
    came_by_database: datetime  # … by the region's clock, reckoned from when the lease was given
    holder: UUID  # the process that asked
    fence: int  # of the lease that it asked under
    asked_s: float  # how long before that it was asked for

    @property
    def name(self) -> tuple[UUID, str]:
        """Its grant."""
        return self.place.connection, self.place.profile

    def waited_s(self, now_by_database: datetime) -> float:
        """How long ago it came, and never less than nothing. Processes' clocks do not agree, so they are not asked."""
        return max(0.0, (now_by_database - self.came_by_database).total_seconds())


def entry_of(
    due: Due, fresh: Fresh, *, holder: UUID, fence: int, came_at: datetime, came_by_database: datetime
) -> Entry:
    """What came for `due`, under the lease with this fence."""
    grant = due.stored.grant
    place = Place(
        due.region.name, due.stored.tenant, grant.connection_id, grant.access_profile, grant.generation,
        grant.token_version,
    )  # fmt: skip
    return Entry(
        place=place, integration_id=due.stored.integration_id, tokens=fresh.tokens, refresh_token=fresh.refresh_token,
        came_at=came_at, came_by_database=came_by_database, asked_s=fresh.asked_s, holder=holder, fence=fence,
    )  # fmt: skip


class Unreadable(Exception):
    """No entry of ours, or not a whole one. The text says which, and holds nothing of it."""


def written(entry: Entry, keyring: Keyring) -> bytes:
    """The file of `entry`; `keyring` is its region's."""
    tokens = entry.tokens
    told = {
        **{name: getattr(tokens, name) for name in OF_TOKENS},
        "rotated_refresh_token": tokens.refresh_token,
        "scopes": None if tokens.scopes is None else sorted(tokens.scopes),
        "refresh_token": entry.refresh_token,
        "integration_id": entry.integration_id,
        "came_at": entry.came_at,
        "came_by_database": entry.came_by_database,
        "asked_s": entry.asked_s,
        "holder": entry.holder,
        "fence": entry.fence,
    }
    # `default`: asyncpg's UUIDs are a class of their own.
    sealed = keyring.seal(orjson.dumps(told, default=str), entry.place.aad("spool"))
    return MAGIC + orjson.dumps(asdict(entry.place), default=str) + b"\n" + sealed


def region_of(file: bytes) -> str:
    """Whose keyring opens it.    Raises: Unreadable."""
    return _place(file)[0].region


def version_of(file: bytes) -> int | None:
    """Under which version of its region's keyring it is sealed, as it claims.    Raises: Unreadable."""
    return cipher.version_of(_place(file)[1])


def read(file: bytes, keyring: Keyring) -> Entry:
    """What `written` wrote under this keyring.    Raises: Unreadable."""
    place, sealed = _place(file)
    try:
        told = orjson.loads(keyring.open(sealed, place.aad("spool")))
        return _entry(place, told)
    except SealBroken as error:
        raise Unreadable(str(error)) from None
    except (ValueError, TypeError, KeyError):  # sealed by us, and yet of another shape: a newer version's
        raise Unreadable("it is sealed, and not of a shape that this version knows") from None


def _place(file: bytes) -> tuple[Place, bytes]:
    if not file.startswith(MAGIC):
        raise Unreadable("it does not begin like a file of the spool")
    head, found, sealed = file[len(MAGIC) :].partition(b"\n")
    try:
        told = orjson.loads(head)
        place = Place(**{**told, "connection": UUID(told["connection"])})
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Unreadable("it does not say where it belongs") from None
    if not found or not all(isinstance(part, str) for part in (place.region, place.tenant, place.profile)):
        raise Unreadable("it does not say where it belongs")
    return place, sealed


def _entry(place: Place, told: Mapping[str, Any]) -> Entry:
    scopes = told["scopes"]
    tokens = TokenSet(
        **{name: told[name] for name in OF_TOKENS}, refresh_token=told["rotated_refresh_token"],
        scopes=None if scopes is None else frozenset(scopes),
    )  # fmt: skip
    return Entry(
        place=place, integration_id=UUID(told["integration_id"]), tokens=tokens, refresh_token=told["refresh_token"],
        came_at=datetime.fromisoformat(told["came_at"]), came_by_database=datetime.fromisoformat(told["came_by_database"]),
        asked_s=told["asked_s"], holder=UUID(told["holder"]), fence=told["fence"],
    )  # fmt: skip
