"""Connections over HTTP: register an account of a tenant at an integration, look at it, end it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from gateway import ids, tenants
from gateway.connect import minting
from gateway.connections import grants, store, transitions
from gateway.connections.checks import Why
from gateway.connections.grants import Doubt
from gateway.connections.states import ACTIONS, Action
from gateway.connections.store import Connection as Stored
from gateway.ending import closing
from gateway.errors import Conflict, NotFound
from gateway.regions import Region, account_hash
from gateway.service import Gateway
from gateway.tokens.problems import IntegrationBroken, ProviderUnavailable
from gateway.web import paging
from gateway.web.fields import Account, IntegrationName, Labels, ProfileName, TenantId, Text
from gateway.web.paging import Page, PageQuery
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Body, Call, NoQuery, Route

Held = tuple[grants.Grant, Doubt | None]
State = Literal["pending", "active", "suspect", "suspended", "reauth_required", "revoked", "closed"]


class NewConnection(Body):
    """An account that the platform has connected by itself."""

    tenant: TenantId
    integration: IntegrationName
    accounts: Annotated[
        list[Account],
        Field(max_length=100, description="by which its deliveries are known, as the provider's page says: `team:T1`"),
    ] = Field(default_factory=list)
    access_profiles: Annotated[
        list[ProfileName],
        Field(
            max_length=32,
            description="whose tokens need no consent: the app's own (client credentials), or installations'",
        ),
    ] = Field(default_factory=list)
    external_id: Annotated[
        Text | None, Field(description="yours; one open connection of tenant and integration each")
    ] = None
    end_user_id: Text | None = None
    labels: Labels = Field(default_factory=dict)


class Ending(Answer):
    """What becomes of the tokens of a connection that has ended."""

    revocation: Annotated[
        Literal["pending", "done", "not_needed", "given_up"],
        Field(description="at the provider; `not_needed`: another connection shares what it would have ended"),
    ]


class Scopes(Answer):
    """The ledger of a grant's scopes."""

    requested: list[str]
    granted: list[str]
    missing: list[str] = Field(description="required, and never granted in this generation")
    lost: list[str] = Field(description="required, granted once, gone since")
    optional_missing: list[str]


class Check(Answer):
    """A question to the provider that is to decide a doubt."""

    why: Why = Field(
        description="`contested`: a verified message of unknown generation; `refused`: a refresh was; `rejected`: an access "
        "token was; `hint`: something weaker"
    )
    due_at: datetime
    waits: bool = Field(description="for the provider to be well: see `/v1/providers`")
    tries: int
    last_error: str | None = Field(description="why the last try found nothing out: a code")


class Grant(Answer):
    """What a consent gave for one access profile. Its tokens are read at `/token`."""

    state: State
    reason: str | None = Field(description="why it is in that state, where a word says more")
    since: datetime = Field(description="in that state")
    generation: int = Field(description="counts consents")
    token_version: int = Field(description="counts token sets")
    kind: Literal["code", "client_credentials", "installation"]
    held: bool = Field(description="before a cut-over: never refreshed")
    contested: bool = Field(description="no token is handed out until the check has decided")
    check: Check | None = Field(description="one that is to come; null: nothing is in doubt")
    refreshable: bool = Field(description="has a refresh token, or is minted anew")
    expires_at: datetime | None = Field(description="of the access token; null: it does not expire")
    granted_at: datetime
    scopes: Scopes


class Connection(Answer):
    """One account of one tenant at one integration."""

    id: str
    tenant: str
    integration: str | None = Field(description="its name; null when the integration is gone")
    external_id: str | None
    end_user_id: str | None
    labels: dict[str, str]
    state: State = Field(description="folded from its grants' states")
    action: Action = Field(
        description="what the state asks of you. `reconnect`: send the user through a connect session of this connection; "
        "`complete`: the one under way; `connect`: through a new one; `wait`: somebody lifts it, or a check decides"
    )
    reason: str | None
    access_profiles: dict[str, Grant] = Field(description="its grants; none where the platform registered an account")
    account_count: int = Field(description="accounts are kept as hashes: how many, not which")
    ending: Ending | None = Field(description="of one that has ended, with tokens; null otherwise")
    created_at: datetime
    updated_at: datetime


class ConnectionQuery(PageQuery):
    """Which connections."""

    tenant: TenantId | None = None
    integration: IntegrationName | None = None
    state: State | None = None
    external_id: Text | None = None
    end_user_id: Text | None = None


async def create(gateway: Gateway, call: Call[NewConnection, NoQuery]) -> Connection:
    """Register an account of a tenant. It is active at once, and `posthouse.connection.active` is on the stream.

    With `access_profiles` its tokens are minted first. What needs a user's consent is a connect session's.
    """
    asked = call.body
    region = gateway.regions.get((await tenants.get(gateway.control, asked.tenant)).region)
    integration = await gateway.catalog.look_up(asked.integration)
    if integration is None:
        raise NotFound("There is no such integration.")
    accounts = [account_hash(gateway.control_keyring, integration.id, account) for account in asked.accounts]
    new = store.NewConnection(
        id=call.new_id(),
        tenant_id=asked.tenant,
        integration_id=integration.id,
        external_id=asked.external_id,
        end_user_id=asked.end_user_id,
        labels=asked.labels,
        accounts=accounts,
    )
    if asked.access_profiles:
        names = list(dict.fromkeys(asked.access_profiles))
        made = await minting.connect(gateway, region, integration, new, names, asked.accounts, call.new_id)
        return _shown(gateway, made, await grants.shown(region.database, [made.id]))
    await store.hint(gateway.control, integration.id, accounts, region.name)
    async with region.database.transaction() as tx:
        made = await transitions.register(tx, new, call.new_id)
    return _shown(gateway, made, [])


