"""Refused deliveries over HTTP: what came, why it was not taken, what to look at. Never what it said."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import Field

from gateway import ids
from gateway import refusals as store
from gateway.regions import Region
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.fields import IntegrationName
from gateway.web.paging import Page, PageQuery
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Call, Route


class RefusalQuery(PageQuery):
    """Whose refusals."""

    integration: IntegrationName | None = None


class Refusal(Answer):
    """One delivery that was not taken."""

    integration: str | None = Field(description="its name; null when the integration is gone")
    endpoint: str | None
    at: datetime
    reason: str = Field(description="stable: also the label of `posthouse_refused_total`")
    status: int = Field(description="what was answered")
    header_names: list[str]
    skew_s: float | None = Field(description="our time minus the signed time, where the scheme signs one")
    size: int = Field(description="of the body as far as it was read, bytes")
    digest: str = Field(description="of the body as far as it was read: `sha256:` and hex digits")


async def list_all(gateway: Gateway, call: Call[None, RefusalQuery]) -> Page[Refusal]:
    """The newest first; the last 1,000 of each integration are kept. They appear within a second or two."""
    asked = call.query
    integration_id = None
    if asked.integration is not None:
        integration = gateway.catalog.integration(asked.integration)
        if integration is None:
            raise invalid("query.integration", "is not an integration's name")
        integration_id = integration.id

    async def read(region: Region, after: UUID | None, limit: int) -> Sequence[store.Refusal]:
        before = None if after is None else after.int
        if before is not None and before >= 2**63:
            raise invalid("query.cursor", "is not a cursor of this list")
        return await store.latest(region.database, integration_id=integration_id, before=before, limit=limit)

    found, further = await paging.across(gateway, asked, "refusals", read, lambda refusal: UUID(int=refusal.id))
    return Page(items=[_shown(gateway, refusal) for refusal in found], next_cursor=further)


def _shown(gateway: Gateway, refusal: store.Refusal) -> Refusal:
    integration = gateway.catalog.integration_by_id(refusal.integration_id)
    return Refusal(
        integration=None if integration is None else integration.name,
        endpoint=None if refusal.endpoint_id is None else ids.show(ids.ENDPOINT, refusal.endpoint_id),
        at=refusal.at,
        reason=refusal.reason,
        status=refusal.status,
        header_names=list(refusal.header_names),
        skew_s=refusal.skew_s,
        size=refusal.size,
        digest="sha256:" + refusal.digest.hex(),
    )


ROUTES = [
    Route(
        "GET", "/v1/refusals", "refusals:read", list_all, "Deliveries that were not taken, and why",
        query=RefusalQuery, answer=Page[Refusal],
    ),
]  # fmt: skip
