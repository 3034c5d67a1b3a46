"""One refresh of one grant, from the look at its row to the new one: the heart of `refresh.py`.

Ask without a database connection, write by compare-and-swap on generation, token version and the lease's fence. What another
process, a reconnect or a revocation did meanwhile wins: their row is not touched, and a provider's "no" about a token
set that is no longer the current one concludes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import structlog

from gateway import exchange
from gateway.catalog import Integration
from gateway.connections import checks, conditions, grants, rotations, scopes, store, transitions
from gateway.connections.checks import Ask
from gateway.connections.fences import Fence
from gateway.connections.grants import Name
from gateway.connections.machine import Signal
from gateway.connections.moves import CONFIRM_AFTER_S, Applied, Failure, Move, NewId
from gateway.connections.reuse import unanswered
from gateway.connections.rotations import Came, Reuse, Source
from gateway.connections.states import State
from gateway.connections.telling import Because
from gateway.database import Db
from gateway.ending import closing
from gateway.integrations.profiles import AccessProfile
from gateway.outbound import Outbound
from gateway.regions import Region
from gateway.stream.append import append
from gateway.tokens import leases
from gateway.tokens.leases import Lease
from gateway.vault.keyring import Keyring
from gateway.vault.tokens import Place
from providers.oauth import App, OAuthFacts, TokenSet

REFUSED = "refresh_refused"  # the reason of a grant whose refresh token the provider called dead
ANSWER_LOST = "answer_lost"  # … whose refresh was sent, and nobody has its answer
REJECTED = "token_rejected"  # … whose access token a probe found dead, and that cannot be refreshed
ODD = "odd_answer"  # … of a check: a refresh was answered with none of the provider's answers
EXPIRED = "token_expired"  # … of one that cannot be refreshed

Verdict = Literal["first", "again", "lost"]

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
    def name(self) -> Name:
        return self.stored.grant.connection_id, self.stored.grant.access_profile

    @property
    def seen(self) -> tuple[int, int]:
        """Generation and token version."""
        return self.stored.grant.generation, self.stored.grant.token_version

    @property
    def facts(self) -> OAuthFacts:
        """Raises: Misconfigured."""
        return exchange.facts_of(self.integration)

    @property
    def can_be_asked(self) -> bool:
        return self.stored.grant.kind != "code" or self.stored.grant.has_refresh

    @property
    def fence(self) -> Fence:
        """Of what is said about this very token set."""
        grant = self.stored.grant
        return Fence(generation=grant.generation, token_version=grant.token_version)

    def move(self, signal: Signal, because: Because, *, fence: Fence | None = None, **more: Any) -> Move:
        """A signal about this very token set; `fence`: about more than that."""
        grant = self.stored.grant
        return Move(
            connection=grant.connection_id, access_profile=grant.access_profile, signal=signal, because=because,
            fence=fence or self.fence, provider=self.integration.condition, **more,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fresh:
    """What came: to be kept, whatever happens. `at`: of the monotonic clock."""

    tokens: TokenSet
    refresh_token: str | None
    at: float
    asked_s: float = 0.0  # how long before that it was asked for

    def __repr__(self) -> str:
        return "Fresh(…)"


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a call of the token endpoint needs, opened. Its repr shows no token."""

    facts: OAuthFacts
    app: App
    refresh_token: str | None = field(repr=False)


async def prepare(due: Due, public_url: str, now: datetime) -> Prepared:
    """Open what is to be sent.    Raises: Misconfigured; Unavailable, SealBroken while the refresh token is opened."""
    stored, grant, integration = due.stored, due.stored.grant, due.integration
    app = exchange.app_of(integration, public_url, grant.parameters, now=now)
    if grant.kind != "code":
        return Prepared(due.facts, app, None)
    assert stored.data_key_version is not None
    old = await due.region.tokens.open(
        _place(due, grant.token_version), "refresh_token", stored.data_key_version, stored.sealed_refresh, stored.kv_path
    )  # fmt: skip
    return Prepared(due.facts, app, old)


async def ask(outbound: Outbound, due: Due, prepared: Prepared, deadline_s: float) -> tuple[TokenSet, str | None]:
    """A new token set, and the refresh token that goes with it: the new one, or the old one where none came.

    Raises: ProviderError.
    """
    grant, provider, facts, app = due.stored.grant, due.integration.provider, prepared.facts, prepared.app
    http = outbound.for_app(provider.facts.name, facts, app, kind="token", deadline_s=deadline_s)
    if grant.kind == "installation":
        return await exchange.mint(http, provider, app, exchange.minted_for(grant.parameters)), None
    asked, old = due.profile.scopes, prepared.refresh_token
    if grant.kind == "client_credentials":
        return await exchange.client_credentials(http, provider, facts, app, grant.access_profile, asked), None
    assert old is not None
    tokens = await exchange.refresh(http, provider, facts, app, grant.access_profile, asked, old)
    return tokens, tokens.refresh_token or old


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """By what a token set is known again, and who got it how."""

    marks: tuple[UUID, ...]  # `exchange.marks`
    fingerprint: UUID | None  # of its refresh token
    source: Source
    holder: UUID


