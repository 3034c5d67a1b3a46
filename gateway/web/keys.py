"""API keys over HTTP. A key is shown once, in the answer that makes it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from gateway import ids
from gateway.access import keys
from gateway.access.roles import ADMIN
from gateway.errors import NotFound
from gateway.service import Gateway
from gateway.web import paging
from gateway.web.fields import Text, When
from gateway.web.paging import Page, PageQuery
from gateway.web.routing import Answer, Body, Call, NoQuery, Route

Role = Literal["admin", "reader", "consumer"]


class NewKey(Body):
    """A key that is wanted."""

    name: Text
    role: Role = ADMIN  # type: ignore[assignment]  # the constant is typed as a plain str
    expires_at: When | None = None


class Key(Answer):
    """A key as it is listed. `prefix` is how it begins."""

    id: str
    name: str
    role: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class CreatedKey(Key):
    """A key just made. `key` is shown this once."""

    key: str


async def create(gateway: Gateway, call: Call[NewKey, NoQuery]) -> CreatedKey:
    """Make a key. Only its hash is kept: note the answer."""
    asked = call.body
    async with gateway.control.transaction() as tx:
        made = await keys.create(
            tx, gateway.control_keyring, call.now, name=asked.name, role=asked.role, expires_at=asked.expires_at
        )
    await gateway.catalog.refresh()
    return CreatedKey(**_fields(made.key), key=made.token)


async def show(gateway: Gateway, call: Call[None, NoQuery]) -> Key:
    return Key(**_fields(await keys.get(gateway.control, call.id("key_id", ids.KEY))))


async def list_all(gateway: Gateway, call: Call[None, PageQuery]) -> Page[Key]:
    """Keys in the order they were made, revoked ones included."""
    position = paging.uuid_after(call.query, "keys")
    found = await keys.page(gateway.control, after=position, limit=call.query.limit + 1)
    return paging.cut(call.query, "keys", found, lambda key: key.id.hex, lambda key: Key(**_fields(key)))


async def revoke(gateway: Gateway, call: Call[None, NoQuery]) -> None:
    """End a key: in this process at once, in every other within a second. It stays listed."""
    await keys.revoke(gateway.control, call.id("key_id", ids.KEY), call.now)
    await gateway.catalog.refresh()


def _fields(key: keys.Key) -> dict[str, object]:
    return {
        "id": ids.show(ids.KEY, key.id),
        "name": key.name,
        "role": key.role,
        "prefix": key.prefix,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


ROUTES = [
    Route(
        "POST", "/v1/keys", "keys:write", create, "Make an API key",
        body=NewKey, answer=CreatedKey, status=201, idempotent=True,
    ),
    Route("GET", "/v1/keys", "keys:read", list_all, "API keys by age", query=PageQuery, answer=Page[Key]),
    Route("GET", "/v1/keys/{key_id}", "keys:read", show, "One API key", answer=Key, errors=(NotFound,)),
    Route("DELETE", "/v1/keys/{key_id}", "keys:write", revoke, "Revoke an API key", status=204, errors=(NotFound,)),
]  # fmt: skip
