"""After a restore (PROTOCOLS 12): a backup holds refresh tokens that were superseded after it was made.

Sending one can make the provider revoke the whole family, so what rotates is set aside before anything is refreshed:

    grants.restored   no refresh, by nobody, unless told to (`grants.may_refresh` is the rule); its state becomes `suspect`
    probe             the access token, while it is unexpired, is tried at the provider: works -> `active`, still not
                      refreshed; refused -> `reauth_required`, since whatever ended it, only the user can begin anew
    release           on command, for one integration: refresh as if nothing had happened

Unexpired access tokens are handed out meanwhile. Providers that do not rotate are spared: their refresh tokens hold.
The database notices by itself that it was put back (`gateway.identity()`), except where its files were copied over:
nothing in it tells that, and `posthouse restored` has to. Between that moment and the end of the marking every grant counts
as restored (`epoch.tokens_epoch`), so no process is too early.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal
from uuid import UUID

import structlog

from gateway import metrics
from gateway.catalog import Catalog, Integration
from gateway.clock import Clock
from gateway.connections import grants, renewals, transitions
from gateway.connections.fences import Fence
from gateway.connections.machine import Signal
from gateway.connections.moves import Move
from gateway.connections.telling import Because
from gateway.database import Db
from gateway.exchange import app_of, facts_of
from gateway.outbound import Outbound
from gateway.regions import Region
from gateway.stream.epoch import settle
from gateway.vault.tokens import Place, SealBroken
from providers.errors import GrantEnded, ProviderError, ScopeLacking
from providers.oauth import TokenSet

log = structlog.get_logger(__name__)

CHUNK = 500  # connections in one transaction
AT_ONCE = 8  # probes under way
REASON, REFUSED = "restored", "token_rejected"
SET_ASIDE = Because(cause=REASON, source="operator")
RELEASED = Because(cause="released", source="operator")
Probed = Literal["works", "refused", "undecided"]

BEHIND = "SELECT epoch FROM gateway.epoch WHERE tokens_epoch <> epoch"
LOOKED = "UPDATE gateway.epoch SET tokens_epoch = epoch WHERE epoch = $1"
DRAW = "UPDATE gateway.epoch SET epoch = floor(random() * 4294967296)::bigint, identity = gateway.identity()"

# Of integrations that are not known to be harmless, those that were removed among them.
WHICH = """SELECT c.id FROM gateway.connections c
            WHERE c.id > $3 AND c.state <> 'closed' AND c.integration_id <> ALL ($1::uuid[])
              AND EXISTS (SELECT FROM gateway.grants g JOIN gateway.tokens t USING (connection_id, access_profile)
                           WHERE g.connection_id = c.id AND t.has_refresh AND NOT g.restored AND g.state <> 'closed')
            ORDER BY c.id LIMIT $2 FOR UPDATE OF c"""
MARK = """UPDATE gateway.grants g SET restored = true FROM gateway.tokens t
           WHERE (t.connection_id, t.access_profile) = (g.connection_id, g.access_profile) AND t.has_refresh
             AND g.connection_id = ANY ($1::uuid[]) AND NOT g.restored AND g.state <> 'closed'
          RETURNING g.connection_id, g.access_profile, g.generation, g.state"""
MARKED = """SELECT c.id FROM gateway.connections c
             WHERE c.id > $3 AND ($1::uuid IS NULL OR c.integration_id = $1) AND c.state <> 'closed'
               AND EXISTS (SELECT FROM gateway.grants g WHERE g.connection_id = c.id AND g.restored)
             ORDER BY c.id LIMIT $2 FOR UPDATE OF c"""
RELEASE = """UPDATE gateway.grants SET restored = false WHERE connection_id = ANY ($1::uuid[]) AND restored
             RETURNING connection_id, access_profile, generation, state, reason"""
UNPROBED = """SELECT c.id, c.tenant_id, g.access_profile, g.generation, g.token_version, g.parameters, g.granted, t.data_key_version,
                     t.sealed_access, t.kv_path, t.token_type
                FROM gateway.connections c JOIN gateway.grants g ON g.connection_id = c.id
                JOIN gateway.tokens t USING (connection_id, access_profile)
               WHERE c.integration_id = $1 AND g.restored AND (g.state, g.reason) = ('suspect', 'restored')
                 AND (t.expires_at IS NULL OR t.expires_at > gateway.now()) AND (c.id, g.access_profile) > ($2, $3)
               ORDER BY c.id, g.access_profile LIMIT $4"""
LEFT = """SELECT c.integration_id, count(*) AS grants, count(*) FILTER (WHERE g.state = 'suspect') AS suspect
            FROM gateway.grants g JOIN gateway.connections c ON c.id = g.connection_id
           WHERE g.restored AND g.state <> 'closed' GROUP BY 1"""

COUNT = "SELECT count(*) FROM gateway.grants WHERE restored AND state <> 'closed'"

NewId = Callable[[], UUID]


async def look(region: Region, catalog: Catalog, new_id: NewId) -> int | None:
    """Set aside what rotates if the database was put back since grants were last looked at; how many connections.

    None: it was not. Asked at every start before anything is refreshed, and every few seconds.    Raises: Unavailable.
    """
    await settle(region.database)
    epoch = await region.database.fetchval(BEHIND)
    if epoch is None:
        await _count(region)
        return None
    marked, after = 0, UUID(int=0)
    harmless = [one.id for one in catalog.integrations() if not _rotates(one)]
    while True:
        async with region.database.transaction() as tx:
            found = [row["id"] for row in await tx.fetch(WHICH, harmless, CHUNK, after)]
            if found:
                marking = await tx.fetch(MARK, found)
                moves = [_move(row, "doubted", SET_ASIDE, REASON) for row in marking if row["state"] == "active"]
                await transitions.apply(tx, moves, new_id)
        marked += len(found)
        if len(found) < CHUNK:
            break
        after = found[-1]
    await region.database.execute(LOOKED, epoch)
    await _count(region)
    if marked:
        log.warning("restored.set_aside", region=region.name, connections=marked, hint="posthouse restored")
    return marked


async def declare(region: Region, catalog: Catalog, new_id: NewId) -> int:
    """Say that the database was put back: cursors of before are told so, and what rotates is set aside; how many."""
    await region.database.execute(DRAW)
    return await look(region, catalog, new_id) or 0


async def release(region: Region, integration: UUID | None, new_id: NewId) -> int:
    """Let grants of one integration be refreshed again; how many. None: of all, where nothing was lost."""
    released, after = 0, UUID(int=0)
    while True:
        async with region.database.transaction() as tx:
            found = [row["id"] for row in await tx.fetch(MARKED, integration, CHUNK, after)]
            if found:
                let_go = await tx.fetch(RELEASE, found)
                released += len(let_go)
                waiting = [row for row in let_go if (row["state"], row["reason"]) == ("suspect", REASON)]
                await renewals.touch(tx, {row["connection_id"] for row in let_go})
                await transitions.apply(tx, [_move(row, "acquitted", RELEASED, None) for row in waiting], new_id)
        if len(found) < CHUNK:
            return released
        after = found[-1]


async def probe(
    region: Region, outbound: Outbound, public_url: str, integration: Integration, new_id: NewId, clock: Clock
) -> Counter[Probed]:
    """Try the unexpired access tokens of what was set aside, and decide by that. No refresh token leaves us.

    Raises: Misconfigured (the integration cannot make calls), Unavailable.
    """
    app_of(integration, public_url)  # says at once what is missing
    counted: Counter[Probed] = Counter()
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(row: Any) -> None:
        async with turns:
            found = await _probed(region, outbound, public_url, integration, row, clock)
        if found != "undecided":
            async with region.database.transaction() as tx:
                await _decide(tx, row, found, new_id)
        counted[found] += 1

    after: tuple[UUID, str] = (UUID(int=0), "")
    while rows := await _unprobed(region.database, integration.id, after):
        after = (rows[-1]["id"], rows[-1]["access_profile"])
        try:
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(one(row))
        except ExceptionGroup as failed:  # the first stopped the others, and says what is wrong
            raise failed.exceptions[0] from None
    return counted


async def left(db: Db) -> dict[UUID, tuple[int, int]]:
    """By integration: grants that are still set aside, and how many of them are `suspect`."""
    return {row["integration_id"]: (row["grants"], row["suspect"]) for row in await db.fetch(LEFT)}


async def _count(region: Region) -> None:
    metrics.RESTORED_GRANTS.labels(region.name).set(await region.database.fetchval(COUNT))


async def _unprobed(db: Db, integration: UUID, after: tuple[UUID, str]) -> Sequence[Any]:
    return await db.fetch(UNPROBED, integration, *after, CHUNK)


async def _decide(tx: Db, row: Any, found: Probed, new_id: NewId) -> None:
    """As the probe found it, unless the grant has changed since."""
    await grants.lock(tx, row["id"])
    now = await grants.stored(tx, row["id"], row["access_profile"])
    if now is None or (now.grant.state, now.grant.reason) != ("suspect", REASON):
        return
    signal: Signal = "acquitted" if found == "works" else "refused"
    because = Because(cause="probe_passed" if found == "works" else REFUSED, source="probe")
    move = Move(
        connection=row["id"], access_profile=row["access_profile"], signal=signal, because=because,
        fence=Fence(generation=row["generation"], token_version=row["token_version"]),
        reason=None if found == "works" else REFUSED,
    )  # fmt: skip
    await transitions.apply(tx, [move], new_id)


def _move(row: Any, signal: Signal, because: Because, reason: str | None) -> Move:
    return Move(
        connection=row["connection_id"], access_profile=row["access_profile"], signal=signal, because=because,
        fence=Fence(generation=row["generation"]), reason=reason,
    )  # fmt: skip


async def _probed(
    region: Region, outbound: Outbound, public_url: str, integration: Integration, row: Any, clock: Clock
) -> Probed:
    provider = integration.provider
    parameters = json.loads(row["parameters"])
    place = Place(
        region.name, row["tenant_id"], row["id"], row["access_profile"], row["generation"], row["token_version"]
    )
    if provider.probe is None:
        return "undecided"
    try:
        access = await region.tokens.open(
            place, "access_token", row["data_key_version"], row["sealed_access"], row["kv_path"]
        )
        app = app_of(integration, public_url, parameters, now=clock.now())
        tokens = TokenSet(
            access_token=access, token_type=row["token_type"], parameters=parameters, scopes=frozenset(row["granted"])
        )
        await provider.probe(outbound.for_app(provider.facts.name, facts_of(integration), app), app, tokens)
    except GrantEnded:
        return "refused"
    except ScopeLacking:
        return "works"  # it is alive, and does not reach that far
    except (ProviderError, SealBroken) as error:
        log.warning("restored.undecided", integration=integration.name, error=getattr(error, "code", "seal_broken"))
        return "undecided"
    return "works"


def _rotates(integration: Integration) -> bool:
    """What is not known to be harmless counts as if it rotated."""
    facts = None if integration.trouble is not None else integration.provider.oauth_for(integration.settings)
    return facts is None or facts.rotation != "none"