async def show(gateway: Gateway, call: Call[None, NoQuery]) -> Connection:
    region, found = await locate(gateway, call.id("connection_id", ids.CONNECTION))
    return _shown(gateway, found, await grants.shown(region.database, [found.id]))


async def close(gateway: Gateway, call: Call[None, NoQuery]) -> None:
    """End a connection. Its endpoints are retired, no token is handed out any more, `posthouse.connection.closed` is on the
    stream; again: nothing new. Its tokens are revoked at the provider afterwards (`ending` tells), unless another
    connection shares what that would end; then they are only shredded.
    """
    region, found = await locate(gateway, call.id("connection_id", ids.CONNECTION))
    await closing.end(region, gateway.catalog, found.id, gateway.new_id)


async def list_all(gateway: Gateway, call: Call[None, ConnectionQuery]) -> Page[Connection]:
    asked = call.query
    integration_id = None
    if asked.integration is not None:
        integration = gateway.catalog.integration(asked.integration)
        if integration is None:
            raise invalid("query.integration", "is not an integration's name")
        integration_id = integration.id
    wanted = store.Filter(
        tenant_id=asked.tenant,
        integration_id=integration_id,
        state=asked.state,
        external_id=asked.external_id,
        end_user_id=asked.end_user_id,
    )

    async def read(region: Region, after: UUID | None, limit: int) -> Sequence[tuple[Stored, list[Held]]]:
        page = await store.page(region.database, wanted, after=after, limit=limit)
        held = await grants.shown(region.database, [connection.id for connection in page])
        return [(one, [pair for pair in held if pair[0].connection_id == one.id]) for one in page]

    found, further = await paging.across(gateway, asked, "connections", read, lambda pair: pair[0].id)
    return Page(items=[_shown(gateway, connection, held) for connection, held in found], next_cursor=further)


async def locate(gateway: Gateway, connection_id: UUID) -> tuple[Region, Stored]:
    """The connection and where it lives.    Raises: NotFound."""
    for region in gateway.regions:
        found = await store.find(region.database, connection_id)
        if found is not None:
            return region, found
    raise NotFound("There is no such connection.")


def _shown(gateway: Gateway, connection: Stored, held: Sequence[Held]) -> Connection:
    integration = gateway.catalog.integration_by_id(connection.integration_id)
    return Connection(
        id=ids.show(ids.CONNECTION, connection.id),
        tenant=connection.tenant_id,
        integration=None if integration is None else integration.name,
        external_id=connection.external_id,
        end_user_id=connection.end_user_id,
        labels=dict(connection.labels),
        state=connection.state,
        action=ACTIONS[connection.state],
        reason=connection.reason,
        access_profiles={grant.access_profile: grant_shown(grant, doubt) for grant, doubt in held},
        account_count=connection.accounts,
        ending=None if connection.revocation is None else Ending(revocation=connection.revocation),
        created_at=connection.created_at,
        updated_at=connection.updated_at,
    )


def grant_shown(grant: grants.Grant, doubt: Doubt | None) -> Grant:
    return Grant(
        state=grant.state,
        reason=grant.reason,
        since=grant.since,
        generation=grant.generation,
        token_version=grant.token_version,
        kind=grant.kind,
        held=grant.held,
        contested=grant.contested,
        check=None if doubt is None else Check(
            why=doubt.why, due_at=doubt.due_at, waits=doubt.waits, tries=doubt.tries, last_error=doubt.last_error
        ),
        refreshable=grant.has_refresh or grant.kind != "code",
        expires_at=grant.expires_at,
        granted_at=grant.granted_at,
        scopes=Scopes(
            requested=list(grant.ledger.requested), granted=list(grant.ledger.granted), missing=list(grant.ledger.missing),
            lost=list(grant.ledger.lost), optional_missing=list(grant.ledger.optional_missing),
        ),
    )  # fmt: skip


ROUTES = [
    Route(
        "POST", "/v1/connections", "connections:write", create, "Register a tenant's account",
        body=NewConnection, answer=Connection, status=201, idempotent=True, errors=(NotFound, Conflict, IntegrationBroken, ProviderUnavailable),
    ),
    Route(
        "GET", "/v1/connections", "connections:read", list_all, "Connections by age",
        query=ConnectionQuery, answer=Page[Connection],
    ),
    Route("GET", "/v1/connections/{connection_id}", "connections:read", show, "One connection", answer=Connection),
    Route("DELETE", "/v1/connections/{connection_id}", "connections:write", close, "End a connection", status=204),
]  # fmt: skip
