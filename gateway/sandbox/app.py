"""The sandbox as an ASGI application: a table of its routes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.sandbox import account, admin, api, authorize, token, wire
from gateway.sandbox.oauth import Refused
from gateway.sandbox.state import Sandbox

ROUTES = [
    Route("/", account.home),
    Route("/oauth/authorize", authorize.ask, methods=["GET"]),
    Route("/oauth/authorize", authorize.decide, methods=["POST"]),
    Route("/oauth/token", token.token, methods=["POST"]),
    Route("/oauth/revoke", token.revoke, methods=["POST"]),
    Route("/oauth/introspect", token.introspect, methods=["POST"]),
    Route("/.well-known/oauth-authorization-server", authorize.metadata),
    Route("/account", account.shown),
    Route("/account/revoke", account.revoked, methods=["POST"]),
    Route("/api/me", api.me),
    Route("/api/messages", api.listed, methods=["GET"]),
    Route("/api/messages", api.written, methods=["POST"]),
    Route("/api/contacts", api.contacts),
    Route("/admin/clients", admin.clients, methods=["GET"]),
    Route("/admin/clients", admin.register, methods=["POST"]),
    Route("/admin/clients/{id}", admin.change, methods=["PATCH"]),
    Route("/admin/rules", admin.rules, methods=["GET", "PATCH"]),
    Route("/admin/grants", admin.grants),
    Route("/admin/grants/{id}/revoke", admin.revoke, methods=["POST"]),
    Route("/admin/messages", admin.message, methods=["POST"]),
    Route("/admin/ping", admin.ping, methods=["POST"]),
    Route("/admin/webhooks", admin.webhooks),
]


def sandbox_app(sandbox: Sandbox) -> Starlette:
    """The application that answers for `sandbox`."""
    app = Starlette(routes=ROUTES, exception_handlers={Refused: _refused, api.NotAuthorized: api.not_authorized})
    app.state.sandbox = sandbox
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    basic = error.code == "invalid_client" and "authorization" in request.headers  # RFC 6749 section 5.2
    return wire.refused(error, {"www-authenticate": 'Basic realm="sandbox"'} if basic else None)
