"""The page where a user of the sandbox sees which apps are connected, and ends it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.sandbox import oauth, pages, wire
from gateway.sandbox.records import USERS
from gateway.sandbox.state import Sandbox


async def shown(request: Request) -> Response:
    """`GET /account?user=user-1`."""
    sandbox: Sandbox = request.app.state.sandbox
    user = dict(wire.query(request)).get("user", next(iter(USERS)))
    if user not in USERS:
        return pages.sorry("There is no such user.", 404)
    grants = [grant for grant in sandbox.grants.values() if grant.user == user and grant.ended_at is None]
    return pages.account(user, [(grant, sandbox.clients.get(grant.client_id)) for grant in grants])


async def revoked(request: Request) -> Response:
    """`POST /account/revoke` with `grant`: it ends, and the app is told by webhook."""
    sandbox: Sandbox = request.app.state.sandbox
    grant = sandbox.grants.get(dict(await wire.form(request)).get("grant", ""))
    if grant is None or grant.user is None:
        return pages.sorry("There is no such connected app.", 404)
    oauth.end(sandbox, grant, "revoked_by_user", tell=True)
    return RedirectResponse(f"/account?user={grant.user}", 303, wire.NO_STORE)


async def home(request: Request) -> Response:
    """`GET /`."""
    return pages.home(request.app.state.sandbox.issuer)
