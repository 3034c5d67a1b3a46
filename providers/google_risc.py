"""Having Google send security events (Cross-Account Protection): the two calls of its RISC API that a receiver needs.

Who may call it is a service account of the app's own Cloud project, with the role `roles/riscconfigs.admin`. It is known
by a token that it signs itself, by a key that is one of the integration's client secrets.

Source: https://developers.google.com/identity/protocols/risc
"""

from __future__ import annotations

from typing import Any

import orjson

from providers import jwt
from providers.calls import Http, bearer, called
from providers.errors import GrantEnded, Misconfigured
from providers.oauth import App
from providers.secevent_events import OAUTH, RISC

API = "https://risc.googleapis.com/v1beta"
AUDIENCE = "https://risc.googleapis.com/google.identity.risc.v1beta.RiscManagementService"
PUSH = "https://schemas.openid.net/secevent/risc/delivery-method/push"
LIFE_S = 3600  # exactly: Google refuses any other

# All that Google offers. tokens-revoked and token-revoked are in the OAuth name space; asked for under RISC's, they
# silently never come.
EVENTS = (
    *(RISC + name for name in ("sessions-revoked", "account-disabled", "account-enabled")),
    *(RISC + name for name in ("account-credential-change-required", "verification")),
    *(OAUTH + name for name in ("tokens-revoked", "token-revoked")),
)


async def stream_set_up(http: Http, app: App, url: str) -> None:
    """Have every kind of security event pushed to `url`; again and again is the same as once.

    Raises: ProviderError (Misconfigured: a setting or the key is missing, or Google does not know the service account).
    """
    await _call(http, app, "stream:update", {
        "delivery": {"delivery_method": PUSH, "url": url}, "events_requested": list(EVENTS),
    })  # fmt: skip


async def stream_verify(http: Http, app: App, state: str) -> None:
    """Have one event sent that says nothing but `state`.    Raises: ProviderError, as above."""
    await _call(http, app, "stream:verify", {"state": state})


def host(api: str) -> str:
    """Host (and port) of the API's URL, as `OAuthFacts.api_hosts` names it."""
    return api.split("/", 3)[2]


async def _call(http: Http, app: App, method: str, said: dict[str, Any]) -> None:
    url = f"{app.settings.get('risc_api') or API}/{method}"
    headers = {"content-type": "application/json"}
    try:
        await called(http, bearer("POST", url, _token(app), headers, orjson.dumps(said)))
    except GrantEnded as error:  # nobody's grant: our own service account
        raise Misconfigured("service_account_rejected", status=error.status) from None


def _token(app: App) -> str:
    email, key_id = app.settings.get("risc_service_account"), app.settings.get("risc_key_id")
    if not email or not key_id:
        raise Misconfigured("risc_service_account_missing" if not email else "risc_key_id_missing")
    if not app.private_key:
        raise Misconfigured("private_key_missing")
    if app.now is None:
        raise Misconfigured("no_time")
    issued = int(app.now.timestamp())
    claims = {"iss": email, "sub": email, "aud": AUDIENCE, "iat": issued, "exp": issued + LIFE_S}
    return jwt.signed(claims, app.private_key, key_id)
