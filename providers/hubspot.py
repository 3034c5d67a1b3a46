"""HubSpot: signature v3 over method, public URL, body and time; arrays of events from many portals.

HubSpot sends v1 or v2 of its signature beside v3. They cover no time (and v1 not even the URL): whoever accepts them
as a fallback accepts a replay of anything ever sent. They are not looked at, and never stored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from providers import oauth, oauth_calls, signatures
from providers.calls import Http, Response, form
from providers.contract import Delivery, Facts, Item, Sequence, Trust, Verified, event_name
from providers.errors import GrantEnded, Malformed, OddAnswer, ProviderError
from providers.oauth import App, Asked, Identity, OAuthFacts, TokenSet
from providers.reading import account, document, identifier, instant, text
from providers.slicing import elements

FACTS = Facts(
    name="hubspot",
    title="HubSpot",
    docs_url="https://developers.hubspot.com/docs/guides/apps/authentication/validating-requests",
    signature_headers=("x-hubspot-signature-v3", "x-hubspot-signature", "x-hubspot-signature-version"),
    identity_headers=("x-hubspot-request-timestamp",),
    timestamp_tolerance_s=300,  # HubSpot's own SDKs forget the future half of it
    signs_with="client_secrets",
    ack_deadline_s=5.0,  # up to 10 more attempts over 24 h after any 4xx, 5xx or timeout
)

# https://developers.hubspot.com/docs/api-reference/legacy/authentication/oauth-tokens/v1/migration-guide: the v1 endpoints
# end on 2027-02-16. Shapes: HubSpot/HubSpot-public-api-spec-collection, PublicApiSpecs/Auth/Oauth/…/2026-03/oauth.json
OAUTH = OAuthFacts(
    authorize_url="https://app.hubspot.com/oauth/authorize",
    token_url="https://api.hubapi.com/oauth/2026-03/token",
    revoke_url="https://api.hubapi.com/oauth/2026-03/token/revoke",
    api_base="https://api.hubapi.com/oauth/2026-03",
    client_auth="post",
    pkce=True,  # the token endpoint takes code_verifier (same spec); that the install page takes a challenge: not verified
    access_ttl_s=1800,  # https://developers.hubspot.com/docs/methods/oauth2/refresh-access-token
    rotation="none",  # a refresh brings the same refresh token again
    # https://developers.hubspot.com/changelog/new-oauth-v3-api-endpoints-and-standardized-error-responses: `error` as in
    # RFC 6749, and the older `status` beside it, which for a time came alone. Statuses but the first: not verified.
    terminal=frozenset({"invalid_grant", "BAD_REFRESH_TOKEN", "BAD_AUTH_CODE", "EXPIRED_AUTH_CODE"}),
    configuration=frozenset(
        {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request"}
        | {
            "BAD_CLIENT_ID",
            "BAD_CLIENT_SECRET",
            "BAD_GRANT_TYPE",
            "BAD_REDIRECT_URI",
            "MISMATCH_REDIRECT_URI_AUTH_CODE",
        }
    ),
    # Tokens of one user and portal are alike (the same refresh token each time): one may be another connection's too.
    revoke_reach="account",
    # "This will only delete the refresh token. Access tokens generated with the refresh token will not be affected":
    # https://developers.hubspot.com/docs-beta/oauth/tokens
    probe_acquits=False,
)

# "In the request URI, decode any of the URL-encoded characters listed": these twelve and no other (same page).
ESCAPES = {
    "%3A": ":",
    "%2F": "/",
    "%3F": "?",
    "%40": "@",
    "%21": "!",
    "%24": "$",
    "%27": "'",
    "%28": "(",
    "%29": ")",
    "%2A": "*",
    "%2C": ",",
    "%3B": ";",
}
_ESCAPE = re.compile("|".join(ESCAPES), re.IGNORECASE)

# `eventId` alone is not unique. The last four are not in every event; where they are, they tell more apart.
DEDUPE = ("appId", "portalId", "subscriptionId", "eventId", "occurredAt", "objectId")
ALSO = ("subscriptionType", "propertyName", "fromObjectId", "toObjectId")


def verify(delivery: Delivery, trust: Trust, now: datetime) -> Verified:
    """Raise `Refused` unless HubSpot signed this exact request in the last 300 s."""
    sent = signatures.raw(signatures.header(delivery, "x-hubspot-signature-v3"))
    stamp = signatures.header(delivery, "x-hubspot-request-timestamp")
    signed_at = signatures.signed_time(stamp, "ms")
    start = (delivery.method + signed_url(delivery.url)).encode("utf-8", "surrogatepass")
    secret = signatures.matching(
        trust.secrets,
        lambda secret: signatures.hmac_base64(secret, start, delivery.body, stamp.encode()),
        [sent],
    )
    signatures.within(signed_at, now, FACTS.timestamp_tolerance_s or 0)
    return Verified("v3", secret=secret, signed_at=signed_at)


def items(delivery: Delivery, verified: Verified) -> Sequence[Item]:
    """An item for each event of the array; a lone object (workflow actions send one) is one item."""
    body = delivery.body
    slices = [body] if body.lstrip()[:1] == b"{" else elements(body)
    if not slices:
        raise Malformed("an empty array says nothing")
    return [_item(data) for data in slices]


def check_secret(secret: bytes) -> str | None:
    """What is wrong with a client secret."""
    return signatures.text_secret_complaint(secret)


def authorize(asked: Asked, app: App) -> Mapping[str, str]:
    """A scope that a portal's plan does not have fails the whole consent, unless it is asked for as optional.

    https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/scopes
    """
    required = {name: tuple(one for one in of if one not in asked.optional) for name, of in asked.scopes.items()}
    sent = oauth.authorize_parameters(OAUTH, app, replace(asked, scopes=required))
    wished = dict.fromkeys(one for of in asked.scopes.values() for one in of if one in asked.optional)
    return sent | ({"optional_scope": OAUTH.scope_separator.join(wished)} if wished else {})


def token_sets(answer: Mapping[str, Any], asked: Asked) -> Mapping[str, TokenSet]:
    """Granted scopes are a list, `scopes`."""
    found = oauth.token_set(OAUTH, answer)
    return dict.fromkeys(asked.scopes, replace(found, scopes=oauth.scopes_of(answer.get("scopes"), " ")))


def classify(response: Response) -> ProviderError | None:
    """By `error`, or by `status` where that is all there is."""
    refused = oauth.refusal(OAUTH, response)
    return oauth.refusal(replace(OAUTH, error_field="status"), response) if isinstance(refused, OddAnswer) else refused


async def identify(http: Http, app: App, tokens: Mapping[str, TokenSet]) -> Identity:
    """The portal: an app is installed in it as a whole, whoever of its people consents (that one is among the accounts)."""
    said = await _introspect(http, app, next(iter(tokens.values())))
    if said.get("client_id") != app.client_id:
        raise OddAnswer("other_client")
    portal = f"portal:{oauth_calls.key_at(said, 'hub_id')}"
    user = account("user", said["hub_id"], said.get("user_id"))
    return Identity(subject=portal, accounts=(portal, *user), reach=(*user, portal)[0])


async def revoke(http: Http, app: App, tokens: TokenSet) -> None:
    """The refresh token is what can be revoked; access tokens last for half an hour at the most."""
    if tokens.refresh_token is not None:
        response = await http.send(oauth.revoke_request(OAUTH, app, tokens.refresh_token, "refresh_token"))
        refused = classify(response)
        if refused is not None and not isinstance(refused, GrantEnded):
            raise refused


async def probe(http: Http, app: App, tokens: TokenSet) -> frozenset[str] | None:
    """Introspection needs no scope of the token, and tells those that it has, in a list."""
    return oauth.scopes_of((await _introspect(http, app, tokens)).get("scopes"), OAUTH.scope_separator)


async def _introspect(http: Http, app: App, tokens: TokenSet) -> dict[str, Any]:
    """What HubSpot knows of an access token.    Raises: GrantEnded, it is not valid (any more)."""
    fields = {"client_id": app.client_id, "client_secret": app.client_secret}
    fields |= {"token": tokens.access_token, "token_type_hint": "access_token"}
    response = await http.send(form(f"{OAUTH.api_base}/token/introspect", fields, carries_client_secret=True))
    refused = classify(response)
    if response.status == 404 and response.json():  # a page there is a wrong address, and says nothing of the token
        raise GrantEnded("token_rejected", status=404)
    if refused is not None:
        raise refused
    said = response.json()
    if said.get("active") is not True:
        raise GrantEnded("token_rejected")
    return said


def signed_url(url: str) -> str:
    """`url` as HubSpot signs it: twelve escapes decoded, once."""
    return _ESCAPE.sub(lambda escape: ESCAPES[escape[0].upper()], url)


def _item(data: bytes) -> Item:
    event = document(data)
    return Item(
        event=event_name(text(event.get("subscriptionType"))),
        data=data,
        accounts=account("portal", event.get("portalId")),
        dedupe=_dedupe(event),
        occurred_at=instant(event.get("occurredAt"), per_second=1000),
    )


def _dedupe(event: Mapping[str, Any]) -> str | None:
    """What stays the same when HubSpot tries again (`attemptNumber` does not); None where no event id is given."""
    if identifier(event.get("eventId")) is None or identifier(event.get("occurredAt")) is None:
        return None
    return "/".join(identifier(event.get(name)) or "" for name in DEDUPE + ALSO)
