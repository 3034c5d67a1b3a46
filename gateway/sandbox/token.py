"""The endpoints that only a client calls: token, revoke, introspect. Each first asks which client it is."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import Response

from gateway.sandbox import oauth, wire
from gateway.sandbox.oauth import Refused
from gateway.sandbox.records import Client
from gateway.sandbox.state import Sandbox

GRANTS: Mapping[str, Callable[[Sandbox, Client, Mapping[str, str]], dict[str, Any]]] = {
    "authorization_code": oauth.exchange,
    "refresh_token": oauth.refresh,
    "client_credentials": oauth.client_credentials,
}


async def token(request: Request) -> Response:
    """`POST /oauth/token` (RFC 6749 section 3.2)."""
    sandbox: Sandbox = request.app.state.sandbox
    asked = wire.once(await wire.form(request))
    client = _client(sandbox, request, asked)
    grant = GRANTS.get(asked.get("grant_type", ""))
    if grant is None:
        raise Refused("unsupported_grant_type", f"One of {', '.join(GRANTS)}.")
    return wire.answer(grant(sandbox, client, asked))


async def revoke(request: Request) -> Response:
    """`POST /oauth/revoke` (RFC 7009)."""
    sandbox: Sandbox = request.app.state.sandbox
    asked = wire.once(await wire.form(request))
    client = _client(sandbox, request, asked)
    if "token" not in asked:
        raise Refused("invalid_request", "token is missing.")
    oauth.revoke(sandbox, client, asked["token"])
    return Response(status_code=200, headers=wire.NO_STORE)


async def introspect(request: Request) -> Response:
    """`POST /oauth/introspect` (RFC 7662)."""
    sandbox: Sandbox = request.app.state.sandbox
    asked = wire.once(await wire.form(request))
    client = _client(sandbox, request, asked)
    if "token" not in asked:
        raise Refused("invalid_request", "token is missing.")
    return wire.answer(oauth.introspect(sandbox, client, asked["token"]))


def _client(sandbox: Sandbox, request: Request, asked: Mapping[str, str]) -> Client:
    """By client_secret_basic, client_secret_post or none: exactly one of them (RFC 6749 section 2.3)."""
    header = request.headers.get("authorization")
    if header is None:
        return oauth.authenticated(sandbox, asked.get("client_id", ""), asked.get("client_secret"))
    if "client_secret" in asked:
        raise Refused("invalid_request", "The client authenticates in two ways at once.")
    scheme, _, encoded = header.partition(" ")
    try:
        id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = id = secret = ""
    if scheme.lower() != "basic" or not colon:
        raise Refused("invalid_client", "The Authorization header is no HTTP Basic.", 401)
    id = unquote_plus(id)
    if asked.get("client_id", id) != id:
        raise Refused("invalid_request", "client_id is another one than the header's.")
    return oauth.authenticated(sandbox, id, unquote_plus(secret))
