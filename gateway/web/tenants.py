"""Tenants over HTTP."""

from __future__ import annotations

import re
from datetime import datetime

from pydantic import Field

from gateway import tenants
from gateway.errors import Conflict, NotFound
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.fields import TENANT_ID, Labels, RegionName
from gateway.web.paging import Page, PageQuery
from gateway.web.problems import invalid
from gateway.web.routing import Answer, Body, Call, NoQuery, Route


class TenantBody(Body):
    """What a tenant is. `region` unset: the home region for a new one, and unchanged for one that exists."""

    region: RegionName | None = None
    labels: Labels = Field(default_factory=dict)


class Tenant(Answer):
    """A customer of the platform, by the platform's own id."""

    id: str
    region: str
    labels: dict[str, str]
    created_at: datetime
    updated_at: datetime


async def put(gateway: Gateway, call: Call[TenantBody, NoQuery]) -> Tenant:
    """Make a tenant, or change its labels. Its region is fixed when it is made."""
    if not re.fullmatch(TENANT_ID.rstrip("$"), call.path["tenant_id"]):
        raise invalid("path.tenant_id", "must be 1 to 200 of `A-Z a-z 0-9 . _ ~ : @ | + = -`, a letter or digit first")
    region = call.body.region
    if region is not None and not gateway.regions.holds(region):
        raise invalid("body.region", "is not a region of this deployment")
    home = gateway.regions.home.name
    return _shown(
        await tenants.put(
            gateway.control, call.path["tenant_id"], region=region, home=home, labels=call.body.labels, now=call.now
        )
    )


async def show(gateway: Gateway, call: Call[None, NoQuery]) -> Tenant:
    return _shown(await tenants.get(gateway.control, call.path["tenant_id"]))


async def list_all(gateway: Gateway, call: Call[None, PageQuery]) -> Page[Tenant]:
    position = paging.after(call.query, "tenants")
    found = await tenants.page(
        gateway.control, after=None if position is None else position[0], limit=call.query.limit + 1
    )
    return paging.cut(call.query, "tenants", found, lambda tenant: tenant.id, _shown)


def _shown(tenant: tenants.Tenant) -> Tenant:
    return Tenant(
        id=tenant.id,
        region=tenant.region,
        labels=dict(tenant.labels),
        created_at=tenant.created_at,
        updated_at=tenant.updated_at,
    )


ROUTES = [
    Route(
        "PUT", "/v1/tenants/{tenant_id}", "tenants:write", put, "Make or change a tenant",
        body=TenantBody, answer=Tenant, errors=(Conflict,),
    ),
    Route(
        "GET", "/v1/tenants/{tenant_id}", "tenants:read", show, "One tenant", answer=Tenant, errors=(NotFound,)
    ),
    Route("GET", "/v1/tenants", "tenants:read", list_all, "Tenants by id", query=PageQuery, answer=Page[Tenant]),
]  # fmt: skip
