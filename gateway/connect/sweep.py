"""Sessions whose time is over: their staged tokens and pending connections go."""

from __future__ import annotations

from gateway.connect import leaving, store
from gateway.connect.flow import count
from gateway.service import Gateway

EVERY_S = 15.0
AT_ONCE = 200


async def run_once(gateway: Gateway) -> int:
    """Expire what is due in every region; how many."""
    ended = 0
    for region in gateway.regions:
        while True:
            async with region.database.transaction() as tx:
                sessions = await store.expire(tx, AT_ONCE)
                for session in sessions:
                    await leaving.staged(tx, gateway, region, session)
                await store.forget(tx, sessions, AT_ONCE)
            for session in sessions:
                integration = gateway.catalog.integration_by_id(session.integration_id)
                if integration is not None:
                    count(integration, "expired")
            ended += len(sessions)
            if len(sessions) < AT_ONCE:
                break
    return ended
