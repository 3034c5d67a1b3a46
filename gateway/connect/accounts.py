"""Whose account it is, as keyed hashes under the control keyring: the same in every region. Names are not kept."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.connections.store import Connection
from gateway.regions import account_hash, reach_hash, subject_hash
from gateway.vault.keyring import Keyring
from providers.oauth import Identity


@dataclass(frozen=True, slots=True)
class Known:
    """An identity, hashed."""

    subject: UUID
    accounts: tuple[UUID, ...]  # by which deliveries are found
    reach: UUID | None  # what a revocation at the provider would end


def hashed(keyring: Keyring, integration: UUID, identity: Identity) -> Known:
    """Of one integration: the same account at another one is another hash."""
    return Known(
        subject_hash(keyring, integration, identity.subject),
        tuple(account_hash(keyring, integration, account) for account in dict.fromkeys(identity.accounts)),
        None if identity.reach is None else reach_hash(keyring, integration, identity.reach),
    )


def is_same(connection: Connection, held: set[UUID], subject: UUID, accounts: tuple[UUID, ...]) -> bool:
    """Is it the account that `connection` is for? `held`: the account hashes it has.

    One that the platform registered has no subject yet: then the names by which its deliveries are known must agree.
    """
    if connection.subject_hash is not None:
        return connection.subject_hash == subject
    return not held or not held.isdisjoint(accounts)
