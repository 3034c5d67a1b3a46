"""Plain HTML, that works without JavaScript. Whatever is not ours goes through `escape`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from starlette.responses import HTMLResponse

from gateway.sandbox.records import SCOPES, USERS, Client, Consent, Grant
from gateway.sandbox.wire import NO_STORE

# No form-action: Chrome applies it to the redirect behind a form too, and that leads to the client.
HEADERS = {
    **NO_STORE,
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
}
STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 3rem auto; padding: 0 1rem; color: #222; background: #fff }
fieldset { border: 1px solid #bbb; border-radius: .4rem; margin: 1rem 0 } label { display: block; padding: .2rem 0 }
button { font: inherit; padding: .4rem 1.2rem; margin-right: .6rem } code { word-break: break-all }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .6rem .3rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1c1c1c } a { color: #8bf } }
"""


def page(title: str, inner: str, status: int = 200) -> HTMLResponse:
    """A whole page; `inner` is HTML already."""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{inner}</main></body></html>",
        status,
        HEADERS,
    )


def sorry(why: str, status: int = 400) -> HTMLResponse:
    """Something that cannot be done."""
    return page("That does not work", f"<p>{escape(why)}</p>", status)


def consent(asked: Consent) -> HTMLResponse:
    """Who are you, what may the app do, yes or no."""
    chosen = asked.login_hint if asked.login_hint in USERS else next(iter(USERS))
    users = "".join(
        f'<label><input type="radio" name="user" value="{escape(user.id)}"{" checked" if user.id == chosen else ""}> '
        f"{escape(user.name)} ({escape(user.id)})</label>"
        for user in USERS.values()
    )
    scopes = "".join(
        f'<label><input type="checkbox" name="scope" value="{escape(scope)}" checked> '
        f"{escape(SCOPES.get(scope, scope))} (<code>{escape(scope)}</code>)</label>"
        for scope in asked.scopes
    )
    return page(
        "Connect an app",
        f"<p><strong>{escape(asked.client.name)}</strong> would like to reach your account at the sandbox.</p>"
        f'<form method="post" action="/oauth/authorize">'
        f'<input type="hidden" name="consent" value="{escape(asked.id)}">'
        f"<fieldset><legend>Who are you?</legend>{users}</fieldset>"
        f"<fieldset><legend>It may</legend>{scopes}</fieldset>"
        '<button name="decision" value="allow">Allow</button><button name="decision" value="deny">Deny</button></form>'
        "<p><small>Untick what it shall not do. All this is made up: no password is asked for, nobody is reached.</small></p>",
    )


def account(user: str, grants: Sequence[tuple[Grant, Client | None]]) -> HTMLResponse:
    """The apps that a user has connected, each with a button that ends it."""
    users = " · ".join(f'<a href="/account?user={escape(each.id)}">{escape(each.name)}</a>' for each in USERS.values())
    rows = "".join(
        f"<tr><td>{escape(client.name if client else grant.client_id)}<br><small><code>{escape(grant.id)}</code></small></td>"
        f"<td>{'<br>'.join(escape(scope) for scope in sorted(grant.scopes)) or 'nothing'}</td>"
        f'<td><form method="post" action="/account/revoke"><input type="hidden" name="grant" value="{escape(grant.id)}">'
        "<button>Revoke</button></form></td></tr>"
        for grant, client in grants
    )
    table = (
        f"<table><tr><th>App</th><th>It may</th><th></th></tr>{rows}</table>" if rows else "<p>No app is connected.</p>"
    )
    return page(f"Apps of {USERS[user].name}", f"<p>{users}</p>{table}")


def home(issuer: str) -> HTMLResponse:
    """What there is to try."""
    lines = (
        ("/oauth/authorize", "where apps send people"), ("/account", "where people end it"), ("/api/me", "an API to call"),
        ("/api/messages", "and another"), ("/.well-known/oauth-authorization-server", "all addresses, for programs"),
    )  # fmt: skip
    listed = "".join(f"<li><code>{escape(issuer + path)}</code>: {what}</li>" for path, what in lines)
    return page("Posthouse sandbox", f"<p>A provider to try things on.</p><ul>{listed}</ul>")
