"""What is known of connections, as the policy wants it: read for many at once, each grant with its own chance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from uuid import UUID

from gateway.connections import grants
from gateway.connections.grants import Doubt, Grant
from gateway.connections.states import ISSUED
from gateway.database import Db
from providers.oauth import OAuthFacts
from subscriptions import policy, store
from subscriptions.store import Extra

SAME_S = 60.0  # two ends that differ by less are one: they were counted from moments a little apart


@dataclass(frozen=True, slots=True)
class Known:
    """A grant and what its plan needs beside it."""

    grant: Grant
    doubt: Doubt | None
    extra: Extra

    @property
    def seen(self) -> tuple[int, int]:
        """Generation and token version: what a refresh is to replace."""
        return self.grant.generation, self.grant.token_version


async def read(db: Db, connections: Collection[UUID]) -> dict[UUID, list[Known]]:
    """The grants of these connections. One without any is left out."""
    extras = await store.extras(db, connections)
    found: dict[UUID, list[Known]] = {}
    for grant, doubt in await grants.shown(db, connections):
        extra = extras.get((grant.connection_id, grant.access_profile))
        if extra is not None:
            found.setdefault(grant.connection_id, []).append(Known(grant, doubt, extra))
    return found


def as_grant(known: Known, facts: OAuthFacts, planned_at: float | None = None) -> policy.Grant:
    """A grant of a provider with these facts, as the policy sees it. `planned_at`: what was chosen last time."""
    grant, extra = known.grant, known.extra
    refreshed = grant.kind == "code"  # the others are minted anew, and nothing of theirs dies
    ends_at = _ends_at(grant, facts) if refreshed else None
    return policy.Grant(
        issued_at=0.0 if grant.issued_at is None else grant.issued_at.timestamp(),
        expires_at=_seconds(grant.expires_at),
        can_renew=not refreshed or grant.has_refresh,
        barred=_barred(known),
        keep_by=_keep_by(grant, facts, ends_at) if refreshed and grant.has_refresh else None,
        ends_at=ends_at,
        used_at=extra.used_at,
        again_at=extra.again_at,
        planned_at=planned_at,
        chance=chance(grant.connection_id, grant.access_profile, grant.token_version),
    )


def plans(
    known: Sequence[Known], facts: OAuthFacts, now: float, hours: Sequence[float], planned_at: float | None = None
) -> list[tuple[Known, policy.Plan]]:
    """What is next for each grant of a connection."""
    return [(one, policy.plan(as_grant(one, facts, planned_at), now, hours)) for one in known]


def chance(connection: UUID, profile: str, version: int) -> float:
    """The token set's own chance, 0 to 1: whoever asks gets the same, on every process and after every start."""
    digest = blake2b(connection.bytes + f"{profile}:{version}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2.0**56


def _barred(known: Known) -> policy.Barred | None:
    grant = known.grant
    if grant.state not in ISSUED or grant.issued_at is None:
        return "state"
    if grant.held:
        return "held"
    if grant.restored:
        return "restored"
    return "in_doubt" if grant.contested or known.doubt is not None else None


def _ends_at(grant: Grant, facts: OAuthFacts) -> float | None:
    return None if facts.refresh_life_s is None else grant.granted_at.timestamp() + facts.refresh_life_s


def _keep_by(grant: Grant, facts: OAuthFacts, ends_at: float | None) -> float | None:
    """When its refresh token dies unless it is used: an end that using it puts off."""
    by = _seconds(grant.refresh_expires_at)
    if by is None and facts.refresh_idle_s is not None and grant.issued_at is not None:  # an import that did not say
        by = grant.issued_at.timestamp() + facts.refresh_idle_s
    return None if by is None or (ends_at is not None and by >= ends_at - SAME_S) else by


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
