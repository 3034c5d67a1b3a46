"""The authorization endpoint: a consent page, and the way back to the client."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.sandbox import oauth, pages, wire
from gateway.sandbox.oauth import NoWayBack, Refused
from gateway.sandbox.state import Sandbox


async def ask(request: Request) -> Response:
    """`GET /oauth/authorize`: the page, or an error told where RFC 6749 section 4.1.2.1 wants it."""
    sandbox: Sandbox = request.app.state.sandbox
    fields = wire.query(request)
    try:
        client, uri = oauth.where_back(sandbox, wire.once([f for f in fields if f[0] in ("client_id", "redirect_uri")]))
    except (NoWayBack, Refused) as error:
        return pages.sorry(error.why if isinstance(error, Refused) else str(error))
    state = next((value for name, value in fields if name == "state" and value), None)
    try:
        return pages.consent(oauth.begin(sandbox, client, uri, wire.once(fields)))
    except Refused as error:
        told = {"error": error.code, "error_description": error.why, "state": state, "iss": sandbox.issuer}
        return wire.back(uri, told)


async def decide(request: Request) -> Response:
    """`POST /oauth/authorize`: what the user decided on that page."""
    sandbox: Sandbox = request.app.state.sandbox
    fields = await wire.form(request)
    said = dict(fields)
    ticked = [value for name, value in fields if name == "scope"]
    allow = said.get("decision") == "allow"
    try:
        consent, code = oauth.decide(sandbox, said.get("consent", ""), said.get("user", ""), ticked, allow)
    except NoWayBack as error:
        return pages.sorry(str(error))
    told = {"code": code} if code else {"error": "access_denied", "error_description": "The user said no."}
    return wire.back(consent.redirect_uri, {**told, "state": consent.state, "iss": sandbox.issuer})


async def metadata(request: Request) -> Response:
    """`GET /.well-known/oauth-authorization-server` (RFC 8414)."""
    sandbox: Sandbox = request.app.state.sandbox
    at = sandbox.issuer
    ways = ["client_secret_basic", "client_secret_post"]
    return wire.answer(
        {
            "issuer": at,
            "authorization_endpoint": f"{at}/oauth/authorize",
            "token_endpoint": f"{at}/oauth/token",
            "revocation_endpoint": f"{at}/oauth/revoke",
            "introspection_endpoint": f"{at}/oauth/introspect",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": [*ways, "none"],
            "revocation_endpoint_auth_methods_supported": ways,
            "introspection_endpoint_auth_methods_supported": ways,
            "authorization_response_iss_parameter_supported": True,
            "scopes_supported": sorted({scope for client in sandbox.clients.values() for scope in client.scopes}),
        }
    )