def known(keyring: Keyring, due: Due, fresh: Fresh, source: Source, holder: UUID) -> Known:
    """`keyring`: control's. `holder`: the process that asked."""
    whole = replace(fresh.tokens, refresh_token=fresh.refresh_token)
    return Known(
        marks=exchange.marks(keyring, due.integration, whole), source=source, holder=holder,
        fingerprint=rotations.fingerprint(keyring, due.integration.id, fresh.refresh_token),
    )  # fmt: skip


async def keep(due: Due, fresh: Fresh, waited_s: float, new_id: NewId, known: Known, *, fence: int | None) -> bool:
    """Put the new token set in the old one's place; False: that is no longer there, and the new set is of no use.

    `waited_s`: since it came; its life is that much shorter. `fence`: of the lease that it was asked under, if that may still
    be its.    Raises: Unavailable, asyncpg's errors; NotNow, another holder has asked for a newer one.
    """
    stored, grant, tokens = due.stored, due.stored.grant, fresh.tokens
    version = grant.token_version + 1
    ledger = scopes.compared(due.profile, tokens.scopes, grant.ledger)
    refresh_s: float | None = tokens.refresh_expires_in_s
    if refresh_s is None and tokens.refresh_token is None and stored.refresh_left_s is not None:
        refresh_s = stored.refresh_left_s  # the old one goes on
    facts = due.integration.provider.oauth_for(due.integration.settings)
    if facts is not None and facts.refresh_life_s is not None:  # from the consent on, whatever is done
        left_s = facts.refresh_life_s - stored.since_consent_s
        refresh_s = left_s if refresh_s is None else min(refresh_s, left_s)
    new = grants.NewTokens(
        sealed=await due.region.tokens.seal(_place(due, version), tokens.access_token, fresh.refresh_token),
        token_type=tokens.token_type,
        expires_in_s=_left(tokens.expires_in_s, waited_s),
        refresh_expires_in_s=_left(refresh_s, waited_s),
    )
    changed = (ledger.granted, ledger.lost) != (grant.ledger.granted, grant.ledger.lost)
    came = Came(
        connection=grant.connection_id, access_profile=grant.access_profile, generation=grant.generation,
        token_version=version, source=known.source, fingerprint=known.fingerprint,
        brought=tokens.refresh_token is not None, holder=known.holder,
    )  # fmt: skip
    async with due.region.database.transaction() as tx:
        await grants.lock(tx, grant.connection_id)
        alone = await leases.ended(tx, due.name, due.seen, fence)

        async def save(state: State, reason: str | None) -> None:
            await grants.rotate(
                tx,
                grant,
                stored.tenant,
                version,
                ledger=ledger,
                marks=known.marks,
                age_s=fresh.asked_s + waited_s,
                new=new,
            )
            await rotations.record(tx, [came])
            if not alone:  # the old token was sent more than once, and may be so still: what that ends is our own doing
                await unanswered(tx, *due.name, version)
            if known.marks != grant.marks:
                await store.mark(tx, [grant.connection_id])

        move = due.move(
            "refreshed" if ledger.reason is None else "scopes_lost",
            Because(cause=ledger.reason or "refreshed", source="token_answer"), reason=ledger.reason, save=save,
            made=(grant.generation, version), also="scopes_changed" if changed else None,
        )  # fmt: skip
        moves = [move]
        if not alone and await _was_given_up(tx, due):  # the old token was sent again, which may have ended this one
            doubt = Because(cause=ANSWER_LOST, source="token_answer")
            fence_of = Fence(generation=grant.generation, token_version=version)
            moves.append(due.move("doubted", doubt, reason=ANSWER_LOST, fence=fence_of, again_in_s=0.0))
        done, *_ = await transitions.apply(tx, moves, new_id)
        written = done.outcome in ("moved", "stays")
        if not written and done.state == "closed" and closing.ends_alone(due.integration):
            # The end took the token set of before, which is superseded: revoking that one need not end this one.
            await closing.leave(tx, due.region, _leaving(due, fresh), new_id())
    return written


async def _was_given_up(tx: Db, due: Due) -> bool:
    """Is the answer that has come at last the one that was given up, and still the next?"""
    held = [one for one in await grants.of(tx, [due.name[0]]) if one.access_profile == due.name[1]]
    return any(
        (one.state, one.reason) == ("reauth_required", ANSWER_LOST) and (one.generation, one.token_version) == due.seen
        for one in held
    )


def _leaving(due: Due, fresh: Fresh) -> closing.Leaving:
    stored, grant = due.stored, due.stored.grant
    return closing.Leaving(
        tenant=stored.tenant, connection_id=grant.connection_id, access_profile=grant.access_profile,
        integration_id=stored.integration_id, access_token=fresh.tokens.access_token, refresh_token=fresh.refresh_token,
        token_type=fresh.tokens.token_type, parameters=grant.parameters, reach_hash=grant.reach_hash,
    )  # fmt: skip


