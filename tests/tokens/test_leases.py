"""Leases: of two that see the same, one gets it; whoever has lost his sends nothing and writes nothing."""

from __future__ import annotations

from uuid import UUID

import pytest

from gateway.connections import grants
from gateway.connections.grants import Name
from gateway.database import Database
from gateway.tokens import leases, rotation
from gateway.tokens.leases import LEASE_S, Lease, NotNow
from gateway.tokens.rotation import Due, Fresh, Known
from providers.oauth import TokenSet
from tests.tokens.conftest import Account

A, B = UUID(int=0xA), UUID(int=0xB)
SEEN = (1, 1)


@pytest.fixture
def db(account: Account) -> Database:
    return account.town.gateway.regions.home.database


@pytest.fixture
def name(account: Account) -> Name:
    return account.id, "reader"


async def claimed(db: Database, name: Name, holder: UUID, seen: tuple[int, int] = SEEN) -> Lease | None:
    return await leases.claim(db, name, seen, holder, await leases.look(db, name))


async def held(db: Database, name: Name, holder: UUID, seen: tuple[int, int] = SEEN) -> Lease:
    lease = await claimed(db, name, holder, seen)
    assert lease is not None
    return lease


async def due(account: Account) -> Due:
    stored = await grants.stored(account.town.gateway.regions.home.database, account.id, "reader")
    assert stored is not None
    integration = account.town.gateway.catalog.integration_by_id(stored.integration_id)
    assert integration is not None
    return Due(account.town.gateway.regions.home, integration, stored)


KNOWN = Known(marks=(), fingerprint=None, source="refresh", holder=A)


def fresh(text: str) -> Fresh:
    return Fresh(TokenSet(access_token=text, refresh_token=f"{text}-r", expires_in_s=3600), f"{text}-r", 0.0)


async def test_of_two_that_see_the_same_one_gets_it(db: Database, name: Name) -> None:
    was = await leases.look(db, name)
    assert was is None
    assert await leases.claim(db, name, SEEN, A, was) is not None
    assert await leases.claim(db, name, SEEN, B, was) is None
    seen = await leases.look(db, name)
    assert seen is not None
    assert (seen.is_under_way, seen.holder, seen.phase) == (True, A, "claimed")


async def test_a_lease_is_over_by_the_databases_clock(account: Account, db: Database, name: Name) -> None:
    """And whoever lost it sends nothing: the mark that must come first is refused."""
    first = await held(db, name, A)
    await account.town.pass_s(LEASE_S + 1)
    seen = await leases.look(db, name)
    assert seen is not None
    assert not seen.is_under_way
    assert not await leases.sent(db, first)
    second = await held(db, name, B)
    assert (second.is_again, await leases.sent(db, second)) == (False, True)
    assert not await leases.sent(db, first)


async def test_a_holder_that_lost_its_lease_cannot_write(account: Account, db: Database, name: Name) -> None:
    """While the other's call is out, what the first one brought waits; then the other's is the newer one."""
    looked = await due(account)
    first = await held(db, name, A)
    assert await leases.sent(db, first)
    await account.town.pass_s(LEASE_S + 1)
    second = await held(db, name, B)
    assert (second.is_again, await leases.sent(db, second)) == (True, True)
    new_id = account.town.gateway.new_id
    with pytest.raises(NotNow):
        await rotation.keep(looked, fresh("first"), 0.0, new_id, KNOWN, fence=first.fence)
    with pytest.raises(NotNow):  # nor does its refusal count
        await rotation.refused(looked, "refused", "invalid_grant", new_id, fence=first.fence)
    async with db.transaction() as tx:
        await leases.failed(tx, first, "lost", "answer_lost", 20.0)
    still = await leases.look(db, name)
    assert still is not None
    assert (still.fence, still.phase) == (second.fence, "sent")
    assert await rotation.keep(looked, fresh("second"), 0.0, new_id, KNOWN, fence=second.fence)
    assert not await rotation.keep(looked, fresh("first"), 0.0, new_id, KNOWN, fence=first.fence)
    assert (await account.read()).json()["access_token"] == "second"
    assert await leases.look(db, name) is None


async def test_what_came_is_written_where_the_other_gave_up(account: Account, db: Database, name: Name) -> None:
    """It may be the only token that still works: a lease that is over is no reason to throw it away."""
    looked = await due(account)
    first = await held(db, name, A)
    await leases.sent(db, first)
    await account.town.pass_s(LEASE_S + 1)
    second = await held(db, name, B)
    await leases.sent(db, second)
    async with db.transaction() as tx:
        await leases.failed(tx, second, "lost", "answer_lost", 20.0)
    assert await rotation.keep(looked, fresh("first"), 0.0, account.town.gateway.new_id, KNOWN, fence=first.fence)
    assert (await account.read()).json()["access_token"] == "first"


async def test_a_claim_that_was_not_sent_loses_its_row_to_who_writes(
    account: Account, db: Database, name: Name
) -> None:
    """It would spend a token that is superseded; its mark finds no row, so nothing leaves."""
    looked = await due(account)
    claim = await held(db, name, B)
    assert await rotation.keep(looked, fresh("of another"), 0.0, account.town.gateway.new_id, KNOWN, fence=None)
    assert not await leases.sent(db, claim)


async def test_whoever_is_late_leaves_the_intent_about_a_later_token_set(
    account: Account, db: Database, name: Name
) -> None:
    """Else the next one would find nothing open, and spend the later refresh token a second time."""
    looked, new_id = await due(account), account.town.gateway.new_id
    first = await held(db, name, A)
    await leases.sent(db, first)
    await account.town.pass_s(LEASE_S + 1)
    second = await held(db, name, B)
    assert await rotation.keep(looked, fresh("second"), 0.0, new_id, KNOWN, fence=second.fence)
    newer = await held(db, name, B, (1, 2))
    assert await leases.sent(db, newer)
    assert not await rotation.keep(looked, fresh("late"), 0.0, new_id, KNOWN, fence=first.fence)
    assert (await rotation.refused(looked, "refused", "invalid_grant", new_id, fence=first.fence)).outcome == "stale"
    still = await leases.look(db, name)
    assert still is not None
    assert (still.fence, still.phase, still.seen) == (newer.fence, "sent", (1, 2))


async def test_what_went_missing_is_remembered_for_its_token_set_alone(
    account: Account, db: Database, name: Name
) -> None:
    first = await held(db, name, A)
    await leases.sent(db, first)
    await account.town.pass_s(LEASE_S + 40)
    again = await held(db, name, B)
    await leases.released(db, again)
    seen = await leases.look(db, name)
    assert seen is not None
    assert (seen.phase, seen.lease_left_s <= 0) == ("lost", True)
    assert seen.unanswered_s == pytest.approx(LEASE_S + 40, abs=2)
    newer = await held(db, name, B, (1, 2))
    assert not newer.is_again
    seen = await leases.look(db, name)
    assert seen is not None
    assert (seen.unanswered_s, seen.tries) == (None, 0)
    await leases.released(db, newer)
    assert await leases.look(db, name) is None


async def test_the_refusal_after_a_lost_answer_is_the_end(account: Account, db: Database) -> None:
    """Whether or not anybody has said before that it is in doubt; and the cause says what happened."""
    applied = await rotation.refused(
        await due(account), "refused", "invalid_grant", account.town.gateway.new_id, verdict="lost"
    )
    grant = await account.grant()
    assert (applied.state, grant.state, grant.reason) == ("reauth_required", "reauth_required", "answer_lost")
