"""The sandbox: a provider that users can try everything on. A real OAuth server, a small API, and signed webhooks.

It plays somebody else's service, so it stands alone: nothing of the gateway is used but its clock. All state is in
memory. Users are picked instead of logged in, and whoever reaches it can administer it: it is for one's own machine.

`oauth` holds the rules (issue, exchange, rotate, revoke), the other rooms are its faces: `authorize` and `account` for
people, `token` and `api` for clients, `admin` for whoever tries something, `webhooks` for what it tells unasked.

Source: RFC 6749, RFC 6750, RFC 7009, RFC 7636, RFC 7662, RFC 8414, RFC 9207, RFC 9700; Standard Webhooks 1.0.0.
"""

from __future__ import annotations

from gateway.sandbox.app import sandbox_app
from gateway.sandbox.records import SCOPES, USERS, Client, Rules
from gateway.sandbox.state import Sandbox

__all__ = ["SCOPES", "USERS", "Client", "Rules", "Sandbox", "sandbox_app"]
