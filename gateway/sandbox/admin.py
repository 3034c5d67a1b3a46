"""The admin API: JSON, for whoever tries something. It asks for no key: the sandbox is for one's own machine.

Bodies must be application/json, which a page of another site cannot send unasked.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, fields, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.sandbox import oauth, wire
from gateway.sandbox.oauth import Refused
from gateway.sandbox.records import USERS, Client, Grant, Rules
from gateway.sandbox.state import Sandbox

CLIENT = {"name": str, "redirect_uris": list, "client_id": str, "client_secret": str, "public": bool, "scopes": list,
          "webhook_url": str, "webhook_secret": str}  # fmt: skip
CHANGEABLE = ("name", "redirect_uris", "scopes", "webhook_url", "webhook_secret")


async def register(request: Request) -> Response:
    """`POST /admin/clients`: a new app, with its secrets, which are shown here alone."""
    sandbox: Sandbox = request.app.state.sandbox
    said = _client(await wire.document(request), CLIENT)
    if "redirect_uris" not in said:
        raise Refused("invalid_request", "redirect_uris is missing.")
    if said.get("client_id") in sandbox.clients:
        raise Refused("invalid_request", "This client_id is taken.", 409)
    said["id"], said["secret"] = said.pop("client_id", None), said.pop("client_secret", None)
    client = sandbox.register(said.pop("name", "An app"), said.pop("redirect_uris"), **said)
    return wire.answer(_shown(client) | {"client_secret": client.secret, "webhook_secret": client.webhook_secret}, 201)


async def change(request: Request) -> Response:
    """`PATCH /admin/clients/{id}`."""
    sandbox: Sandbox = request.app.state.sandbox
    client = sandbox.clients.get(request.path_params["id"])
    if client is None:
        raise Refused("not_found", "No such client.", 404)
    for name, value in _client(await wire.document(request), CHANGEABLE).items():
        setattr(client, name, tuple(value) if isinstance(value, list) else value)
    return wire.answer(_shown(client))


async def clients(request: Request) -> Response:
    """`GET /admin/clients`."""
    sandbox: Sandbox = request.app.state.sandbox
    return wire.answer({"items": [_shown(client) for client in sandbox.clients.values()]})


async def rules(request: Request) -> Response:
    """`GET /admin/rules`, `PATCH /admin/rules`: lifetimes and rotation, from the next call on."""
    sandbox: Sandbox = request.app.state.sandbox
    if request.method == "PATCH":
        sandbox.rules = replace(sandbox.rules, **_rules(await wire.document(request)))
    return wire.answer(asdict(sandbox.rules))


async def grants(request: Request) -> Response:
    """`GET /admin/grants`."""
    sandbox: Sandbox = request.app.state.sandbox
    return wire.answer({"items": [_grant(grant) for grant in sandbox.grants.values()]})


async def revoke(request: Request) -> Response:
    """`POST /admin/grants/{id}/revoke`: as its user would; `{"tell": false}` sends no webhook."""
    sandbox: Sandbox = request.app.state.sandbox
    said = await wire.document(request)
    tell = said.get("tell", True)
    if set(said) - {"tell"} or not isinstance(tell, bool):
        raise Refused("invalid_request", "The body may hold tell, true or false.")
    grant = sandbox.grants.get(request.path_params["id"])
    if grant is None:
        raise Refused("not_found", "No such grant.", 404)
    oauth.end(sandbox, grant, "revoked_by_user", tell=tell)
    return wire.answer(_grant(grant))


async def message(request: Request) -> Response:
    """`POST /admin/messages` with `user` and `text`: as if somebody wrote to that user."""
    sandbox: Sandbox = request.app.state.sandbox
    said = await wire.document(request)
    user, text = said.get("user"), said.get("text")
    if (
        set(said) != {"user", "text"}
        or not isinstance(user, str)
        or user not in USERS
        or not isinstance(text, str)
        or not text
    ):
        raise Refused("invalid_request", f"The body must hold user ({', '.join(USERS)}) and text.")
    return wire.answer(sandbox.write(user, text).as_json(), 201)


async def ping(request: Request) -> Response:
    """`POST /admin/ping`: a webhook `ping` to every client that has a URL."""
    sandbox: Sandbox = request.app.state.sandbox
    await wire.document(request)
    sent = [sandbox.webhooks.tell(client, "ping", {}) for client in sandbox.clients.values()]
    return wire.answer({"items": [notice.id for notice in sent if notice is not None]}, 202)


async def webhooks(request: Request) -> Response:
    """`GET /admin/webhooks`: what was told, and how far it came."""
    sandbox: Sandbox = request.app.state.sandbox
    return wire.answer({"items": [notice.as_json() for notice in sandbox.webhooks.notices]})


def _client(said: dict[str, Any], known: Any) -> dict[str, Any]:
    if unknown := set(said) - set(known):
        raise Refused("invalid_request", f"Not known: {', '.join(sorted(unknown))[:200]}")
    for name, value in said.items():
        if not isinstance(value, CLIENT[name]) or (isinstance(value, list) and not all(map(_plain, value))):
            raise Refused("invalid_request", f"{name} is not of the right kind.")
        if isinstance(value, str) and not _plain(value):
            raise Refused("invalid_request", f"{name} must be 1 to 2000 printable ASCII characters.")
    for url in [*said.get("redirect_uris", ()), *([said["webhook_url"]] if "webhook_url" in said else ())]:
        if not url.startswith(("http://", "https://")) or "#" in url:
            raise Refused("invalid_request", "URLs must be absolute, http or https, without a fragment.")
    if "webhook_secret" in said and not _webhook_secret(said["webhook_secret"]):
        raise Refused("invalid_request", "webhook_secret must be whsec_ and 24 to 64 bytes in base64.")
    return said


def _rules(said: dict[str, Any]) -> dict[str, Any]:
    defaults = Rules()
    for name, value in said.items():
        default = getattr(defaults, name, None) if name in {each.name for each in fields(Rules)} else None
        if isinstance(default, bool):
            right = isinstance(value, bool)
        elif isinstance(default, int):
            right = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10 * 365 * 24 * 3600
        else:
            right = default is not None and value in ("none", "strict", "grace")
        if not right:
            raise Refused("invalid_request", f"{name[:50]} is not a rule, or not a value that it can have.")
    return said


def _plain(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 2000 and value.isascii() and value.isprintable()


def _webhook_secret(secret: str) -> bool:
    prefix, _, encoded = secret.partition("_")
    try:
        return prefix == "whsec" and 24 <= len(base64.b64decode(encoded, validate=True)) <= 64
    except binascii.Error:
        return False


def _shown(client: Client) -> dict[str, Any]:
    return {"client_id": client.id, "name": client.name, "redirect_uris": list(client.redirect_uris),
            "scopes": list(client.scopes), "public": client.secret is None, "webhook_url": client.webhook_url}  # fmt: skip


def _grant(grant: Grant) -> dict[str, Any]:
    ended_at = None if grant.ended_at is None else grant.ended_at.isoformat()
    return {"id": grant.id, "client_id": grant.client_id, "user": grant.user, "scopes": sorted(grant.scopes),
            "created_at": grant.created_at.isoformat(), "ended_at": ended_at, "cause": grant.cause}  # fmt: skip
