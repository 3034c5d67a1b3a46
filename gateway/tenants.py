"""Tenants in control: who they are and where they live. SQL beside the function that runs it.

A tenant's region is fixed when it is made: everything of the tenant lies there, and moving it is another job.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.database import Db
from gateway.errors import Conflict, NotFound

COLUMNS = "id, region, labels, created_at, updated_at"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the platform."""

    id: str  # the platform's own
    region: str
    labels: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


# No row comes back when the tenant is there in another region: nothing is changed then.
PUT = f"""INSERT INTO control.tenants AS t (id, region, labels, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)
          ON CONFLICT (id) DO UPDATE SET labels = excluded.labels, updated_at = excluded.updated_at
           WHERE t.region = excluded.region OR $5
          RETURNING {COLUMNS}"""  # noqa: S608 - a constant of this file


async def put(
    tx: Db, tenant_id: str, *, region: str | None, home: str, labels: Mapping[str, str], now: datetime
) -> Tenant:
    """Make or change a tenant. `region` None: where it is, or `home` if it is new.    Raises: Conflict, it lives elsewhere."""
    row = await tx.fetchrow(PUT, tenant_id, region or home, json.dumps(dict(labels)), now, region is None)
    if row is None:
        raise Conflict("A tenant does not move: its region was fixed when it was made.")
    return _tenant(row)


GET = f"SELECT {COLUMNS} FROM control.tenants WHERE id = $1"  # noqa: S608 - a constant of this file


async def get(db: Db, tenant_id: str) -> Tenant:
    """Raises: NotFound."""
    row = await db.fetchrow(GET, tenant_id)
    if row is None:
        raise NotFound("There is no such tenant.")
    return _tenant(row)


REGIONS_OF = "SELECT id, region FROM control.tenants WHERE id = ANY ($1::text[])"


async def regions_of(db: Db, tenant_ids: Collection[str]) -> dict[str, str]:
    """The region's name of each of these that exists."""
    return {row["id"]: row["region"] for row in await db.fetch(REGIONS_OF, sorted(tenant_ids))}


PAGE = f"""SELECT {COLUMNS} FROM control.tenants WHERE ($1::text IS NULL OR id > $1)
            ORDER BY id LIMIT $2"""  # noqa: S608 - a constant of this file


async def page(db: Db, *, after: str | None, limit: int) -> list[Tenant]:
    """Tenants by id, behind `after`."""
    return [_tenant(row) for row in await db.fetch(PAGE, after, limit)]


def _tenant(row: Any) -> Tenant:
    return Tenant(**{**dict(row), "labels": json.loads(row["labels"])})
