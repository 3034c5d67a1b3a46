"""Tokens of consents that come to nothing: another account's, or of a session that nobody completed.

Nobody is to have them, so they are revoked like those of a connection that ends, by the same tasks (PROTOCOLS 6), but only
where that ends these tokens alone and nobody here lives by that account: a consent that was given up is no reason to
uninstall an app, or to end what the account's owner agreed to elsewhere. Everything else is shredded.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import structlog

from gateway.connect import staging, store
from gateway.connect.staging import Brought
from gateway.connect.store import Session
from gateway.database import Db
from gateway.ending import closing, tasks
from gateway.regions import Region
from gateway.service import Gateway
from gateway.vault.cipher import SealBroken

log = structlog.get_logger(__name__)


async def staged(tx: Db, gateway: Gateway, region: Region, session: Session) -> None:
    """What is staged for a session that ends. The caller forgets it.    Raises: Unavailable."""
    if session.subject_hash is None or not _may_be_sent(gateway, session):
        return
    if not await store.only_here(tx, session.id):
        return
    try:
        sets = await staging.opened(tx, region, session)
    except SealBroken:
        log.error("connect.seal_broken", region=region.name)
        return
    await brought(tx, gateway, region, session, sets, session.subject_hash)


async def brought(
    tx: Db, gateway: Gateway, region: Region, session: Session, sets: Iterable[Brought], subject: UUID
) -> None:
    """Token sets of account `subject` that are not staged.    Raises: Unavailable, SealBroken."""
    if not _may_be_sent(gateway, session):
        return
    for one in sets:
        if await tasks.shared(tx, session.integration_id, one.reach, one.accounts):
            continue
        if await tasks.consented(tx, session.integration_id, subject):
            continue
        left = closing.Leaving(
            tenant=session.tenant_id,
            connection_id=session.id,  # they never were a connection's
            access_profile=one.access_profile, integration_id=session.integration_id, access_token=one.access_token,
            refresh_token=one.refresh_token, token_type=one.token_type,
            parameters={**session.parameters, **one.parameters}, reach_hash=one.reach, accounts=one.accounts,
            subject_hash=subject,
        )  # fmt: skip
        await closing.leave(tx, region, left, gateway.new_id())


def _may_be_sent(gateway: Gateway, session: Session) -> bool:
    return closing.ends_alone(gateway.catalog.integration_by_id(session.integration_id))
