"""Grants without a consent, for tests of other things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from gateway.connections import grants
from gateway.connections.grants import Kind
from gateway.connections.moves import Save
from gateway.connections.scopes import Ledger
from gateway.connections.states import State
from gateway.database import Db
from gateway.regions import Region
from gateway.vault.tokens import Place


async def granted(
    region: Region,
    connection: UUID,
    tenant: str,
    profile: str = "reader",
    *,
    generation: int = 1,
    access: str = "an access token",
    refresh: str | None = "another",
    kind: Kind = "code",
    scopes: Sequence[str] = ("read",),
    parameters: Mapping[str, str] | None = None,
    age_s: float = 0.0,
) -> None:
    """An active grant of this connection, with a token set that lives for a day. `age_s`: since it was proven alive."""
    async with region.database.transaction() as tx:
        save = await made(
            tx, region, connection, tenant, profile, generation=generation, access=access, refresh=refresh, kind=kind,
            scopes=scopes, parameters=parameters, age_s=age_s,
        )  # fmt: skip
        await save("active", None)


async def made(
    tx: Db, region: Region, connection: UUID, tenant: str, profile: str, *, generation: int, access: str,
    refresh: str | None = "another", kind: Kind = "code", scopes: Sequence[str] = ("read",),
    parameters: Mapping[str, str] | None = None, age_s: float = 0.0,
) -> Save:  # fmt: skip
    """What writes such a grant in the state that the machine has for it."""
    place = Place(region.name, tenant, connection, profile, generation, generation)
    sealed = await region.tokens.seal(place, access, refresh)
    new = grants.NewTokens(sealed=sealed, token_type="Bearer", expires_in_s=86400, refresh_expires_in_s=None)

    async def save(state: State, reason: str | None) -> None:
        await grants.put(
            tx, connection, profile, state=state, reason=reason, generation=generation, token_version=generation,
            reach_hash=None, ledger=Ledger(tuple(scopes), tuple(scopes)), parameters=parameters or {}, kind=kind,
            age_s=age_s,
        )  # fmt: skip
        await grants.put_tokens(tx, connection, profile, tenant, generation, generation, new)

    return save
