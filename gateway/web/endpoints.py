"""Hook endpoints over HTTP: URLs of ours to give to a provider, each with secrets of its own where it needs them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from gateway import ids
from gateway.catalog import Integration
from gateway.clock import random_bytes
from gateway.endpoints import store
from gateway.endpoints.store import Description, Vault
from gateway.errors import Conflict, NotFound
from gateway.integrations.wanted import secret_fault
from gateway.regions import Region
from gateway.service import Gateway
from gateway.web import connections, paging
from gateway.web.fields import IntegrationName, Secret
from gateway.web.paging import Page, PageQuery
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Body, Call, NoQuery, Query, Route
from providers.registry import Provider

ConnectionId = Annotated[str, StringConstraints(pattern=r"^conn_[0-9a-f]{32}$")]


class NewEndpoint(Body):
    """A URL that is wanted."""

    integration: IntegrationName
    connection: Annotated[ConnectionId | None, Field(description="everything that comes here is this connection's")] = (
        None
    )
    secret: Annotated[
        Secret | None,
        Field(description="the one that the provider made; unset: we make one where nothing else verifies"),
    ] = None
    generate_secret: Annotated[bool, Field(description="make one, whatever the integration holds")] = False
    state: Annotated[
        Literal["confirming", "live"], Field(description="`confirming`: an unsigned handshake is answered")
    ] = "live"
    confirm_ttl_s: Annotated[int, Field(ge=1, le=86_400, description="then a `confirming` endpoint is retired")] = 600


class EndpointChanges(Body):
    """Where it goes from here. A retired endpoint does not come back."""

    state: Literal["live", "retired"]


class NewEndpointSecret(Body):
    """A secret to put in front; unset: we make one."""

    secret: Secret | None = None


class KeepQuery(Query):
    """How many to keep."""

    keep: Annotated[int, Field(ge=1, le=store.MOST_SECRETS, description="the newest so many stay")] = 1


class EndpointQuery(PageQuery):
    """Which endpoints."""

    integration: IntegrationName | None = None
    connection: ConnectionId | None = None


class Endpoint(Answer):
    """A URL of ours that a provider calls."""

    id: str
    url: str = Field(description="give this to the provider")
    integration: str | None = Field(description="its name; null when the integration is gone")
    connection: str | None
    state: store.State
    confirm_until: datetime | None
    secret_count: int = Field(description="0: the integration's own secrets verify what comes here")
    created_at: datetime
    updated_at: datetime


class CreatedEndpoint(Endpoint):
    """An endpoint, and the secret that was made for it: shown this once."""

    secret: str | None


async def create(gateway: Gateway, call: Call[NewEndpoint, NoQuery]) -> CreatedEndpoint:
    """Make a URL for a provider to call."""
    asked = call.body
    integration = await gateway.catalog.look_up(asked.integration)
    if integration is None:
        raise NotFound("There is no such integration.")
    region = gateway.regions.get(integration.region)
    connection_id = await _connection(gateway, asked.connection, integration, region)
    secret, made = _secret(asked.secret, integration.provider), False
    nothing_verifies = not integration.trust.secrets or integration.provider.facts.signs_with == "endpoint"
    if secret is None and (asked.generate_secret or nothing_verifies):
        secret, made = new_secret(integration.provider), True
    endpoint_id = call.new_id()
    async with region.database.transaction() as tx:
        found = await store.create(
            tx, Vault(region.name, region.keyring), endpoint_id,
            integration_id=integration.id, connection_id=connection_id, state=asked.state,
            confirm_ttl_s=asked.confirm_ttl_s, secrets=() if secret is None else (secret,),
        )  # fmt: skip
    shown = found.secrets[0].decode() if made and found.secrets else None
    return CreatedEndpoint(**_fields(gateway, found), secret=shown)


async def show(gateway: Gateway, call: Call[None, NoQuery]) -> Endpoint:
    return Endpoint(**_fields(gateway, (await _locate(gateway, call))[1]))


async def list_all(gateway: Gateway, call: Call[None, EndpointQuery]) -> Page[Endpoint]:
    asked = call.query
    integration_id = None
    if asked.integration is not None:
        integration = gateway.catalog.integration(asked.integration)
        if integration is None:
            raise invalid("query.integration", "is not an integration's name")
        integration_id = integration.id
    connection_id = None if asked.connection is None else ids.parse(ids.CONNECTION, asked.connection)

    async def read(region: Region, after: UUID | None, limit: int) -> Sequence[Description]:
        return await store.page(
            region.database, after=after, limit=limit, integration_id=integration_id, connection_id=connection_id
        )

    found, further = await paging.across(gateway, asked, "endpoints", read, lambda endpoint: endpoint.id)
    return Page(items=[Endpoint(**_fields(gateway, endpoint)) for endpoint in found], next_cursor=further)


async def change(gateway: Gateway, call: Call[EndpointChanges, NoQuery]) -> Endpoint:
    """Make it live, or retire it: it is 404 to the provider from then on (in other processes within a second)."""
    region, found = await _locate(gateway, call)
    changed = await store.set_state(region.database, found.id, call.body.state)
    gateway.endpoints.forget(region.name, found.id)
    return Endpoint(**_fields(gateway, changed))


async def delete(gateway: Gateway, call: Call[None, NoQuery]) -> None:
    """Remove it with its secrets."""
    region, found = await _locate(gateway, call)
    await store.delete(region.database, found.id)
    gateway.endpoints.forget(region.name, found.id)


async def add_secret(gateway: Gateway, call: Call[NewEndpointSecret, NoQuery]) -> CreatedEndpoint:
    """Put a secret in front. The older ones verify as well until they are dropped, so nothing is lost on the way."""
    region, found = await _locate(gateway, call)
    integration = gateway.catalog.integration_by_id(found.integration_id)
    if integration is None:
        raise Conflict("The integration of this endpoint is gone.")
    given = _secret(call.body.secret, integration.provider)
    secret = given or new_secret(integration.provider)
    async with region.database.transaction() as tx:
        changed = await store.add_secret(tx, Vault(region.name, region.keyring), found.id, secret)
    gateway.endpoints.forget(region.name, found.id)
    return CreatedEndpoint(**_fields(gateway, changed), secret=None if given else secret.decode())


async def drop_secrets(gateway: Gateway, call: Call[None, KeepQuery]) -> Endpoint:
    """Drop the oldest secrets, all but the newest `keep`: what is still signed with them is refused from then on."""
    region, found = await _locate(gateway, call)
    async with region.database.transaction() as tx:
        changed = await store.keep_secrets(tx, found.id, call.query.keep)
    gateway.endpoints.forget(region.name, found.id)
    return Endpoint(**_fields(gateway, changed))


def new_secret(provider: Provider) -> bytes:
    """A random secret in a form that the provider's own rules take."""
    chance = random_bytes(32)
    plain = base64.urlsafe_b64encode(chance).rstrip(b"=")
    for form in (plain, b"whsec_" + base64.b64encode(chance)):
        if secret_fault(form, provider) is None:
            return form
    raise Conflict("This provider makes its secrets itself: send the one that it shows.")


