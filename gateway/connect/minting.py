"""Connections that need no consent: the app's own tokens (client credentials), and installations that it may mint for.

Whoever holds a key that may write connections says so; no browser is involved. The token is minted before there is a
connection, so one that the provider refuses is never made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import asyncpg

from gateway import exchange, ids
from gateway.catalog import Integration
from gateway.connect import accounts, parties, wishes
from gateway.connect.accounts import Known
from gateway.connect.asking import invalid, profiles_of
from gateway.connect.parties import Party
from gateway.connect.staging import Kind
from gateway.connections import grants, rotations, transitions
from gateway.connections import store as connections
from gateway.connections.fences import NAMED_FOR_EVER
from gateway.connections.grants import NewTokens
from gateway.connections.moves import Move, Save
from gateway.connections.rotations import Came
from gateway.connections.scopes import Ledger
from gateway.connections.states import State
from gateway.connections.store import Connection, NewConnection
from gateway.connections.telling import Because
from gateway.database import Db
from gateway.errors import Conflict
from gateway.integrations.profiles import AccessProfile
from gateway.regions import Region
from gateway.service import Gateway
from gateway.tokens.problems import IntegrationBroken, ProviderUnavailable
from gateway.vault.tokens import Place
from providers.errors import GrantEnded, ProviderError, ScopeLacking, Suspended
from providers.oauth import Identity, TokenSet

PAUSE_S = 5
MINTED = Because(cause="connect", source="operator")


async def connect(
    gateway: Gateway, region: Region, integration: Integration, new: NewConnection, names: Sequence[str],
    account_keys: Sequence[str], new_id: Callable[[], UUID],
) -> Connection:  # fmt: skip
    """Make a connection with tokens for these access profiles, active at once, and say so on the stream.

    Raises: Invalid (they need a consent), Conflict, IntegrationBroken, ProviderUnavailable, Unavailable.
    """
    profiles = profiles_of(integration, names)
    found = await connections.find(region.database, new.id)
    if found is not None:
        return found  # a lost attempt of the same call made it
    await _refuse_twin(region, new)
    minted = await _minted(gateway, integration, {name: profiles[name].scopes for name in names}, account_keys)
    sealed: list[tuple[str, Kind, TokenSet, NewTokens]] = []
    for name, (kind, tokens) in minted.items():
        place = Place(region.name, new.tenant_id, new.id, name, 1, 1)
        seal = await region.tokens.seal(place, tokens.access_token, tokens.refresh_token)
        expires = NewTokens(
            sealed=seal, token_type=tokens.token_type, expires_in_s=tokens.expires_in_s,
            refresh_expires_in_s=tokens.refresh_expires_in_s,
        )  # fmt: skip
        sealed.append((name, kind, tokens, expires))
    subject = next((key for key in account_keys if key.startswith("installation:")), None)
    known = None
    if subject is not None:
        identity = Identity(subject=subject, accounts=tuple(account_keys), reach=subject)
        known = accounts.hashed(gateway.control_keyring, integration.id, identity)
    told = [*new.accounts, *([] if known is None or known.reach is None else [known.reach])]
    await connections.hint(gateway.control, integration.id, told, region.name)
    try:
        return await _made(region, new, sealed, profiles, known, new_id)
    except asyncpg.UniqueViolationError:  # a twin came at the same moment
        await _refuse_twin(region, new)
        raise


async def _made(
    region: Region, new: NewConnection, sealed: Sequence[tuple[str, Kind, TokenSet, NewTokens]],
    profiles: Mapping[str, AccessProfile], known: Known | None, new_id: Callable[[], UUID],
) -> Connection:  # fmt: skip
    """The connection with its grants and tokens, in one transaction."""
    async with region.database.transaction() as tx:
        await connections.expect(tx, new)
        await grants.lock(tx, new.id)
        connection = await connections.get(tx, new.id)
        moves = []
        for name, kind, tokens, expires in sealed:
            ledger = wishes.whole(profiles[name]).ledger(tokens.scopes, None)
            save = _saving(tx, new, name, kind, ledger, tokens, None if known is None else known.reach, expires)
            moves.append(Move(
                connection=new.id, access_profile=name, signal="authorized" if ledger.reason is None else "narrowed",
                because=MINTED, fence=NAMED_FOR_EVER, reason=ledger.reason, save=save, made=(1, 1),
            ))  # fmt: skip
        subject_hash = None if known is None else known.subject
        await connections.know(tx, connection, subject_hash, new.accounts, external_id=new.external_id, switched=False)
        await transitions.apply(tx, moves, new_id, looked_back=True)
        return await connections.get(tx, new.id)


def _saving(
    tx: Db, new: NewConnection, name: str, kind: Kind, ledger: Ledger, tokens: TokenSet, reach: UUID | None,
    sealed: NewTokens,
) -> Save:  # fmt: skip
    async def save(state: State, reason: str | None) -> None:
        await grants.put(
            tx, new.id, name, state=state, reason=reason, generation=1, token_version=1, ledger=ledger,
            parameters=tokens.parameters, reach_hash=reach, kind=kind,
        )  # fmt: skip
        await grants.put_tokens(tx, new.id, name, new.tenant_id, 1, 1, sealed)
        await rotations.record(tx, [Came(
            connection=new.id, access_profile=name, generation=1, token_version=1, source="consent", fingerprint=None,
        )])  # fmt: skip

    return save


async def _refuse_twin(region: Region, new: NewConnection) -> None:
    if new.external_id is not None and (twin := await connections.twin(region.database, new)) is not None:
        told = ids.show(ids.CONNECTION, twin)
        raise Conflict("An open connection of this tenant and integration has that external_id.", connection=told)


async def _minted(
    gateway: Gateway, integration: Integration, asked: Mapping[str, tuple[str, ...]], account_keys: Sequence[str]
) -> dict[str, tuple[Kind, TokenSet]]:
    """No database connection is held meanwhile."""
    try:
        party = parties.party(gateway, integration, {})
        return {name: await _one(party, name, scopes, account_keys) for name, scopes in asked.items()}
    except (GrantEnded, Suspended, ScopeLacking) as error:
        raise Conflict("The provider gives no token for that account.", provider_code=error.code) from None
    except ProviderError as error:
        if error.retryable:
            pause_s = int(error.retry_after_s or PAUSE_S)
            raise ProviderUnavailable(retry_after_s=pause_s, provider_code=error.code) from None
        raise IntegrationBroken(retry_after_s=60, provider_code=error.code) from None


async def _one(party: Party, name: str, scopes: tuple[str, ...], account_keys: Sequence[str]) -> tuple[Kind, TokenSet]:
    mint = party.provider.mint
    if name in party.facts.minted and mint is not None:
        if not any(key.startswith("installation:") for key in account_keys):
            raise invalid("accounts", "must name the installation: `installation:42`")
        return "installation", await mint(party.http, party.app, account_keys)
    if "client_credentials" not in party.facts.grant_kinds:
        raise invalid("access_profiles", "need a user's consent: make a connect session")
    tokens = await exchange.client_credentials(party.http, party.provider, party.facts, party.app, name, scopes)
    return "client_credentials", tokens