async def probe(outbound: Outbound, due: Due, public_url: str, now: datetime) -> frozenset[str] | None:
    """Try the access token at the provider, whose module has `probe`; the scopes it has, where the answer tells them.

    Raises: ProviderError, Unavailable, SealBroken."""
    stored, grant, provider = due.stored, due.stored.grant, due.integration.provider
    assert provider.probe is not None
    assert stored.data_key_version is not None
    app = exchange.app_of(due.integration, public_url, grant.parameters, now=now)
    http = outbound.for_app(provider.facts.name, exchange.facts_of(due.integration), app)
    access = await due.region.tokens.open(
        _place(due, grant.token_version), "access_token", stored.data_key_version, stored.sealed_access, stored.kv_path
    )  # fmt: skip
    tokens = TokenSet(
        access_token=access, token_type=grant.token_type or "Bearer", parameters=grant.parameters,
        scopes=frozenset(grant.ledger.granted),
    )  # fmt: skip
    return await provider.probe(http, app, tokens)


async def refused(
    due: Due, error_class: Literal["refused", "rejected"], code: str, new_id: NewId, *, verdict: Verdict = "first",
    fence: int | None = None, reuse: Reuse | None = None, is_again: bool = False,
) -> Applied:  # fmt: skip
    """The provider calls the token dead: evidence at first; `again`, ten minutes later, proof, while the guard is quiet.

    `lost`: it was asked once more after an answer had gone missing, and that is all that can be done: proof, likewise.
    `fence`: of the lease of a refresh, which ends with it. `reuse`: of what else it would be a sign (`suspicion.py`). `is_again`:
    an answer about this token set went missing. What came of it; `stale`: it was not about the current token set.

    Raises: NotNow, another holder has asked about this token set, too."""
    grant, moves = due.stored.grant, list[Move]()
    reason = REJECTED if error_class == "rejected" else REFUSED if verdict == "first" else grant.reason or REFUSED
    because = Because(cause=reason, source="token_answer" if error_class == "refused" else "probe", code=code)
    if verdict == "lost":
        reason, because = ANSWER_LOST, replace(because, cause=ANSWER_LOST)
        if grant.state == "active":  # its holder went without a word
            moves.append(due.move("doubted", because, reason=reason))
    signal: Signal = "doubted" if verdict == "first" else "refused"
    failure = Failure(provider=due.integration.condition, error_class=error_class)
    moves.append(due.move(signal, because, reason=reason, failure=failure, again_in_s=CONFIRM_AFTER_S, reuse=reuse))
    async with due.region.database.transaction() as tx:
        if fence is not None:
            await grants.lock(tx, grant.connection_id)
            await leases.ended(tx, due.name, due.seen, fence)
        if is_again:
            await unanswered(tx, *due.name, grant.token_version)
        return (await transitions.apply(tx, moves, new_id))[-1]


async def lost(due: Due, lease: Lease | None, again_in_s: float, new_id: NewId, asked_s: float = 0.0) -> None:
    """An answer is missing that may have brought the only token that still works: in doubt until it is asked again.

    `lease`: ours, which ends so; None: somebody else's, who is gone."""
    grant = due.stored.grant
    if lease is None and grant.state != "active":
        return  # somebody said so
    async with due.region.database.transaction() as tx:
        await grants.lock(tx, grant.connection_id)
        if lease is not None:
            await leases.failed(tx, lease, "lost", ANSWER_LOST, again_in_s, asked_s)
        await unanswered(tx, *due.name, grant.token_version)
        if grant.state == "active":
            because = Because(cause=ANSWER_LOST, source="token_answer")
            move = due.move("doubted", because, reason=ANSWER_LOST, again_in_s=again_in_s)
            await transitions.apply(tx, [move], new_id)


async def odd(due: Due, new_id: NewId, by: Literal["odd", "odd_api"] = "odd") -> None:
    """An answer that is none of the provider's (the token endpoint's, or its API's): it moves nobody, and the guard counts it.

    While that is tripped the grant waits for a check, like those of other failures: canaries are taken from what waits.
    """
    grant = due.stored.grant
    async with due.region.database.transaction() as tx:
        await grants.lock(tx, grant.connection_id)
        counted = await conditions.failed(
            tx, due.integration.condition, by, due.stored.tenant, grant.connection_id, new_id()
        )
        if counted.guarded:
            await checks.ask(tx, [Ask(
                connection_id=grant.connection_id, access_profile=grant.access_profile,
                provider=due.integration.condition, why="hint", waits=True,
                reason=ODD if by == "odd" else "odd_api_answer",
            )])  # fmt: skip
        if counted.event is not None:
            await append(tx, [counted.event])


async def run_out(due: Due, new_id: NewId) -> None:
    """It has expired, and nothing can refresh it: only the user can."""
    async with due.region.database.transaction() as tx:
        move = due.move("ran_out", Because(cause=EXPIRED, source="clock"), reason=EXPIRED)
        await transitions.apply(tx, [move], new_id)


def _place(due: Due, version: int) -> Place:
    grant = due.stored.grant
    return Place(
        due.region.name, due.stored.tenant, grant.connection_id, grant.access_profile, grant.generation, version
    )  # fmt: skip


def _left(life_s: float | None, waited_s: float) -> int | None:
    return None if life_s is None else max(0, math.floor(life_s - waited_s))
