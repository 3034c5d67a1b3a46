"""Roles: what a key may do. A route names its action; a role is the set of actions that it allows."""

from __future__ import annotations

from typing import Literal

# Every action of the API, `thing:verb`. `keys:write`, `integrations:write` and `connections:export` are the administrator's alone.
ACTIONS = frozenset(
    {
        "events:read",
        "consumers:read",
        "consumers:write",
        "tenants:read",
        "tenants:write",
        "connections:read",
        "connections:write",
        "tokens:read",
        "signals:write",
        "connections:import",
        "connections:export",  # hands out refresh tokens, sealed to whom the caller names: the administrator's alone
        "connect:read",
        "connect:write",
        "endpoints:read",
        "endpoints:write",
        "integrations:read",
        "integrations:write",
        "keys:read",
        "keys:write",
        "refusals:read",
        "set_aside:read",
        "set_aside:write",
        "providers:read",
        "providers:write",
    }
)

ADMIN = "admin"
ROLES: dict[str, frozenset[str] | Literal["*"]] = {
    ADMIN: "*",
    "reader": frozenset(
        {"events:read", "consumers:read", "connections:read", "providers:read"}
    ),  # looks, changes nothing
    "consumer": frozenset({"events:read", "consumers:read", "consumers:write"}),  # a worker on the stream
}


def allows(role: str, action: str) -> bool:
    """May a key of `role` do `action`? An unknown role may do nothing."""
    allowed = ROLES.get(role, frozenset())
    return allowed == "*" or action in allowed