def _secret(given: Secret | None, provider: Provider) -> bytes | None:
    if given is None:
        return None
    secret = given.get_secret_value().encode()
    fault = secret_fault(secret, provider)
    if fault is not None:
        raise invalid("body.secret", fault)
    return secret


async def _connection(gateway: Gateway, shown: str | None, integration: Integration, region: Region) -> UUID | None:
    """The connection that an endpoint is made for.    Raises: NotFound, Conflict, Invalid."""
    if shown is None:
        return None
    connection_id = ids.parse(ids.CONNECTION, shown)
    if connection_id is None:
        raise NotFound("There is no such connection.")
    place, connection = await connections.locate(gateway, connection_id)
    if connection.integration_id != integration.id:
        raise invalid("body.connection", "is a connection of another integration")
    if connection.state == "closed":
        raise Conflict("The connection is closed.")
    if place is not region:
        raise Conflict("The connection lives in another region than the integration's home.")
    return connection.id


async def _locate(gateway: Gateway, call: Call[Any, Any]) -> tuple[Region, Description]:
    endpoint_id = call.id("endpoint_id", ids.ENDPOINT)
    for region in gateway.regions:
        found = await store.find(region.database, endpoint_id)
        if found is not None:
            return region, found
    raise NotFound("There is no such endpoint.")


def _fields(gateway: Gateway, endpoint: Description) -> dict[str, object]:
    integration = gateway.catalog.integration_by_id(endpoint.integration_id)
    shown = ids.show(ids.ENDPOINT, endpoint.id)
    name = "gone" if integration is None else integration.name
    return {
        "id": shown,
        "url": f"{gateway.settings.public_url}/hooks/{name}/{shown}",
        "integration": None if integration is None else integration.name,
        "connection": None if endpoint.connection_id is None else ids.show(ids.CONNECTION, endpoint.connection_id),
        "state": endpoint.state,
        "confirm_until": endpoint.confirm_until,
        "secret_count": endpoint.secret_count,
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
    }


ROUTES = [
    Route(
        "POST", "/v1/endpoints", "endpoints:write", create, "Make a hook endpoint",
        body=NewEndpoint, answer=CreatedEndpoint, status=201, idempotent=True, errors=(NotFound, Conflict),
    ),
    Route(
        "GET", "/v1/endpoints", "endpoints:read", list_all, "Hook endpoints by age",
        query=EndpointQuery, answer=Page[Endpoint],
    ),
    Route("GET", "/v1/endpoints/{endpoint_id}", "endpoints:read", show, "One hook endpoint", answer=Endpoint),
    Route(
        "PATCH", "/v1/endpoints/{endpoint_id}", "endpoints:write", change, "Make live or retire a hook endpoint",
        body=EndpointChanges, answer=Endpoint, errors=(Conflict,),
    ),
    Route("DELETE", "/v1/endpoints/{endpoint_id}", "endpoints:write", delete, "Remove a hook endpoint", status=204),
    Route(
        "POST", "/v1/endpoints/{endpoint_id}/secrets", "endpoints:write", add_secret, "Add a secret in front",
        body=NewEndpointSecret, answer=CreatedEndpoint, status=201, idempotent=True, errors=(Conflict,),
    ),
    Route(
        "DELETE", "/v1/endpoints/{endpoint_id}/secrets", "endpoints:write", drop_secrets, "Drop the oldest secrets",
        query=KeepQuery, answer=Endpoint,
    ),
]  # fmt: skip
