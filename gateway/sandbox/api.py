"""A small API to call with access tokens (RFC 6750): whose account it is, and messages."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.sandbox import wire
from gateway.sandbox.oauth import Refused
from gateway.sandbox.records import USERS, Token
from gateway.sandbox.state import Sandbox

LONGEST_TEXT = 10_000


class NotAuthorized(Exception):
    """Told in `WWW-Authenticate` too (RFC 6750 section 3)."""

    def __init__(self, status: int, code: str | None, why: str, scope: str | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.why, self.scope = status, code, why, scope


async def me(request: Request) -> Response:
    """`GET /api/me`: any live token will do; name and address are for `profile`."""
    token = _caller(request, None)
    told: dict[str, Any] = {
        "sub": token.grant.user or f"client:{token.grant.client_id}",
        "client_id": token.grant.client_id,
        "grant_id": token.grant.id,
        "scopes": sorted(token.scopes),
    }
    if token.grant.user is not None and "profile" in token.scopes:
        user = USERS[token.grant.user]
        told |= {"name": user.name, "email": user.email}
    return wire.answer(told)


async def listed(request: Request) -> Response:
    """`GET /api/messages`: the last 100 of the user's, newest first."""
    token, sandbox = _caller(request, "messages.read"), _sandbox(request)
    own = [message.as_json() for message in sandbox.messages if message.user == token.grant.user]
    return wire.answer({"items": own[::-1][:100]})


async def written(request: Request) -> Response:
    """`POST /api/messages` with `{"text": …}`."""
    token, sandbox = _caller(request, "messages.write"), _sandbox(request)
    said = await wire.document(request)
    text = said.get("text")
    if set(said) != {"text"} or not isinstance(text, str) or not 1 <= len(text) <= LONGEST_TEXT:
        raise Refused(
            "invalid_request", f"text must be a text of 1 to {LONGEST_TEXT} characters, and nothing beside it."
        )
    assert token.grant.user is not None
    return wire.answer(sandbox.write(token.grant.user, text).as_json(), 201)


async def contacts(request: Request) -> Response:
    """`GET /api/contacts`: everybody else."""
    token = _caller(request, "contacts.read")
    others = [{"id": user.id, "name": user.name} for user in USERS.values() if user.id != token.grant.user]
    return wire.answer({"items": others})


async def not_authorized(request: Request, error: Exception) -> Response:
    """The answer to a token that does not do."""
    assert isinstance(error, NotAuthorized)
    told = 'Bearer realm="sandbox"'
    if error.code is not None:
        told += f', error="{error.code}", error_description="{error.why}"'
    if error.scope is not None:
        told += f', scope="{error.scope}"'
    body = {"error": error.code or "unauthorized", "error_description": error.why}
    return wire.answer(body, error.status, {"www-authenticate": told})


def _sandbox(request: Request) -> Sandbox:
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox


def _caller(request: Request, scope: str | None) -> Token:
    sandbox = _sandbox(request)
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise NotAuthorized(401, None, "An access token is needed.")
    token = sandbox.tokens.get(value.strip())
    if token is None or token.kind != "access_token" or not token.lives(sandbox.clock.now()):
        raise NotAuthorized(401, "invalid_token", "The access token is unknown, expired or revoked.")
    if scope is not None and (scope not in token.scopes or token.grant.user is None):
        raise NotAuthorized(403, "insufficient_scope", "The access token does not reach that far.", scope)
    return token
