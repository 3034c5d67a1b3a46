"""Connect sessions over HTTP: a link for one end user, how it went, and the end of it by the platform's backend."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from gateway import ids
from gateway.connect import store
from gateway.connect.asking import DEFAULT_TTL_S, LEAST_TTL_S, MOST_TTL_S, Wanted, ask
from gateway.connect.completing import Completion
from gateway.connect.store import Session as Stored
from gateway.connections import grants
from gateway.connections import store as connections
from gateway.errors import Conflict, NotFound, SessionOver, WrongCode
from gateway.regions import Region
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.connections import Grant, grant_shown
from gateway.web.fields import IntegrationName, Labels, ProfileName, TenantId, Text
from gateway.web.paging import Page, PageQuery
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Body, Call, NoQuery, Route

SessionState = Literal["created", "opened", "returned", "completed", "failed", "expired"]
ConnectionState = Literal["pending", "active", "suspect", "suspended", "reauth_required", "revoked", "closed"]
ConnectionId = Annotated[str, StringConstraints(pattern=f"^{ids.CONNECTION}_[0-9a-f]{{32}}$")]
PartName = Annotated[str, StringConstraints(pattern="^[a-z_]{1,50}$")]
PartValue = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]


class NewSession(Body):
    """What one end user is to consent to. Either tenant, integration and access_profiles, or a connection to reconnect."""

    tenant: TenantId | None = None
    integration: IntegrationName | None = None
    access_profiles: Annotated[
        list[ProfileName],
        Field(max_length=32, description="of the integration; unset at a reconnect: those that need a consent"),
    ] = Field(default_factory=list)
    connection: Annotated[ConnectionId | None, Field(description="the one to reconnect: it keeps its id")] = None
    scopes: Annotated[
        Literal["all", "missing"],
        Field(description="`missing`: a reconnect asks for what it lacks, where the provider can"),
    ] = "all"
    end_user_id: Text | None = None
    external_id: Annotated[
        Text | None, Field(description="yours; one open connection of tenant and integration each")
    ] = None
    labels: Labels = Field(default_factory=dict)
    return_url: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,2000}$")] | None,
        Field(
            description="where the browser goes in the end: one of the integration's return_urls, with a query of yours"
        ),
    ] = None
    allow_account_switch: Annotated[
        bool, Field(description="a reconnect may be with another account at the provider")
    ] = False
    parameters: Annotated[
        dict[PartName, PartValue], Field(max_length=20, description="parts of the provider's URLs that users choose")
    ] = Field(default_factory=dict)
    ttl_s: Annotated[
        int, Field(ge=LEAST_TTL_S, le=MOST_TTL_S, description="how long the link waits for its button")
    ] = DEFAULT_TTL_S


class Code(Body):
    """What the return URL brought."""

    code: Annotated[
        str,
        Field(min_length=1, max_length=200, repr=False, description="of the return URL; works once, for 10 minutes"),
    ]


class Session(Answer):
    """A link for one end user, and what became of it."""

    id: str
    url: str | None = Field(description="the link: shown once, when it is made")
    tenant: str
    integration: str | None = Field(description="its name; null when the integration is gone")
    access_profiles: list[str]
    reconnects: bool
    connection: str | None = Field(description="null until the user came back, unless it reconnects one")
    connection_state: ConnectionState | None
    grants: dict[str, Grant] = Field(description="by access profile; while a session is not completed: the former ones")
    end_user_id: str | None
    external_id: str | None
    labels: dict[str, str]
    return_url: str | None
    state: SessionState = Field(description="`returned`: waits for `complete`")
    outcome: str | None = Field(
        description="what its last step came to: `connected`, `scopes_missing`, `denied`, `wrong_account`, `provider_error`, "
        "`misconfigured`, `awaits_approval`, `wrong_code`"
    )
    reason: str | None = Field(description="a code that says more of it")
    created_at: datetime
    expires_at: datetime = Field(description="of its next step")


class SessionQuery(PageQuery):
    """Which sessions."""

    tenant: TenantId | None = None
    state: SessionState | None = None
    connection: ConnectionId | None = None


async def create(gateway: Gateway, call: Call[NewSession, NoQuery]) -> Session:
    """Make a link for one end user. It works once, in the first browser in which its button is pressed."""
    asked = call.body
    if len(set(asked.access_profiles)) != len(asked.access_profiles):
        raise invalid("body.access_profiles", "must not name one twice")
    wanted = Wanted(
        tenant=asked.tenant,
        integration=asked.integration,
        connection=None if asked.connection is None else _connection_id(asked.connection),
        access_profiles=tuple(asked.access_profiles),
        scopes=asked.scopes,
        end_user_id=asked.end_user_id,
        external_id=asked.external_id,
        labels=asked.labels,
        parameters=asked.parameters,
        return_url=asked.return_url,
        allow_account_switch=asked.allow_account_switch,
        ttl_s=asked.ttl_s,
    )
    made = await ask(gateway, wanted, call.new_id, None if call.key is None else call.key.id)
    return await _shown(gateway, made.region, made.session, f"{gateway.settings.public_url}/connect/{made.link}")


async def show(gateway: Gateway, call: Call[None, NoQuery]) -> Session:
    region, found = await _locate(gateway, call.id("session_id", ids.SESSION))
    return await _shown(gateway, region, found)


async def list_all(gateway: Gateway, call: Call[None, SessionQuery]) -> Page[Session]:
    asked = call.query
    connection_id = None if asked.connection is None else _connection_id(asked.connection)

    async def read(region: Region, after: UUID | None, limit: int) -> Sequence[tuple[Region, Stored]]:
        found = await store.page(
            region.database,
            tenant_id=asked.tenant,
            state=asked.state,
            connection_id=connection_id,
            after=after,
            limit=limit,
        )
        return [(region, one) for one in found]

    found, further = await paging.across(gateway, asked, "connect_sessions", read, lambda one: one[1].id)
    return Page(items=[await _shown(gateway, region, one) for region, one in found], next_cursor=further)


async def complete(gateway: Gateway, call: Call[Code, NoQuery]) -> Session:
    """Make the consent count. For the platform's backend, after it has seen whose browser brought the code.

    Until then the connection is `pending` and no token can be read. With the same code again: the same answer.
    """
    region, found = await _locate(gateway, call.id("session_id", ids.SESSION))
    done = await Completion(gateway).complete(region, found.id, call.body.code, call.new_id)
    return await _shown(gateway, region, done)


async def _locate(gateway: Gateway, session_id: UUID) -> tuple[Region, Stored]:
    """Raises: NotFound."""
    for region in gateway.regions:
        found = await store.find(region.database, session_id)
        if found is not None:
            return region, found
    raise NotFound("There is no such session.")


def _connection_id(text: str) -> UUID:
    found = ids.parse(ids.CONNECTION, text)
    assert found is not None, "the pattern says so"
    return found


async def _shown(gateway: Gateway, region: Region, session: Stored, url: str | None = None) -> Session:
    integration = gateway.catalog.integration_by_id(session.integration_id)
    connection = await connections.find(region.database, session.connection_id)
    held = [] if connection is None else await grants.shown(region.database, [connection.id])
    return Session(
        id=ids.show(ids.SESSION, session.id),
        url=url,
        tenant=session.tenant_id,
        integration=None if integration is None else integration.name,
        access_profiles=list(session.profiles),
        reconnects=session.reconnects,
        connection=None if connection is None else ids.show(ids.CONNECTION, connection.id),
        connection_state=None if connection is None else connection.state,
        grants={grant.access_profile: grant_shown(grant, doubt) for grant, doubt in held},
        end_user_id=session.end_user_id,
        external_id=session.external_id,
        labels=dict(session.labels),
        return_url=session.return_url,
        state="expired" if session.over and session.state in store.OPEN else session.state,
        outcome=session.outcome,
        reason=session.reason,
        created_at=session.created_at,
        expires_at=session.expires_at,
    )


ROUTES = [
    Route(
        "POST", "/v1/connect/sessions", "connect:write", create, "Make a connect link",
        body=NewSession, answer=Session, status=201, idempotent=True, errors=(NotFound, Conflict),
    ),
    Route(
        "GET", "/v1/connect/sessions", "connect:read", list_all, "Connect sessions by age",
        query=SessionQuery, answer=Page[Session],
    ),
    Route("GET", "/v1/connect/sessions/{session_id}", "connect:read", show, "One connect session", answer=Session),
    Route(
        "POST", "/v1/connect/sessions/{session_id}/complete", "connect:write", complete, "Complete a connect session",
        body=Code, answer=Session, idempotent=True, errors=(NotFound, SessionOver, WrongCode, Conflict),
    ),
]  # fmt: skip
