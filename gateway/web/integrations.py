"""Integrations over HTTP. One that `posthouse.toml` declares is changed there; the others here."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints

from gateway import ids
from gateway.endpoints import store as endpoints
from gateway.errors import Conflict, Invalid, NotFound
from gateway.integrations import secrets, store
from gateway.integrations.profiles import ProfileModel, as_json
from gateway.integrations.wanted import PURPOSES, Purpose, Wanted, checked, secret_fault, signing_purpose
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.fields import IntegrationName, RegionName, Secret
from gateway.web.paging import Page, PageQuery
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Body, Call, NoQuery, Query, Route
from providers.registry import all_providers

ClientId = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,1000}$")]
Secrets = Annotated[list[Secret], Field(max_length=8, description="newest first; never shown again")]
Settings = Annotated[dict[str, JsonValue], Field(description="what this provider needs beside its secrets")]


Profiles = Annotated[
    dict[str, ProfileModel], Field(max_length=32, description="named sets of scopes that a connect session asks for")
]
ReturnUrls = Annotated[
    list[Annotated[str, Field(max_length=2000)]],
    Field(max_length=100, description="where a connect session may send its user back to"),
]


class NewIntegration(Body):
    """An app registration at a provider."""

    name: Annotated[IntegrationName, Field(description="stands in the URL: `/hooks/{name}`")]
    provider: Annotated[str, Field(min_length=1, max_length=100)]
    region: Annotated[RegionName | None, Field(description="home region; unset: the first")] = None
    client_id: ClientId | None = None
    settings: Settings = Field(default_factory=dict)
    unattributed: Annotated[
        Literal["keep", "drop"], Field(description="what becomes of items that match no connection")
    ] = "keep"
    access_profiles: Profiles = Field(default_factory=dict)
    return_urls: ReturnUrls = Field(default_factory=list)
    signing_secrets: Secrets = Field(default_factory=list)
    client_secrets: Secrets = Field(default_factory=list)


class IntegrationChanges(Body):
    """What changes; a field that is not named stays as it is."""

    region: RegionName = "default"
    client_id: ClientId | None = None
    settings: Settings = Field(default_factory=dict)
    unattributed: Literal["keep", "drop"] = "keep"
    access_profiles: Profiles = Field(default_factory=dict)
    return_urls: ReturnUrls = Field(default_factory=list)


class NewSecret(Body):
    """A secret that goes in front of those there are."""

    purpose: Annotated[Purpose | None, Field(description="unset: the one that the provider signs with")] = None
    secret: Secret


class RetireQuery(Query):
    """How many to keep."""

    purpose: Annotated[Purpose | None, Field(description="unset: the one that the provider signs with")] = None
    keep: Annotated[int, Field(ge=1, le=8, description="the newest so many stay")] = 1


class HeldSecret(Answer):
    """When a secret was added: all that is ever shown of it."""

    added_at: datetime


class Integration(Answer):
    """An app registration at a provider."""

    id: str
    name: str
    provider: str
    region: str
    client_id: str | None
    settings: dict[str, Any]
    unattributed: Literal["keep", "drop"]
    access_profiles: dict[str, ProfileModel]
    return_urls: list[str]
    declared_by: Literal["file", "api"]
    url: str = Field(description="where the provider sends deliveries of the whole app")
    signing_secrets: list[HeldSecret] = Field(description="newest first")
    client_secrets: list[HeldSecret] = Field(description="newest first")
    trouble: str | None = Field(description="why it cannot be used just now, if it cannot")
    created_at: datetime
    updated_at: datetime


async def create(gateway: Gateway, call: Call[NewIntegration, NoQuery]) -> Integration:
    """Set up an app registration. Its secrets are sealed at once and never shown again."""
    asked = call.body
    given = {"signing_secrets": asked.signing_secrets, "client_secrets": asked.client_secrets}
    wanted = checked(
        Wanted(
            name=asked.name,
            provider=asked.provider,
            region=asked.region or gateway.regions.home.name,
            client_id=asked.client_id,
            settings=asked.settings,
            unattributed=asked.unattributed,
            access_profiles={name: said.profile() for name, said in asked.access_profiles.items()},
            return_urls=tuple(asked.return_urls),
            secrets={purpose: tuple(s.get_secret_value().encode() for s in given[purpose]) for purpose in PURPOSES},
        ),
        all_providers(),
        _regions(gateway),
    )
    new_id = call.new_id()
    async with gateway.control.transaction() as tx:
        try:
            made = await store.create(tx, gateway.control_keyring, wanted, call.now, by="api", new_id=new_id)
        except Conflict:
            made = await store.get(tx, wanted.name)
            if made.id != new_id:  # else a lost attempt of this very call made it
                raise
    await gateway.catalog.refresh()
    return _shown(gateway, made)


async def show(gateway: Gateway, call: Call[None, NoQuery]) -> Integration:
    return _shown(gateway, await store.get(gateway.control, call.path["integration"]))


async def list_all(gateway: Gateway, call: Call[None, PageQuery]) -> Page[Integration]:
    """Integrations in the order they were made."""
    position = paging.uuid_after(call.query, "integrations")
    found = await store.page(gateway.control, after=position, limit=call.query.limit + 1)
    return paging.cut(call.query, "integrations", found, lambda one: one.id.hex, lambda one: _shown(gateway, one))


async def change(gateway: Gateway, call: Call[IntegrationChanges, NoQuery]) -> Integration:
    """Change some fields. Name and provider stay as made; secrets have routes of their own."""
    changes = call.body.model_dump(exclude_unset=True)
    if "access_profiles" in changes:
        changes["access_profiles"] = {name: said.profile() for name, said in call.body.access_profiles.items()}
    if "return_urls" in changes:
        changes["return_urls"] = tuple(call.body.return_urls)
    async with gateway.control.transaction() as tx:
        made = await store.update(
            tx, call.path["integration"], changes, call.now, by="api", providers=all_providers(), regions=_regions(gateway),
        )  # fmt: skip
    await gateway.catalog.refresh()
    return _shown(gateway, made)


async def delete(gateway: Gateway, call: Call[None, NoQuery]) -> None:
    """Remove it with its secrets: its deliveries are answered 404 from then on.

    Its hook endpoints are retired and their secrets forgotten. Its connections stay as they are, with their events.
    """
    async with gateway.control.transaction() as tx:
        gone = await store.delete(tx, call.path["integration"], by="api")
        for region in gateway.regions:
            await endpoints.retire_all(region.database, [gone.id])
    await gateway.catalog.refresh()


async def add_secret(gateway: Gateway, call: Call[NewSecret, NoQuery]) -> Integration:
    """Put a secret in front. The older ones verify as well until they are dropped, so nothing is lost on the way."""
    secret = call.body.secret.get_secret_value().encode()
    async with gateway.control.transaction() as tx:
        await store.lock(tx)
        found = await store.get(tx, call.path["integration"])
        store.refuse_others(found, "api")
        signing = _signing(found.provider)
        purpose = call.body.purpose or signing
        fault = secret_fault(secret, all_providers().get(found.provider) if purpose == signing else None)
        if fault is not None:
            raise invalid("body.secret", fault)
        await secrets.rotate_secret(tx, gateway.control_keyring, found.id, purpose, secret, call.now)
        made = await store.get(tx, found.id)
    await gateway.catalog.refresh()
    return _shown(gateway, made)


async def drop_secrets(gateway: Gateway, call: Call[None, RetireQuery]) -> Integration:
    """Drop the oldest secrets, all but the newest `keep`: what is still signed with them is refused from then on."""
    async with gateway.control.transaction() as tx:
        await store.lock(tx)
        found = await store.get(tx, call.path["integration"])
        store.refuse_others(found, "api")
        await secrets.retire(tx, found.id, call.query.purpose or _signing(found.provider), keep=call.query.keep)
        made = await store.get(tx, found.id)
    await gateway.catalog.refresh()
    return _shown(gateway, made)


def _signing(provider: str) -> Purpose:
    known = all_providers().get(provider)
    if known is None:
        raise Invalid("This version of Posthouse does not know the integration's provider.")
    return signing_purpose(known)


def _regions(gateway: Gateway) -> list[str]:
    return [region.name for region in gateway.regions]


def _shown(gateway: Gateway, stored: store.Stored) -> Integration:
    known = gateway.catalog.integration_by_id(stored.id)
    held = {purpose: [HeldSecret(added_at=at) for at in stored.secrets.get(purpose, ())] for purpose in PURPOSES}
    return Integration(
        id=ids.show(ids.INTEGRATION, stored.id),
        name=stored.name,
        provider=stored.provider,
        region=stored.region,
        client_id=stored.client_id,
        settings=dict(stored.settings),
        unattributed=stored.unattributed,
        access_profiles={
            name: ProfileModel.model_validate(said) for name, said in as_json(stored.access_profiles).items()
        },
        return_urls=list(stored.return_urls),
        declared_by=stored.declared_by,
        url=f"{gateway.settings.public_url}/hooks/{stored.name}",
        signing_secrets=held["signing_secrets"],
        client_secrets=held["client_secrets"],
        trouble=None if known is None else known.trouble,
        created_at=stored.created_at,
        updated_at=stored.updated_at,
    )


ROUTES = [
    Route(
        "POST", "/v1/integrations", "integrations:write", create, "Set up an integration",
        body=NewIntegration, answer=Integration, status=201, idempotent=True, errors=(Conflict,),
    ),
    Route(
        "GET", "/v1/integrations", "integrations:read", list_all, "Integrations by age",
        query=PageQuery, answer=Page[Integration],
    ),
    Route(
        "GET", "/v1/integrations/{integration}", "integrations:read", show, "One integration",
        answer=Integration, errors=(NotFound,),
    ),
    Route(
        "PATCH", "/v1/integrations/{integration}", "integrations:write", change, "Change an integration",
        body=IntegrationChanges, answer=Integration, errors=(NotFound, Conflict),
    ),
    Route(
        "DELETE", "/v1/integrations/{integration}", "integrations:write", delete, "Remove an integration",
        status=204, errors=(NotFound, Conflict),
    ),
    Route(
        "POST", "/v1/integrations/{integration}/secrets", "integrations:write", add_secret, "Add a secret in front",
        body=NewSecret, answer=Integration, status=201, idempotent=True, errors=(NotFound, Conflict),
    ),
    Route(
        "DELETE", "/v1/integrations/{integration}/secrets", "integrations:write", drop_secrets, "Drop the oldest secrets",
        query=RetireQuery, answer=Integration, errors=(NotFound, Conflict),
    ),
]  # fmt: skip
