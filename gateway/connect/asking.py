"""Making a session: what the platform asks for, checked against the integration, before there is any link."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from gateway import exchange, ids, tenants
from gateway.catalog import Integration
from gateway.connect import secrets, store, wishes
from gateway.connect.store import NewSession, Session
from gateway.connect.wishes import Wish
from gateway.connections import grants
from gateway.connections import store as connections
from gateway.connections.grants import Grant
from gateway.connections.states import ISSUED
from gateway.connections.store import Connection
from gateway.errors import Conflict, Invalid, NotFound
from gateway.integrations.profiles import AccessProfile, returns_to
from gateway.regions import Region
from gateway.service import Gateway
from providers import oauth
from providers.errors import Misconfigured
from providers.oauth import OAuthFacts

DEFAULT_TTL_S, LEAST_TTL_S, MOST_TTL_S = 600, 60, 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A session as it is asked for. With `connection` it reconnects that one, and what is not said is as it was."""

    tenant: str | None = None
    integration: str | None = None
    connection: UUID | None = None
    access_profiles: tuple[str, ...] = ()
    scopes: Literal["all", "missing"] = "all"
    end_user_id: str | None = None
    external_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    return_url: str | None = None
    allow_account_switch: bool = False
    ttl_s: int = DEFAULT_TTL_S


@dataclass(frozen=True, slots=True)
class Made:
    """A session and its link, which is shown this once."""

    region: Region
    session: Session
    link: str = field(repr=False)


async def ask(gateway: Gateway, wanted: Wanted, new_id: Callable[[], UUID], created_by: UUID | None) -> Made:
    """Make a session.    Raises: NotFound, Invalid, Conflict, Unavailable."""
    session_id, connection_id = new_id(), new_id()
    if wanted.connection is None:
        return await _first(gateway, wanted, session_id, connection_id, created_by)
    return await _again(gateway, wanted, wanted.connection, session_id, created_by)


async def _first(
    gateway: Gateway, wanted: Wanted, session_id: UUID, connection_id: UUID, created_by: UUID | None
) -> Made:
    if wanted.tenant is None or wanted.integration is None or not wanted.access_profiles:
        raise invalid("connection", "or else tenant, integration and access_profiles must be named")
    if wanted.scopes == "missing":
        raise invalid("scopes", "can be `missing` only where a connection is named")
    region = gateway.regions.get((await tenants.get(gateway.control, wanted.tenant)).region)
    integration = await gateway.catalog.look_up(wanted.integration)
    if integration is None:
        raise NotFound("There is no such integration.")
    facts = _facts(integration)
    profiles = {
        name: wishes.whole(profile) for name, profile in profiles_of(integration, wanted.access_profiles).items()
    }
    parameters = _parameters(gateway, integration, facts, wanted.parameters)
    connection = connections.NewConnection(
        id=connection_id, tenant_id=wanted.tenant, integration_id=integration.id, external_id=wanted.external_id,
        end_user_id=wanted.end_user_id, labels=wanted.labels, accounts=(),
    )  # fmt: skip
    if wanted.external_id is not None and (twin := await connections.twin(region.database, connection)) is not None:
        raise Conflict(
            "An open connection of this tenant and integration has that external_id: reconnect that one.",
            connection=ids.show(ids.CONNECTION, twin),
        )
    return await _make(
        region, integration, wanted, session_id, connection, profiles, parameters, created_by, reconnects=False
    )


async def _again(
    gateway: Gateway, wanted: Wanted, connection_id: UUID, session_id: UUID, created_by: UUID | None
) -> Made:
    region, found = await _connection(gateway, connection_id)
    integration = gateway.catalog.integration_by_id(found.integration_id)
    if integration is None or found.state in ("closed", "pending"):
        raise Conflict("That connection cannot be reconnected.", state=found.state)
    for name, said, held in (
        ("tenant", wanted.tenant, found.tenant_id),
        ("integration", wanted.integration, integration.name),
    ):
        if said is not None and said != held:
            raise invalid(name, "is another one than the connection's")
    if wanted.external_id is not None or wanted.labels or wanted.end_user_id is not None:
        raise invalid("connection", "keeps its external_id, end_user_id and labels: name none of them")
    facts = _facts(integration)
    held_grants = {grant.access_profile: grant for grant in await grants.of(region.database, [found.id])}
    profiles = _wishes(wanted, integration, facts, held_grants)
    before = {name: value for grant in held_grants.values() for name, value in grant.parameters.items()}
    chosen = {name: value for name, value in before.items() if name in facts.user_parts} | dict(wanted.parameters)
    parameters = _parameters(gateway, integration, facts, chosen)
    connection = connections.NewConnection(
        id=found.id, tenant_id=found.tenant_id, integration_id=found.integration_id, external_id=found.external_id,
        end_user_id=found.end_user_id, labels=found.labels, accounts=(),
    )  # fmt: skip
    return await _make(
        region, integration, wanted, session_id, connection, profiles, parameters, created_by, reconnects=True
    )


