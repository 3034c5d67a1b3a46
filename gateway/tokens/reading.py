"""Handing out access tokens: check, open, and where the token has expired a refresh between two checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

import structlog

from gateway.clock import Clock
from gateway.connections.states import ACTIONS, ISSUED
from gateway.errors import NotFound, Problem
from gateway.regions import Region, Regions
from gateway.tokens import problems
from gateway.tokens.check import Checks, Found, Read
from gateway.tokens.opened import Opened
from gateway.vault.cipher import SealBroken
from gateway.vault.tokens import Place

CHECKED_WITHIN_S = 2
REFRESH_SHARE = 0.8  # of its life: from then on it pays to ask again

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Token:
    """What a read answers. Its repr shows no token."""

    access_token: str = field(repr=False)
    found: Found
    refresh_after: datetime | None  # None: it does not expire


class Refreshing(Protocol):
    """What makes an expired token new. Single flight and its kind are its affair."""

    async def refresh(
        self,
        region: Region,
        connection: UUID,
        access_profile: str,
        seen: tuple[int, int],
        integration: UUID | None = None,
    ) -> None:
        """Make the token set that was `seen` (generation and token version) new, or find that it is already.

        Raises: Problem, why there is no new token; whether the old one still serves is for a check to say."""


class TokenReads:
    """Token reads of one process."""

    def __init__(self, regions: Regions, checks: Mapping[str, Checks], refreshing: Refreshing, clock: Clock) -> None:
        self._places = [(region, checks[region.name]) for region in regions]
        self._refreshing = refreshing
        self._known = Opened(clock)

    async def read(self, asked: Read) -> Token:
        """The current access token, refreshed if less of its life is left than asked for.

        Raises: NotFound; NotIssued: why not, and what to do; Unavailable: when to come again.
        """
        region, found = await self._checked(asked)
        if not found.served:
            region, found = await self._renewed(region, found, asked)
        try:
            return await self._opened(region, asked.connection, found)
        except SealBroken:
            if found.kv_path is None:
                raise _unreadable(region, asked.connection, found) from None
        region, found = await self._checked(asked)  # the row moved on, and its former blob was swept meanwhile
        if not found.served:
            raise problems.Checking(retry_after_s=1, do="wait")
        try:
            return await self._opened(region, asked.connection, found)
        except SealBroken:
            raise _unreadable(region, asked.connection, found) from None

    async def _checked(self, asked: Read) -> tuple[Region, Found]:
        for region, checks in self._places:
            rows = await checks.ask(asked)
            if rows:
                return region, _meant(rows, asked)
        raise NotFound("There is no such connection.")

    async def _renewed(self, region: Region, found: Found, asked: Read) -> tuple[Region, Found]:
        """Refresh, and check again: whatever is unexpired then may leave, however the refresh went."""
        refuse_unless_issued(found)
        assert found.access_profile is not None
        trouble: Problem | None = None
        try:
            seen = (found.generation, found.token_version)
            await self._refreshing.refresh(region, asked.connection, found.access_profile, seen, found.integration)
        except Problem as problem:
            trouble = problem
        region, found = await self._checked(Read(asked.connection, found.access_profile, 0, asked.actor))
        if not found.served:
            refuse_unless_issued(found)
            region.traffic.read(asked.connection, found.integration, found.tenant)  # in vain, and yet it is in use
            raise trouble or problems.ProviderUnavailable("The token that came has expired already.")
        return region, found

    async def _opened(self, region: Region, connection: UUID, found: Found) -> Token:
        """Raises: SealBroken, Unavailable."""
        profile, generation, version = found.access_profile, found.generation, found.token_version
        assert profile is not None
        key = (connection, profile, generation, version)
        access = self._known.get(key)
        if access is None:
            assert found.data_key_version is not None
            place = Place(region.name, found.tenant, connection, profile, generation, version)
            access = await region.tokens.open(
                place, "access_token", found.data_key_version, found.sealed, found.kv_path
            )  # fmt: skip
            self._known.put(key, access)
        region.traffic.read(connection, found.integration, found.tenant)
        return Token(access, found, _refresh_after(found.issued_at, found.expires_at))


def refuse_unless_issued(found: Found) -> None:
    """Raises: NotIssued, unless tokens are handed out in this grant's state."""
    if found.state not in ISSUED:
        raise problems.BY_STATE[found.state](
            access_profile=found.access_profile, state=found.state, reason=found.reason, generation=found.generation,
            do=ACTIONS[found.state],
        )  # fmt: skip
    if found.contested:
        raise problems.Checking(
            access_profile=found.access_profile, state=found.state, generation=found.generation, do="wait",
            retry_after_s=CHECKED_WITHIN_S,
        )  # fmt: skip


def _meant(rows: Sequence[Found], asked: Read) -> Found:
    """The grant that a read means.    Raises: NotIssued."""
    if len(rows) > 1:
        rows = [row for row in rows if row.state != "closed"] or rows[:1]
    if len(rows) > 1:
        names = sorted(str(row.access_profile) for row in rows)
        raise problems.AccessProfileNeeded(
            "The connection has several access profiles.", access_profiles=names, do="name_profile"
        )
    (found,) = rows
    if found.access_profile is None and found.state not in ("closed", "pending"):
        raise problems.NoGrant(access_profile=asked.access_profile, state=found.state, do="reconnect")
    return found


def _refresh_after(issued_at: datetime, expires_at: datetime | None) -> datetime | None:
    return None if expires_at is None else issued_at + REFRESH_SHARE * (expires_at - issued_at)


def _unreadable(region: Region, connection: UUID, found: Found) -> Problem:
    log.error("token.seal_broken", region=region.name, connection=str(connection), access_profile=found.access_profile)
    return problems.SealBroken()
