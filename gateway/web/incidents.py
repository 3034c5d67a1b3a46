"""Integration incidents over HTTP: where a provider refuses an integration itself, and an operator's word that it is mended."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gateway.breakers import incidents
from gateway.breakers.store import Open
from gateway.breakers.ways import Kind
from gateway.errors import Conflict, NotFound
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.paging import Page, PageQuery
from gateway.web.routing import Answer, Call, NoQuery, Route


class Incident(Answer):
    """A provider refuses an integration itself: calls of that kind are not made, and no connection is moved by it."""

    region: str
    integration: str | None = Field(description="its name; null: it was removed")
    provider: str
    kind: Kind = Field(description="of the calls that are refused")
    code: str | None = Field(description="the provider's own, where it is a plain word, else ours: `invalid_client` …")
    since: datetime
    retry_at: datetime = Field(description="when one call is tried again; a changed set-up is tried at once")
    failures: int = Field(description="calls that were refused so")


class Retried(Answer):
    """What an operator's word has let go."""

    integration: str
    regions: list[str]


async def list_open(gateway: Gateway, call: Call[None, PageQuery]) -> Page[Incident]:
    """Incidents that are open, by integration."""
    position = paging.after(call.query, "incidents")
    found = sorted(
        [
            (f"{region.name}/{one.scope}", region.name, one)
            for region in gateway.regions for one in await incidents.all_of(region.database)
        ],
        key=lambda each: each[0],
    )  # fmt: skip
    left = [each for each in found if position is None or each[0] > position[0]]
    return paging.cut(
        call.query, "incidents", left, lambda each: each[0], lambda each: _shown(gateway, each[1], each[2])
    )


async def retry(gateway: Gateway, call: Call[None, NoQuery]) -> Retried:
    """Say that an integration's set-up was mended: one call is tried at once. If it is refused again, the incident goes on."""
    name = call.path["integration"]
    integration = await gateway.catalog.look_up(name)
    if integration is None:
        raise NotFound("There is no such integration.")
    regions = [region.name for region in gateway.regions if await incidents.retried(region.database, integration.id)]
    if not regions:
        raise Conflict("It has no incident.")
    return Retried(integration=name, regions=regions)


def _shown(gateway: Gateway, region: str, one: Open) -> Incident:
    assert one.integration_id is not None
    return Incident(
        region=region, integration=gateway.integration_name(one.integration_id), provider=one.provider, kind=one.kind,
        code=one.code, since=one.since, retry_at=one.canary_at, failures=one.failures,
    )  # fmt: skip


ROUTES = [
    Route(
        "GET", "/v1/incidents", "providers:read", list_open, "Integrations that their provider refuses",
        query=PageQuery, answer=Page[Incident],
    ),
    Route(
        "POST", "/v1/incidents/{integration}/retry", "providers:write", retry, "Say that a set-up is mended",
        answer=Retried, errors=(NotFound, Conflict),
    ),
]  # fmt: skip
