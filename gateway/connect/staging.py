"""What a consent brought, while it waits for the platform to complete the session: sealed, bound to the session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import orjson

from gateway.connect import store
from gateway.connect.store import Session
from gateway.database import Db
from gateway.ids import of
from gateway.regions import Region
from gateway.vault.tokens import sealed_text, staged_place
from providers.oauth import TokenSet

Kind = Literal["code", "client_credentials", "installation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A token set for one access profile, and whose account it is: as hashes, since names of accounts are not kept."""

    access_profile: str
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    token_type: str
    expires_in_s: int | None  # from now
    refresh_expires_in_s: int | None
    scopes: frozenset[str] | None  # None: the answer named none
    parameters: Mapping[str, str]
    accounts: tuple[UUID, ...]
    reach: UUID | None
    kind: Kind = "code"
    marks: tuple[UUID, ...] = ()  # of its refresh token: `exchange.marks`
    age_s: float = 0.0  # since it came
    lasts: bool = True  # False: it expires, and no refresh token came along, though one should have


def brought(
    access_profile: str,
    tokens: TokenSet,
    accounts: Iterable[UUID],
    reach: UUID | None,
    *,
    kind: Kind = "code",
    marks: Iterable[UUID] = (),
    refresh_expected: bool = False,
    refresh_life_s: int | None = None,
) -> Brought:
    """What an answer brought. `refresh_life_s`: from the consent on, whatever is done (`OAuthFacts`)."""
    lives = (tokens.refresh_expires_in_s, refresh_life_s if tokens.refresh_token is not None else None)
    refresh_s = min((life for life in lives if life is not None), default=None)
    return Brought(
        access_profile=access_profile, access_token=tokens.access_token, refresh_token=tokens.refresh_token,
        token_type=tokens.token_type, expires_in_s=tokens.expires_in_s, refresh_expires_in_s=refresh_s,
        scopes=tokens.scopes, parameters=dict(tokens.parameters), accounts=tuple(accounts), reach=reach, kind=kind,
        marks=tuple(marks), lasts=not refresh_expected or tokens.expires_in_s is None or tokens.refresh_token is not None,
    )  # fmt: skip


Sealed = tuple[str, int, bytes]  # access profile, version of the data key, sealed


async def seal(region: Region, session: Session, sets: Iterable[Brought]) -> list[Sealed]:
    """Each for its row.    Raises: Unavailable, SealBroken."""
    key = await region.tokens.keys.for_sealing(session.tenant_id)
    sealed = []
    for one in sets:
        place = staged_place(region.name, session.tenant_id, session.id, one.access_profile)
        sealed.append((one.access_profile, key.version, sealed_text(key, _as_text(one), place.aad("staged"))))
    return sealed


async def put(tx: Db, session: Session, sealed: Iterable[Sealed]) -> None:
    for access_profile, version, data in sealed:
        await store.stage(tx, session, access_profile, version, data)


async def opened(db: Db, region: Region, session: Session) -> list[Brought]:
    """What is staged, its lifetimes counted from now.    Raises: Unavailable, SealBroken."""
    found = []
    for row in await store.staged(db, session.id):
        place = staged_place(region.name, session.tenant_id, session.id, row.access_profile)
        text = await region.tokens.open(place, "staged", row.data_key_version, row.sealed)
        found.append(_from_text(row.access_profile, text, row.age_s))
    return found


def _as_text(one: Brought) -> str:
    said = {
        "access": one.access_token, "refresh": one.refresh_token, "type": one.token_type, "expires_in_s": one.expires_in_s,
        "refresh_expires_in_s": one.refresh_expires_in_s, "scopes": None if one.scopes is None else sorted(one.scopes),
        "parameters": one.parameters, "accounts": [account.hex for account in one.accounts],
        "reach": None if one.reach is None else one.reach.hex, "kind": one.kind, "lasts": one.lasts,
        "marks": [mark.hex for mark in one.marks],
    }  # fmt: skip
    return orjson.dumps(said).decode()


def _from_text(access_profile: str, text: str, age_s: float) -> Brought:
    said: dict[str, Any] = orjson.loads(text)
    return Brought(
        access_profile=access_profile, access_token=said["access"], refresh_token=said["refresh"], token_type=said["type"],
        expires_in_s=_left(said["expires_in_s"], age_s), refresh_expires_in_s=_left(said["refresh_expires_in_s"], age_s),
        scopes=None if said["scopes"] is None else frozenset(said["scopes"]), parameters=said["parameters"],
        accounts=tuple(of(bytes.fromhex(account)) for account in said["accounts"]),
        reach=None if said["reach"] is None else of(bytes.fromhex(said["reach"])), kind=said["kind"],
        lasts=said["lasts"], marks=tuple(of(bytes.fromhex(mark)) for mark in said.get("marks", ())), age_s=age_s,
    )  # fmt: skip


def _left(lifetime_s: int | None, age_s: float) -> int | None:
    return None if lifetime_s is None else max(int(lifetime_s - age_s), 0)
