"""One refresh of one grant, from the look at its row to the new one: the heart of `refresh.py`.

Look, ask without a database connection, write by compare-and-swap on generation and token version. What another
process, a reconnect or a revocation did meanwhile wins: their row is not touched, and a provider's "no" about a token
set that is no longer the current one concludes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import structlog

from gateway import exchange, ids
from gateway.catalog import Integration
from gateway.connections import grants, scopes, store
from gateway.connections.states import ISSUED, State
from gateway.database import Db
from gateway.ending import closing
from gateway.integrations.profiles import AccessProfile
from gateway.outbound import Outbound
from gateway.regions import Region
from gateway.vault.tokens import Place
from providers.oauth import TokenSet

REFUSED = "refresh_refused"  # the reason of a grant whose refresh token the provider called dead
REJECTED = "token_rejected"  # … whose access token a probe found dead, and that cannot be refreshed
EXPIRED = "token_expired"  # … of one that cannot be refreshed
# A terminal answer during an outage is not proof: a second one, this much later, is.
CONFIRM_AFTER_S = 600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """A grant that is to be refreshed, as it was when somebody looked."""

    region: Region
    integration: Integration
    stored: grants.Stored

    @property
    def profile(self) -> AccessProfile:
        """Its scopes. Where the integration has dropped the profile: what was asked for, none of it required."""
        grant = self.stored.grant
        known = self.integration.access_profiles.get(grant.access_profile)
        return known if known is not None else AccessProfile(optional=grant.ledger.requested)

    @property
    def can_be_asked(self) -> bool:
        return self.stored.grant.kind != "code" or self.stored.grant.has_refresh

    @property
    def contested(self) -> bool:
        """The provider has called it dead once, and it is too early to ask again."""
        grant = self.stored.grant
        return (
            grant.state == "suspect" and grant.reason in (REFUSED, REJECTED) and self.stored.in_state_s < CONFIRM_AFTER_S
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fresh:
    """What came: to be kept, whatever happens. `at`: of the monotonic clock."""

    tokens: TokenSet
    refresh_token: str | None
    at: float

    def __repr__(self) -> str:
        return "Fresh(…)"


async def ask(outbound: Outbound, due: Due, public_url: str, now: datetime) -> tuple[TokenSet, str | None]:
    """A new token set, and the refresh token that goes with it: the new one, or the old one where none came.

    Raises: ProviderError; Unavailable and SealBroken while the old one is opened.
    """
    stored, grant, integration = due.stored, due.stored.grant, due.integration
    provider, facts = integration.provider, exchange.facts_of(integration)
    app = exchange.app_of(integration, public_url, grant.parameters, now=now)
    http = outbound.for_app(provider.facts.name, facts, app, kind="token")
    if grant.kind == "installation":
        return await exchange.mint(http, provider, app, exchange.minted_for(grant.parameters)), None
    asked = due.profile.scopes
    if grant.kind == "client_credentials":
        return await exchange.client_credentials(http, provider, facts, app, grant.access_profile, asked), None
    assert stored.data_key_version is not None
    old = await due.region.tokens.open(
        _place(due, grant.token_version), "refresh_token", stored.data_key_version, stored.sealed_refresh, stored.kv_path
    )  # fmt: skip
    tokens = await exchange.refresh(http, provider, facts, app, grant.access_profile, asked, old)
    return tokens, tokens.refresh_token or old


async def keep(due: Due, fresh: Fresh, waited_s: float, now: datetime) -> bool:
    """Put the new token set in the old one's place; False: that is no longer there, and the new set is of no use.

    `waited_s`: since it came; its life is that much shorter.    Raises: Unavailable, asyncpg's errors.
    """
    stored, grant, tokens = due.stored, due.stored.grant, fresh.tokens
    version = grant.token_version + 1
    ledger = scopes.compared(due.profile, tokens.scopes, grant.ledger)
    state: State = "active" if ledger.reason is None else "reauth_required"
    refresh_s = tokens.refresh_expires_in_s
    if refresh_s is None and tokens.refresh_token is None and stored.refresh_left_s is not None:
        refresh_s = math.floor(stored.refresh_left_s)  # the old one goes on
    new = grants.NewTokens(
        sealed=await due.region.tokens.seal(_place(due, version), tokens.access_token, fresh.refresh_token),
        token_type=tokens.token_type,
        expires_in_s=_left(tokens.expires_in_s, waited_s),
        refresh_expires_in_s=_left(refresh_s, waited_s),
    )
    async with due.region.database.transaction() as tx:
        connection = await grants.lock(tx, grant.connection_id)
        written = await grants.rotate(
            tx, grant, stored.tenant, version, state=state, reason=ledger.reason, ledger=ledger, new=new
        )  # fmt: skip
        if written:
            changed = (ledger.granted, ledger.lost) != (grant.ledger.granted, grant.ledger.lost)
            await store.settle(
                tx, grant.connection_id, ids.uuid7(now), cause=ledger.reason or "refreshed",
                say="scopes_changed" if changed else None,
            )  # fmt: skip
        elif connection == "closed" and closing.ends_alone(due.integration):
            # The end took the token set of before, which is superseded: revoking that one need not end this one.
            await closing.leave(tx, due.region, _leaving(due, fresh), ids.uuid7(now))
    return written


def _leaving(due: Due, fresh: Fresh) -> closing.Leaving:
    stored, grant = due.stored, due.stored.grant
    return closing.Leaving(
        tenant=stored.tenant, connection_id=grant.connection_id, access_profile=grant.access_profile,
        integration_id=stored.integration_id, access_token=fresh.tokens.access_token, refresh_token=fresh.refresh_token,
        token_type=fresh.tokens.token_type, parameters=grant.parameters, reach_hash=grant.reach_hash,
    )  # fmt: skip


async def probe(outbound: Outbound, due: Due, public_url: str, now: datetime) -> None:
    """Try the access token at the provider, whose module has `probe`.    Raises: ProviderError, Unavailable, SealBroken."""
    stored, grant, provider = due.stored, due.stored.grant, due.integration.provider
    assert provider.probe is not None
    assert stored.data_key_version is not None
    app = exchange.app_of(due.integration, public_url, grant.parameters, now=now)
    http = outbound.for_app(provider.facts.name, exchange.facts_of(due.integration), app)
    access = await due.region.tokens.open(
        _place(due, grant.token_version), "access_token", stored.data_key_version, stored.sealed_access, stored.kv_path
    )  # fmt: skip
    tokens = TokenSet(access_token=access, token_type=grant.token_type or "Bearer", parameters=grant.parameters)
    await provider.probe(http, app, tokens)


async def refused(due: Due, now: datetime, reason: str = REFUSED) -> bool:
    """The provider calls the token dead: evidence at first, proof when it says so again later.

    False: it was not about the current token set (another process has rotated it), and nothing is concluded.
    """
    grant = due.stored.grant
    async with due.region.database.transaction() as tx:
        await grants.lock(tx, grant.connection_id)
        current = await grants.stored(tx, grant.connection_id, grant.access_profile)
        if current is None or not _same(current.grant, grant):
            return False
        if current.grant.state == "suspect" and current.grant.reason == reason:
            if current.in_state_s >= CONFIRM_AFTER_S:
                await _move(tx, current.grant, "reauth_required", reason, now)
        else:
            await _move(tx, current.grant, "suspect", reason, now)
    return True


async def acquitted(due: Due, now: datetime) -> None:
    """A probe found the access token alive that had been called dead, and no refresh token is in doubt."""
    grant = due.stored.grant
    async with due.region.database.transaction() as tx:
        await grants.lock(tx, grant.connection_id)
        current = await grants.stored(tx, grant.connection_id, grant.access_profile)
        if current is not None and _same(current.grant, grant) and current.grant.reason == REJECTED:
            await _move(tx, current.grant, "active", None, now)


async def run_out(due: Due, now: datetime) -> None:
    """It has expired, and nothing can refresh it: only the user can."""
    grant = due.stored.grant
    async with due.region.database.transaction() as tx:
        await grants.lock(tx, grant.connection_id)
        current = await grants.stored(tx, grant.connection_id, grant.access_profile)
        if current is not None and _same(current.grant, grant) and current.expired:
            await _move(tx, current.grant, "reauth_required", EXPIRED, now)


async def _move(tx: Db, grant: grants.Grant, state: State, reason: str | None, now: datetime) -> None:
    moved = await grants.move(
        tx, grant.connection_id, [grant.access_profile], state, reason, generation=grant.generation
    )  # fmt: skip
    if moved:
        await store.settle(tx, grant.connection_id, ids.uuid7(now), cause=reason or "probe_passed")


def _same(current: grants.Grant, seen: grants.Grant) -> bool:
    return (
        (current.generation, current.token_version) == (seen.generation, seen.token_version)
        and current.state in ISSUED
    )  # fmt: skip


def _place(due: Due, version: int) -> Place:
    grant = due.stored.grant
    return Place(
        due.region.name, due.stored.tenant, grant.connection_id, grant.access_profile, grant.generation, version
    )  # fmt: skip


def _left(life_s: int | None, waited_s: float) -> int | None:
    return None if life_s is None else max(0, math.floor(life_s - waited_s))