async def _make(
    region: Region, integration: Integration, wanted: Wanted, session_id: UUID, connection: connections.NewConnection,
    profiles: Mapping[str, Wish], parameters: Mapping[str, str], created_by: UUID | None, *, reconnects: bool,
) -> Made:  # fmt: skip
    if wanted.return_url is not None and not returns_to(wanted.return_url, integration.return_urls):
        raise invalid("return_url", "is not one of the integration's return_urls (only its query may differ)")
    link = secrets.fresh()
    new = NewSession(
        id=session_id, tenant_id=connection.tenant_id, integration_id=integration.id, connection_id=connection.id,
        reconnects=reconnects, end_user_id=connection.end_user_id, external_id=connection.external_id,
        labels=connection.labels, profiles=profiles, parameters=parameters, return_url=wanted.return_url,
        allow_account_switch=wanted.allow_account_switch, link_hash=secrets.hashed(region.keyring, "link", link),
        created_by=created_by, ttl_s=wanted.ttl_s,
    )  # fmt: skip
    session = await store.create(region.database, new)
    if session is None:  # a lost attempt of this call made it, and its link was used: then it was not lost at all
        raise Conflict("This call has made a session before, and its link is in use.")
    return Made(region, session, link)


def _facts(integration: Integration) -> OAuthFacts:
    """Raises: Invalid, nobody consents there; Conflict, it cannot be used."""
    try:
        facts = exchange.facts_of(integration)
    except Misconfigured as error:
        if error.code == exchange.UNUSABLE:
            raise Conflict("The integration cannot be used: see `posthouse doctor`.") from None
        raise invalid("integration", "is of a provider that connects no accounts") from None
    if facts.authorize_url is None:
        raise invalid("integration", "needs no user's consent: make the connection with POST /v1/connections")
    return facts


def profiles_of(integration: Integration, names: Collection[str]) -> dict[str, AccessProfile]:
    """Raises: Invalid, the integration has no such access profile."""
    for place, name in enumerate(names):
        if name not in integration.access_profiles:
            raise invalid(f"access_profiles.{place}", "is not an access profile of the integration")
    return {name: integration.access_profiles[name] for name in names}


def _wishes(wanted: Wanted, integration: Integration, facts: OAuthFacts, held: Mapping[str, Grant]) -> dict[str, Wish]:
    """What a reconnect asks for.    Raises: Invalid, Conflict (nothing is missing)."""
    here = [name for name in held if name in integration.access_profiles and held[name].state != "closed"]
    if wanted.scopes == "missing":
        named = profiles_of(integration, wanted.access_profiles or here)
        found = {
            name: mending
            for name, profile in named.items()
            if (mending := wishes.mending(profile, held[name].ledger.granted if name in held else (), facts))
            is not None
        }
        if not found:
            raise Conflict("No scope is missing.")
        return found
    broken = [name for name in here if held[name].state not in ISSUED]
    names = wanted.access_profiles or broken or here
    if not names:
        raise invalid("access_profiles", "must be named: the connection has no grant yet")
    return {name: wishes.whole(profile) for name, profile in profiles_of(integration, names).items()}


def _parameters(
    gateway: Gateway, integration: Integration, facts: OAuthFacts, chosen: Mapping[str, str]
) -> dict[str, str]:
    """URL parts of this session.    Raises: Invalid (not to be chosen, wrong, or missing), Conflict (set-up is incomplete)."""
    for name, value in chosen.items():
        if name not in facts.user_parts or integration.settings.get(name):
            raise invalid(f"parameters.{name[:50]}", "is not to be chosen here")
        if not re.fullmatch(facts.user_parts[name], value):
            raise invalid(f"parameters.{name}", "does not have the form that this provider's has")
    try:
        app = exchange.app_of(integration, gateway.settings.public_url, chosen)
    except Misconfigured as error:
        raise Conflict(f"The integration's set-up is incomplete: {error.code}.") from None
    try:
        for url in (facts.authorize_url, facts.token_url):
            oauth.filled(url or "", facts, app)
    except Misconfigured as error:
        raise invalid("parameters", f"do not suffice: {error.code}") from None
    return dict(chosen)


async def _connection(gateway: Gateway, connection_id: UUID) -> tuple[Region, Connection]:
    """Raises: NotFound."""
    for region in gateway.regions:
        found = await connections.find(region.database, connection_id)
        if found is not None:
            return region, found
    raise NotFound("There is no such connection.")


def invalid(where: str, message: str) -> Invalid:
    return Invalid(message, errors=[{"where": f"body.{where}", "message": message, "type": "invalid"}])
